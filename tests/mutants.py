"""Mutation test: changes the code in one place at a time and expects a test to fail.

    python -m tests.mutants --seed 0 --per-area 8 --out mutants.jsonl

Places and changes are drawn by the seed from the operators below, the same number from
every area of the package. Each mutant is tried in a copy of the repository: first on
the tests of its area, then on the default tier, then on the slow tier; the first to
fail kills it. `--tiers area` stops after the first. A file given by `--out` is
continued, so that the command may be interrupted.

Mutants that change nothing a test could see are named in EQUIVALENT, with the reason,
before they are run; they are not drawn.
"""

import argparse
import ast
import collections
import concurrent.futures
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Area: (its files in jvae/, its tests in tests/).
AREAS = {
    "distributions": (["distributions"], ["distributions"]),
    "losses": (["losses"], ["losses"]),
    "flows": (["flows"], ["flows", "models/test_flow.py"]),
    "layers": (["layers"], ["layers"]),
    "models": (["models"], ["models"]),
    "data": (["data"], ["data"]),
    "training": (["training"], ["training", "commands/test_flags.py"]),
    "checkpoints": (["workdir"], ["workdir", "training/test_run_checkpoints.py"]),
    "commands": (
        ["commands", "registry.py", "sweeps"],
        ["commands", "test_registry.py", "sweeps"],
    ),
}

# "file:function: before -> after": why no test could see it.
EQUIVALENT = {
    "jvae/layers/convolutions.py:_thin_gradient: c_in <= c_out -> c_in < c_out": (
        "with as many channels on both sides either way gives the gradient"
    ),
    "jvae/layers/convolutions.py:_phases: p + k -> p - (k) #2": (
        "modulo 2 both are the same"
    ),
    "jvae/commands/explore/chart.py:nearest: "
    "((self.places - place) ** 2).sum(-1) -> "
    "((self.places - place) ** 2).mean(-1)": "the least is the same one",
    "jvae/distributions/von_mises_fisher.py:angle_table: "
    "m / math.sin(mode) ** 2 -> (m)": (
        "the table reaches up to a factor of sqrt(2) further than the density does"
    ),
    "jvae/workdir/checkpoints.py:_remove_failed: looks < LOOKS -> looks <= LOOKS": (
        "it looks once more before it is content"
    ),
    "jvae/workdir/files.py:append: "
    "time.monotonic() - self._written > self.SECONDS -> "
    "time.monotonic() - self._written >= self.SECONDS": "a time is never exactly that",
    "jvae/workdir/locks.py:_is_stale: "
    'time.time() - json.loads(text)["time"] > STALE_SECONDS -> '
    'time.time() - json.loads(text)["time"] >= STALE_SECONDS': (
        "a time is never exactly that"
    ),
    "jvae/workdir/checksums.py:_is_small: "
    "leaf.nbytes < ON_HOST -> leaf.nbytes <= ON_HOST": (
        "the sum is the same wherever it is made"
    ),
}

