"""Where an attribute is asked for by name, and how long a file or a function may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "jvae"
FILES = sorted(ROOT.rglob("*.py"))
ASKING = ("hasattr", "getattr", "getattr_static", "attrgetter", "vars")

ASKED = {
    "commands/flags.py": (1, "argparse's Namespace holds flags by name"),
    "contract.py": (5, "as_model: what a user's own module has, and Model declares"),
    "data/datasets/tfds.py": (1, "what its library raises at damaged metadata"),
    "data/sources.py": (2, "a source may be of any class; lengths are of sentences"),
    "distributions/events.py": (2, "as_distribution: one of a user's own class"),
    "losses/objective.py": (1, "an objective of a user's own may not be marked"),
    "import_paths.py": (2, "what an import path names"),
    "registry.py": (1, "fields of a dataclass by name"),
    "runtime/mesh.py": (1, "JAX's devices; not all of CPUs have a slice"),
    "runtime/log_filters.py": (2, "coroutines of Orbax; a stream without a descriptor"),
    "workdir/failures.py": (1, "what Orbax raises at a damaged checkpoint"),
}
"""{file: (how often, why)}; nowhere else, and never of an object of our own class."""


def asks(tree):
    """Returns how often a tree asks for an attribute by name."""
    raised = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        for name in ast.walk(node)
    }
    count = 0
    for node in set(ast.walk(tree)) - raised:
        if isinstance(node, ast.Call):
            function = node.func
            count += isinstance(function, ast.Name) and function.id in ASKING
            count += isinstance(function, ast.Attribute) and function.attr in ASKING
        elif isinstance(node, ast.Attribute):
            count += node.attr == "__dict__"
        elif isinstance(node, ast.Name):
            count += node.id == "AttributeError"
    return count


def test_attributes_are_asked_for_by_name_in_few_places():
    found = {}
    for path in FILES:
        count = asks(ast.parse(path.read_text()))
        if count:
            found[str(path.relative_to(ROOT))] = count
    assert found == {file: count for file, (count, _) in ASKED.items()}
    assert sum(found.values()) <= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_and_its_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            doc, lines = node.body[0], node.end_lineno - node.lineno + 1
            if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                lines -= doc.end_lineno - doc.lineno + 1
            assert lines <= 60, node.name


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("hasattr(x, 'a')", 1),
        ("inspect.getattr_static(x, 'a')", 1),
        ("f = operator.attrgetter('a')", 1),
        ("x.__dict__['a']", 1),
        ("try:\n  x.a\nexcept AttributeError:\n  pass", 1),
        ("try:\n  x.a\nexcept (KeyError, AttributeError):\n  pass", 1),
        ("x.a, x.vars", 0),
        ("raise AttributeError(x)", 0),
    ],
)
def test_what_counts(code, count):
    assert asks(ast.parse(code)) == count
