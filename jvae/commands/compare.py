"""Compares evaluated runs on one page, a file without any other.

jvae compare RUN RUN ... --out=comparison.html

RUN is a workdir, whose evaluation of the latest step is taken, or the folder of an
evaluation. The page has the numbers side by side, rate and distortion, KL, training
curves, the pictures, and where configurations differ. What `jvae eval` writes for one
run is its report.html.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etils import epath

from jvae.commands.flags import Parser, parse
from jvae.errors import ConfigError, WorkdirError
from jvae.reports import comparison
from jvae.reports.comparison import EvaluatedRun
from jvae.workdir import files
from jvae.workdir.metrics import read_metrics

OUT = "comparison.html"
MARKS = tuple(
    f'<meta name="generator" content="{name}">'
    for name in ("jvae compare", "jvae.report")
)
"""By which a page is known that may be replaced, of this release and of 0.1.0."""


def read_run(path: str, split: str) -> EvaluatedRun:
    """Returns the evaluation of a workdir, or the one that lies in a folder.

    Args:
      path: of either.
      split: of a workdir's evaluation.

    Raises:
      WorkdirError: there is none, or it cannot be read.
    """
    folder = workdir = epath.Path(path).expanduser()
    if (folder / "results.json").exists():
        workdir = folder.parent.parent
        has_history = folder.parent.name == "evaluation"
    else:
        found = sorted(folder.glob(f"evaluation/{split}_*/results.json"))
        if not found:
            raise WorkdirError(
                f"there is no evaluation of the {split} split",
                where=path,
                fix=f"jvae eval --workdir={path} --split={split}",
            )
        folder, has_history = found[-1].parent, True
    history = read_metrics(workdir) if has_history else []
    return EvaluatedRun(path, comparison.read_results(folder), folder, history)


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns the ends of paths that tell them apart: 'a/run' and 'b/run', or 'run'."""
    parts = [epath.Path(path).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("a run is named twice")


def write_page(text: str, out: epath.PathLike) -> None:
    """Writes the page; an older comparison is replaced, another file is not.

    Raises:
      WorkdirError: there is another file of that name, or it cannot be written.
    """
    file = epath.Path(out).expanduser()
    about = {"where": str(out), "fix": "Name another with --out."}
    try:
        there = files.read_text(file)
        if there is not None and not any(mark in there[:1000] for mark in MARKS):
            raise WorkdirError("this file is no comparison and is kept", **about)
        files.write_whole(file, text)
    except OSError as error:
        raise WorkdirError(f"the page cannot be written: {error}", **about) from error


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("jvae compare", __doc__)
    parser.add_argument("runs", nargs="*", help="workdirs or folders of evaluations")
    parser.add_argument("--split", default="test", help="of workdirs (default test)")
    parser.add_argument("--out", default=OUT, help=f"the page (default {OUT})")
    flags = parse(parser, arguments)
    if len(flags.runs) < 2:
        raise ConfigError("name two runs or more", where=parser.prog)
    names = short_names(flags.runs)
    runs = [
        dataclasses.replace(read_run(path, flags.split), name=name)
        for name, path in zip(names, flags.runs, strict=True)
    ]
    write_page(comparison.render_comparison(runs), flags.out)
    print(f"comparison: {flags.out}")