REDUCTIONS = {"sum": "mean", "mean": "sum"}
COMPARISONS = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
SYMBOLS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
TAKE_AXIS = {"sum", "mean", "concatenate", "stack", "softmax", "logsumexp", "split"}
TAKE_AXIS |= {"log_softmax", "max", "min", "argmax", "argmin", "cumsum", "prod"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change: the text between two offsets of a file, and what replaces it."""

    area: str
    operator: str
    file: str
    line: int
    function: str
    start: int
    end: int
    before: str
    after: str
    nth: int = 1

    @property
    def name(self):
        """What EQUIVALENT calls it; ' #2' where a function has the same text twice."""
        before, after = (" ".join(t.split()) for t in (self.before, self.after))
        name = f"{self.file}:{self.function}: {before} -> {after}"
        return name if self.nth == 1 else f"{name} #{self.nth}"


class Places(ast.NodeVisitor):
    """Collects every place of a file where an operator applies.

    Not in annotations, defaults, error messages and code at module level.
    """

    def __init__(self, area, file):
        self.area, self.file = area, str(file.relative_to(ROOT))
        self.source = file.read_text()
        lines = self.source.encode().splitlines(keepends=True)
        self.starts = [0]
        for line in lines:
            self.starts.append(self.starts[-1] + len(line))
        self.functions, self.found = [], []
        self.names = collections.Counter()
        self.visit(ast.parse(self.source))

    def offset(self, line, column):
        return self.starts[line - 1] + column

    def span(self, node):
        return (
            self.offset(node.lineno, node.col_offset),
            self.offset(node.end_lineno, node.end_col_offset),
        )

    def text(self, node):
        start, end = self.span(node)
        return self.source.encode()[start:end].decode()

    def add(self, operator, node, after, whole=None):
        """Notes that `node` may become `after`; `whole` is what the name shows."""
        if not self.functions:
            return
        start, end = self.span(node)
        shown = self.text(whole or node)
        if whole is not None:
            a, b = start - self.span(whole)[0], end - self.span(whole)[0]
            raw = shown.encode()
            shown_after = (raw[:a] + after.encode() + raw[b:]).decode()
        else:
            shown_after = after
        self.names[self.functions[-1], shown, shown_after] += 1
        mutant = Mutant(
            self.area,
            operator,
            self.file,
            node.lineno,
            ".".join(self.functions),
            start,
            end,
            shown[:100],
            shown_after[:100],
            self.names[self.functions[-1], shown, shown_after],
        )
        self.found.append((mutant, after))

    def visit_FunctionDef(self, node):  # noqa: N802
        self.functions.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.functions.pop()

    def visit_Raise(self, node):  # noqa: N802
        """Messages are not mutated."""

    def visit_JoinedStr(self, node):  # noqa: N802
        """Nor are texts."""

    def visit_AnnAssign(self, node):  # noqa: N802
        if node.value is not None:
            self.visit(node.value)

    def visit_BinOp(self, node):  # noqa: N802
        left, right = self.text(node.left), self.text(node.right)
        signs = {ast.Add: "-", ast.Sub: "+"}
        is_text = any(
            isinstance(n, ast.Constant | ast.JoinedStr)
            and isinstance(getattr(n, "value", ""), str)
            for n in (node.left, node.right)
        )
        if type(node.op) in signs and not is_text:
            sign = signs[type(node.op)]
            self.add("sign", node, f"{left} {sign} ({right})")
            self.add("dropped term", node, f"({left})")
        elif isinstance(node.op, ast.Mult | ast.Div) and not is_text:
            self.add("dropped term", node, f"({left})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node):  # noqa: N802
        is_number = isinstance(node.operand, ast.Constant)
        if isinstance(node.op, ast.USub) and not is_number:
            self.add("sign", node, self.text(node.operand))
        self.generic_visit(node)

    def visit_Constant(self, node):  # noqa: N802
        if type(node.value) is int:
            self.add("+-1", node, str(node.value + 1), self.statement)

    def visit_Compare(self, node):  # noqa: N802
        if len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
            left, right = self.text(node.left), self.text(node.comparators[0])
            other = COMPARISONS[type(node.ops[0])]
            self.add("< and <=", node, f"{left} {other} {right}")
        self.generic_visit(node)

    def visit_Call(self, node):  # noqa: N802
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        whole = self.text(node)
        if name in REDUCTIONS:
            head = self.text(node.func)
            other = head[: -len(name)] + REDUCTIONS[name]
            self.add("sum and mean", node, other + whole[len(head) :])
        if name in TAKE_AXIS:
            self.axis(node)
        if name == "stop_gradient":
            self.add("dropped stop_gradient", node, f"({self.text(node.args[0])})")
        plain = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.BinOp)
        if len(node.args) >= 2 and all(isinstance(a, plain) for a in node.args[:2]):
            first, second = node.args[:2]
            between = self.source.encode()[self.span(first)[1] : self.span(second)[0]]
            swapped = self.text(second) + between.decode() + self.text(first)
            start = self.span(first)[0] - self.span(node)[0]
            end = self.span(second)[1] - self.span(node)[0]
            raw = whole.encode()
            after = raw[:start] + swapped.encode() + raw[end:]
            self.add("swapped arguments", node, after.decode())
        self.generic_visit(node)

    def axis(self, node):
        """Notes the axes of a call that may be others: -1 and 0, 0 and 1."""
        values = [k.value for k in node.keywords if k.arg == "axis"]
        is_array_method = not isinstance(node.func.value, ast.Name)
        position = 0 if is_array_method or node.func.value.id not in LIBRARIES else 1
        values += node.args[position : position + 1]
        for value in values:
            try:
                axis = ast.literal_eval(value)
            except ValueError:
                continue
            if type(axis) is int and axis in (-1, 0, 1):
                self.add("axis", value, {-1: "0", 0: "-1", 1: "0"}[axis], node)

    @property
    def statement(self):
        return self._statement

    def visit(self, node):
        if isinstance(node, ast.expr):
            outer, self._statement = getattr(self, "_statement", None), node
            if isinstance(node, ast.Constant) and outer is not None:
                self._statement = outer
            super().visit(node)
            self._statement = outer
        else:
            super().visit(node)


LIBRARIES = {"jnp", "np", "jax", "nn"}


def places(area):
    """Returns every (mutant, new text) of an area, in the order of the files."""
    found = []
    for name in AREAS[area][0]:
        path = ROOT / "jvae" / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found += Places(area, file).found
    return found


def draw(seed, per_area):
    """Returns mutants: operators take turns, so that rare ones are drawn too."""
    chosen = []
    for area in AREAS:
        rng = random.Random(f"{seed} {area}")
        by_operator = collections.defaultdict(list)
        for mutant, after in places(area):
            if mutant.name not in EQUIVALENT:
                by_operator[mutant.operator].append((mutant, after))
        for group in by_operator.values():
            rng.shuffle(group)
        order = sorted(by_operator)
        rng.shuffle(order)
        taken = []
        while len(taken) < per_area and any(by_operator.values()):
            for operator in order:
                if by_operator[operator] and len(taken) < per_area:
                    taken.append(by_operator[operator].pop())
        chosen += taken
    return chosen


def selected_tests(area, tier):
    """Returns pytest's arguments for one tier of a mutant."""
    if tier == "area":
        return ["-n0", *(f"tests/{name}" for name in AREAS[area][1])]
    return ["-m", "slow"] if tier == "slow" else []


def attempt(folder, mutant, after, tier, limit):
    """Returns (whether a test failed, the first that did, seconds) in a copy."""
    file = folder / mutant.file
    source = file.read_bytes()
    file.write_bytes(source[: mutant.start] + after.encode() + source[mutant.end :])
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += selected_tests(mutant.area, tier)
    start = time.monotonic()
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    env.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder.parent / "compiled"))
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=limit, env=env
        )
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        code, text = -1, "it did not end in time"
    finally:
        file.write_bytes(source)
    lines = [x for x in text.splitlines() if x.startswith(("FAILED", "ERROR"))]
    words = (lines or text.strip().splitlines()[-1:] or ["?"])[0]
    return code != 0, words[:160], time.monotonic() - start


