"""Vocabularies, sentences as tokens, the files they come from, batches by length."""

import dataclasses
import itertools
import json
import logging

import numpy as np
import pytest

from jvae.data import build, eval_batches, train_batches
from jvae.data.pipeline import POOL, batch_indices, order
from jvae.data.sources import Subset
from jvae.data.vocabulary import (
    SentenceSource,
    Vocabulary,
    sources,
    split_sentence,
)
from jvae.errors import ConfigError, DataError

SENTENCES = [text.split() for text in ("b a b", "c b", "a d b", "b")]


def test_the_most_frequent_words_are_known_and_ties_are_in_order():
    words = Vocabulary.of(SENTENCES).words
    assert words == ("</s>", "<unk>", "b", "a", "c", "d")
    assert Vocabulary.of(SENTENCES, min_count=2).words == words[:4]
    assert Vocabulary.of(SENTENCES, max_size=5).words == words[:5]
    assert Vocabulary.of([["<unk>", "</s>", "x"]]).words == ("</s>", "<unk>", "x")


def test_sentences_come_back_from_tokens_but_for_words_that_are_not_known():
    vocabulary = Vocabulary.of(SENTENCES, min_count=2)
    tokens, lengths = vocabulary.encode(SENTENCES)
    np.testing.assert_array_equal(lengths, [4, 3, 4, 2])
    np.testing.assert_array_equal(
        tokens, [[2, 3, 2, 0], [1, 2, 0, 0], [3, 1, 2, 0], [2, 0, 0, 0]]
    )
    assert tokens.dtype == np.int32
    assert vocabulary.decode(tokens) == ["b a b", "<unk> b", "a <unk> b", "b"]
    assert vocabulary.decode(np.array([[2, 2, 3], [0, 2, 2]])) == ["b b a", ""]
    assert vocabulary.decode(np.array([[2, 9, 0]])) == ["b <unk>"]  # no such word
    tokens, lengths = vocabulary.encode([["a", "</s>", "b"]])
    assert (tokens.tolist(), lengths.tolist()) == ([[3, 1, 2, 0]], [4])


def test_a_vocabulary_without_words_is_refused():
    with pytest.raises(DataError, match="the vocabulary is empty: 4 words, none of"):
        Vocabulary.of(SENTENCES, min_count=9)
    with pytest.raises(DataError, match="hold no word twice"):
        Vocabulary(("</s>", "<unk>", "a", "a"))
    with pytest.raises(DataError, match="must begin with"):
        Vocabulary(("a", "b"))


def test_widths_split_the_training_sentences_evenly_and_hold_all():
    lengths = np.arange(1, 13, dtype=np.int32)
    long = (np.zeros((1, 15), np.int32), np.array([15], np.int32))
    train, test = sources([(np.zeros((12, 12), np.int32), lengths), long], 3)
    assert train.buckets == test.buckets == (5, 9, 15)
    assert train.shapes == test.shapes == {"tokens": (15,), "length": ()}
    with pytest.raises(ConfigError, match="data.num_buckets must be at least 1"):
        sources([long], 0)


def numbered(size, longest=20):
    """Sentences whose first token is their position."""
    lengths = np.random.default_rng(0).integers(2, longest + 1, size).astype(np.int32)
    tokens = np.zeros((size, longest), np.int32)
    tokens[:, 0] = np.arange(size)
    return SentenceSource(tokens, lengths, (7, 13, longest))


def some(source, count, **options):
    batches = train_batches(source, seed=3, num_threads=0, **options)
    return list(itertools.islice(batches, count))


