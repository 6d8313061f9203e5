"""Sentences of novels: where they end, what is left out, which split they go to."""

import itertools

import pytest

from jvae.commands.main import main
from jvae.data import build
from jvae.data.datasets import novels
from jvae.errors import DataError

BOOK = """The Project Gutenberg eBook of Nothing

*** START OF THE PROJECT GUTENBERG EBOOK NOTHING ***

CHAPTER I

\u201cMr. Knightley\u2019s house was _quite_ full,\u201d said she; and so\r
it was! Ill-luck followed\u2014always. Never?

No.

*** END OF THE PROJECT GUTENBERG EBOOK NOTHING ***

A licence of many words follows here.
"""


def test_a_book_becomes_sentences():
    found = [" ".join(words) for words in novels.sentences(BOOK, 3)]
    assert found == [
        "mr knightley's house was quite full , said she ;",
        "and so it was !",
        "ill-luck followed -- always .",
    ]
    assert len(list(novels.sentences(BOOK, 1))) == 5
    (words,) = novels.sentences("The caf\xe9 was na\xefve, Bront\xeb said.")
    assert words[1:4] == ("caf\xe9", "was", "na\xefve")
    assert len(list(novels.sentences(BOOK, 1, 5))) == 4


def book(path, sentences):
    path.write_text("\n".join(f"the word {n} stands here ." for n in sentences))
    return path


def test_every_sentence_is_in_one_split_and_the_same_with_more_books(tmp_path):
    one = book(tmp_path / "one.txt", range(400))
    two = book(tmp_path / "two.txt", range(200, 900))
    counts = novels.write_splits([one], tmp_path / "a", held_out=0.1)
    assert sum(counts.values()) == 400
    assert all(abs(counts[split] - 40) < 5 * 6 for split in ("valid", "test"))
    novels.write_splits([one, two], tmp_path / "b", held_out=0.1)
    lines = {
        (folder, split): (tmp_path / folder / f"{split}.txt").read_text().splitlines()
        for folder, split in itertools.product("ab", novels.SPLITS)
    }
    for split in novels.SPLITS:
        assert lines["b", split][: len(lines["a", split])] == lines["a", split]
    every = [line for split in novels.SPLITS for line in lines["b", split]]
    assert len(every) == len(set(every)) == 900
    splits = build(name="text", path=str(tmp_path / "b"))
    assert len(splits.train) == len(lines["b", "train"])
    assert splits.validation is not None and splits.train.lengths.max() == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"no end mark here", "no sentence for train, valid, test"),
        (None, "No such file"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, capsys, content, message):
    file = tmp_path / "book.txt"
    if content is not None:
        file.write_bytes(content)
    code = main(["novels", str(file), f"--out={tmp_path / 'out'}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == DataError.exit_code and line.startswith("jvae: error: ")
    assert message in line and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    file = book(tmp_path / "one.txt", range(400))
    assert main(["novels", str(file), f"--out={file}"]) == DataError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write" in line


def test_the_command_says_how_many_there_are(tmp_path, capsys):
    file = book(tmp_path / "one.txt", range(400))
    assert main(["novels", str(file), f"--out={tmp_path / 'out'}"]) == 0
    assert "sentences, valid" in capsys.readouterr().out
    assert main(["novels", str(file), f"--out={tmp_path}", "--held_out=0.7"]) == 2
    assert "held_out must be within (0, 0.5)" in capsys.readouterr().err