def clone(folder):
    """Copies what is committed or changed, without caches."""
    ignored = (".git", "__pycache__", ".*_cache", "*.egg-info", "runs", "build")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    return folder


def judge(folders, mutant, after, tiers, limit):
    """Returns what became of a mutant, as a dict for the file."""
    folder = folders.pop()
    row = {**dataclasses.asdict(mutant), "name": mutant.name, "killed_by": None}
    row["tried"] = {}
    try:
        for tier in tiers:
            is_killed, words, seconds = attempt(folder, mutant, after, tier, limit)
            row["tried"][tier] = round(seconds, 1)
            if is_killed:
                row |= {"killed_by": tier, "first": words}
                break
    finally:
        folders.append(folder)
    return row


def summary(rows):
    """Returns the table by area, and the names of the survivors."""
    lines = [f"{'area':15s} drawn  area  default  slow  survived"]
    for area in [*AREAS, "all"]:
        of_area = [r for r in rows if area in (r["area"], "all")]
        by = collections.Counter(r["killed_by"] for r in of_area)
        lines.append(
            f"{area:15s} {len(of_area):5d} {by['area']:5d} {by['default']:8d} "
            f"{by['slow']:5d} {by[None]:9d}"
        )
    lines += [f"survived: {r['name']}" for r in rows if r["killed_by"] is None]
    return "\n".join(lines)


def main():
    """Draws the mutants and tries each that the file does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-area", type=int, default=8)
    parser.add_argument("--tiers", default="area,default,slow")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--at-once", type=int, default=2, help="of the area's tests")
    parser.add_argument("--limit", type=float, default=1800, help="seconds of a tier")
    parser.add_argument("--list", action="store_true", help="print them, run nothing")
    options = parser.parse_args()
    chosen = draw(options.seed, options.per_area)
    print(f"seed {options.seed}: {len(chosen)} mutants", flush=True)
    if options.list:
        print("\n".join(f"{m.operator:22s} {m.name}" for m, _ in chosen))
        return
    rows = []
    if options.out.exists():
        rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    done = {row["name"]: row for row in rows}
    tiers = options.tiers.split(",")
    with tempfile.TemporaryDirectory(prefix="jvae-mutants-") as scratch:
        folders = [clone(Path(scratch) / str(i)) for i in range(options.at_once)]

        def run(one, tiers):
            row = judge(folders, *one, tiers, options.limit)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            how = row["killed_by"] or "SURVIVED"
            print(f"{how:8s} {row['tried']} {row['name']}", flush=True)
            done[row["name"]] = row

        left = [one for one in chosen if one[0].name not in done]
        with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(lambda one: run(one, tiers[:1]), left))
        for tier in tiers[1:]:  # which take all processors
            for one in chosen:
                row = done[one[0].name]
                if row["killed_by"] is None and tier not in row["tried"]:
                    run(one, [tier])
    print(summary([done[m.name] for m, _ in chosen]))


if __name__ == "__main__":
    main()
