"""A public name is defined in one module, unless there is a reason."""

import ast
import collections
from pathlib import Path

JVAE = Path(__file__).parent.parent / "jvae"

TWICE = {
    "build": "reads as its module's object: models.build, losses.build, mesh.build",
    "command": "what every module of jvae.commands offers to jvae.commands.main",
    "gaussian": "a key of three registries: latents, likelihoods, groups of NVAE",
    "infomax": "a key of two registries: the objective and its model",
    "nearest": "of names in an error, and of codes",
}


def test_a_name_is_defined_once():
    modules = collections.defaultdict(list)
    for file in sorted(JVAE.rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            is_definition = isinstance(node, ast.FunctionDef | ast.ClassDef)
            if is_definition and not node.name.startswith("_"):
                modules[node.name].append(str(file.relative_to(JVAE)))
    twice = {name: found for name, found in modules.items() if len(found) > 1}
    more = twice.keys() - TWICE.keys()
    where = {name: twice[name] for name in more}
    assert not more, f"take another name or give TWICE a reason: {where}"
    assert twice.keys() == TWICE.keys()