def test_batches_hold_every_sentence_once_an_epoch_as_wide_as_they_must_be():
    source = numbered(8 * POOL)
    batches = some(source, POOL, batch_size=8)
    seen = np.concatenate([batch["tokens"][:, 0] for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(8 * POOL))
    for batch in batches:
        assert batch["length"].max() <= batch["tokens"].shape[1] in source.buckets
        np.testing.assert_array_equal(
            batch["length"], source.lengths[batch["tokens"][:, 0]]
        )
        # one of POOL parts of the sorted lengths: a few lengths only
        assert np.ptp(batch["length"]) <= 2
    widths = [batch["tokens"].shape[1] for batch in batches]
    assert set(widths) == set(source.buckets)
    assert widths != sorted(widths)
    padded = sum(b["tokens"].size for b in batches) / source.lengths.sum()
    assert padded < 1.35 < source.tokens.size / source.lengths.sum()


def test_one_bucket_mixes_lengths_in_the_order_of_the_run():
    source = dataclasses.replace(numbered(8 * POOL), buckets=(20,))
    batches = some(source, POOL, batch_size=8)
    seen = np.concatenate([batch["tokens"][:, 0] for batch in batches])
    np.testing.assert_array_equal(seen, order(3, 8 * POOL, 0, 8 * POOL))
    assert np.mean([np.ptp(batch["length"]) for batch in batches]) > 10


@pytest.mark.parametrize("size", [9, 40, 77])
def test_no_batch_of_few_sentences_holds_one_twice_in_the_first_epoch(size):
    source = numbered(size)
    batches = some(source, size // 8, batch_size=8)
    seen = np.concatenate([batch["tokens"][:, 0] for batch in batches])
    assert len(np.unique(seen)) == len(seen)


def test_a_run_goes_on_with_the_same_batches_from_any_step():
    source = numbered(90)
    whole = some(source, 120, batch_size=8)
    for start in (1, POOL - 1, POOL, 77):
        later = some(source, 5, batch_size=8, start_step=start)
        for a, b in zip(later, whole[start : start + 5], strict=True):
            np.testing.assert_array_equal(a["tokens"], b["tokens"])
    orders = [batch_indices(source, seed, 8, 0).tolist() for seed in (3, 4)]
    assert orders[0] != orders[1]
    np.testing.assert_array_equal(orders[0], whole[0]["tokens"][:, 0])


def test_processes_share_a_batch_of_one_width():
    source = numbered(200)
    whole = some(source, POOL, batch_size=8)
    parts = [
        some(source, POOL, batch_size=8, process_index=i, process_count=2)
        for i in range(2)
    ]
    for both, a, b in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(
            both["tokens"], np.concatenate([a["tokens"], b["tokens"]])
        )


def test_steps_that_are_stacked_are_as_wide_as_the_widest():
    source = numbered(200)
    single = some(source, 6, batch_size=8)
    for i, batch in enumerate(some(source, 3, batch_size=8, stack=2)):
        width = max(b["tokens"].shape[1] for b in single[2 * i : 2 * i + 2])
        assert batch["tokens"].shape == (2, 8, width)
        np.testing.assert_array_equal(batch["length"][1], single[2 * i + 1]["length"])


@pytest.mark.parametrize("count", [None, 20])
def test_evaluation_sees_every_sentence_once_with_its_position(count):
    source = Subset(numbered(50), np.arange(49, 4, -1))
    batches = list(eval_batches(source, batch_size=8, num_examples=count))
    index = np.concatenate([b["index"][b["mask"]] for b in batches])
    np.testing.assert_array_equal(np.sort(index), np.arange(count or 45))
    for batch in batches:
        firsts = source.read(batch["index"])["tokens"][:, 0]
        np.testing.assert_array_equal(batch["tokens"][:, 0], firsts)
        assert batch["length"].max() <= batch["tokens"].shape[1]
    assert len({b["tokens"].shape[1] for b in batches}) > 1


def write(folder, **files):
    for name, text in files.items():
        content = text if isinstance(text, bytes) else text.encode()
        (folder / f"{name}.txt").write_bytes(content)
    return {"name": "text", "path": str(folder)}


def test_a_folder_of_text_files_becomes_splits(tmp_path):
    given = write(tmp_path, train="\ufeffa b\na c\r\n", valid="b b c\n", test="d a")
    splits = build(**given)
    assert splits.vocabulary.words[2:] == ("a", "b", "c")
    decode = splits.vocabulary.decode
    assert decode(splits.train.tokens) == ["a b", "a c"]
    assert decode(splits.validation.tokens) == ["b b c"]
    assert decode(splits.test.tokens) == ["<unk> a"]
    assert len(build(**given, max_sentences=1).vocabulary) == 4
    assert len(build(**given, vocabulary_size=3).vocabulary) == 3
    assert len(build(**given, min_count=2).vocabulary) == 3


def test_without_test_sentences_those_of_validation_are_the_test(tmp_path):
    splits = build(**write(tmp_path, train="a b\n" * 9, valid="b\n"), num_validation=2)
    assert splits.vocabulary.decode(splits.test.tokens) == ["b"]
    assert (len(splits.train), len(splits.validation)) == (7, 2)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"train": "a\n"}, {}, "no test.txt among 'train.txt' (1 in all)"),
        (
            {"train": f"a {'b' * 1001}", "test": "a"},
            {},
            "a word of 1,001 characters, more than 1,000 (.*line 1",
        ),
        ({"test": "a\n"}, {}, "no train.txt"),
        ({"train": b"a\n\xff\n", "test": "a\n"}, {}, "byte 2 is not UTF-8"),
        ({"train": "a\n\nb\n", "test": "a\n"}, {}, "an empty line (.*line 2"),
        (
            {"train": "a\n", "test": "a a a\n"},
            {"max_words": 2},
            "3 words, more than data.max_words 2 (.*line 1",
        ),
        ({"train": "", "test": "a"}, {}, "the file is empty (.*train.txt"),
        (
            {"train": "a", "test": b"\xef\xbb\xbf\n \n"},
            {},
            "the file is empty (.*test.txt",
        ),
        (
            {"train": "a a", "test": "a"},
            {"on_bad_line": "skip", "max_words": 1},
            "no sentence is left",
        ),
        (
            {"train": "abc", "test": "a"},
            {"unit": "character", "max_words": 2},
            "3 characters, more than data.max_words 2 (.*line 1",
        ),
        ({"train": "a b", "test": "a"}, {"min_count": 2}, "the vocabulary is empty"),
    ],
)
def test_broken_text_is_one_line(tmp_path, files, options, message):
    with pytest.raises(DataError) as error:
        build(**write(tmp_path, **files), **options)
    text = str(error.value)
    first, _, second = message.partition("(.*")
    assert first in text and second in text and "\n" not in text


def test_other_files_and_a_text_of_other_words_are_said(tmp_path, caplog):
    given = write(tmp_path, train="a b\n", valid="a d\n", test="c d a\n", val="a\n")
    with caplog.at_level(logging.WARNING, logger="jvae"):
        build(**given)
    left_out, unknown = [record.getMessage() for record in caplog.records]
    assert "left out of" in left_out and "'val.txt' (1 in all)" in left_out
    assert "test.txt: 67% of its words are unknown" in unknown


def test_bad_lines_that_are_left_out_are_counted(tmp_path, caplog):
    given = write(tmp_path, train="a b\n\na a a a\nb\n", test="a\n")
    with caplog.at_level(logging.WARNING, logger="jvae"):
        splits = build(**given, on_bad_line="skip", max_words=3)
    assert splits.vocabulary.decode(splits.train.tokens) == ["a b", "b"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "2 of 4 lines left out, empty or over 3 words" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary_size": 2}, "data.vocabulary_size must be at least 3, got 2"),
        ({"max_words": 0}, "data.max_words must be at least 1, got 0"),
        ({"max_sentences": 0}, "data.max_sentences must be None or at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        build(**write(tmp_path, train="a", test="a"), **options)


VERSES = "春眠不觉晓\n处处闻啼鸟\n夜来 风雨声\n"


def test_text_without_spaces_is_read_by_characters(tmp_path):
    given = write(tmp_path, train=VERSES, test=" 花落 啼鸟\u3000\n")
    splits = build(**given, unit="character")
    assert set(splits.vocabulary.words[2:]) == set(VERSES) - {"\n"}
    assert splits.vocabulary.decode(splits.train.tokens) == VERSES.splitlines()
    assert splits.vocabulary.decode(splits.test.tokens) == ["<unk><unk> 啼鸟"]
    np.testing.assert_array_equal(splits.train.lengths, [6, 6, 7])
    assert len(build(**given, unit="character", vocabulary_size=5).vocabulary) == 5


@pytest.mark.parametrize(
    ("train", "fields", "warns"),
    [
        (VERSES.replace(" ", ""), {}, True),
        ("a b\n" + "ab\n" * 19, {}, True),
        ("a b\n" + "ab\n" * 8, {}, False),
        (VERSES, {"unit": "character"}, False),
        ("春\n夏\n", {"unit": "character"}, False),
    ],
)
def test_lines_of_one_word_are_said(tmp_path, caplog, train, fields, warns):
    with caplog.at_level(logging.WARNING, logger="jvae"):
        build(**write(tmp_path, train=train, test="a"), **fields)
    assert ("one word each; set data.unit='character'" in caplog.text) == warns


def test_a_checkpoint_tells_characters_from_words():
    sentences = [split_sentence("bab a", "character")]
    of_characters = Vocabulary.of(sentences, unit="character")
    of_words = Vocabulary(of_characters.words)
    for vocabulary in (of_characters, of_words):
        labels = json.loads(json.dumps(vocabulary.labels))
        assert Vocabulary.of_labels(labels) == vocabulary
    assert of_words != of_characters and Vocabulary.of_labels({}) is None
    earlier = {"vocabulary": list(of_words.words)}
    assert Vocabulary.of_labels(earlier) == of_words
