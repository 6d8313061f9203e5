"""Writes a trained model for programs without jvae: safetensors and StableHLO.

jvae export WORKDIR OUT

OUT/variables.safetensors has all arrays, named 'params/encoder/Dense_0/kernel', and the
config. OUT/encode.jaxexport, decode.jaxexport and sample.jaxexport are functions of
these arrays and of a batch of any size, for cpu, cuda and tpu; jax.export reads them.
OUT/export.json says what each takes and gives. See docs/export.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from etils import epath

from jvae.commands.flags import empty_folder, model_parser, restored
from jvae.errors import ConfigError
from jvae.pretrained import predictions, samples
from jvae.pretrained.restore import Pretrained
from jvae.workdir import files
from jvae.workdir.checksums import by_path

PLATFORMS = ("cpu", "cuda", "tpu")
VARIABLES = "variables.safetensors"
ABOUT = "export.json"


def export(
    model: Pretrained, out: epath.PathLike, platforms: Sequence[str] = PLATFORMS
) -> dict[str, Any]:
    """Writes the model into a new folder and returns what export.json says.

    Args:
      model: from `jvae.restore`.
      out: the folder; made if missing, must be empty.
      platforms: that the functions are compiled for, of 'cpu', 'cuda' and 'tpu'.

    Raises:
      WorkdirError: `out` has files in it.
      ConfigError: an unknown platform, or a package of the extra 'export' is missing.
    """
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown or not platforms:
        raise ConfigError(f"platforms must be of {list(PLATFORMS)}, got {unknown}")

    safetensors = _packages()
    folder = empty_folder(out)
    folder.mkdir(parents=True, exist_ok=True)

    labels = {"config": json.dumps(model.config), "step": str(model.step)}
    arrays = {  # in C order: of others safetensors writes the wrong values
        path: np.asarray(value, order="C")
        for path, value in by_path(model.variables).items()
    }
    files.write_whole(folder / VARIABLES, safetensors.save(arrays, metadata=labels))

    described = {}
    for name, (function, inputs) in functions(model).items():
        exported = jax.export.export(jax.jit(function), platforms=platforms)(
            _shapes(model.variables), *inputs.values()
        )
        file = f"{name}.jaxexport"
        files.write_whole(folder / file, bytes(exported.serialize()))
        described[name] = {
            "file": file,
            "inputs": {n: _described(a) for n, a in inputs.items()},
            "outputs": [_described(a) for a in exported.out_avals],
        }

    about = {
        "step": model.step,
        "platforms": list(platforms),
        "versions": {"jax": jax.__version__},
        "image": {"support": model.transform.support},
        "functions": described,
        "sha256": {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.iterdir())
        },
        "config": model.config,
    }
    files.write_whole(folder / ABOUT, json.dumps(about, indent=2) + "\n")
    return about


def functions(model: Pretrained) -> dict[str, tuple[Callable, dict[str, Any]]]:
    """Returns {name: (function of variables and inputs, its inputs as shapes)}.

    'encode' gives the code of images (the mode of q(z|x)), 'decode' the mean of p(x|z),
    'sample' the same for draws of the prior, one for each key, 'classify' p(y|z); those
    that the model has. A code of several arrays is a list of them.

    Args:
      model: from `jvae.restore`.
    """
    module, (size,) = model.model, jax.export.symbolic_shape("b")
    x = _image_shape(model, size)
    by_name: dict[str, tuple[Callable, dict[str, Any]]] = {}
    if module.offers("code") or module.offers("posterior"):
        code = jax.eval_shape(lambda x: samples.code_of(model, x), x)

        def encode(variables, x):
            return _plain(samples.code_of(_with(model, variables), x))

        def decode(variables, z):
            tree = jax.tree.unflatten(jax.tree.structure(code), jax.tree.leaves(z))
            return module.apply(variables, tree, method="decode")

        z = jax.eval_shape(encode, _shapes(model.variables), x)
        by_name["encode"] = (encode, {"x": x})
        if module.offers("decode"):
            by_name["decode"] = (decode, {"z": z})
    if model.is_classifier:

        def classify(variables, x):
            return predictions.label_probs(_with(model, variables), {"image": x})

        by_name["classify"] = (classify, {"x": x})
    if model.is_generative and module.offers("generate"):
        keys = jax.eval_shape(lambda: jax.random.key(0)).update(shape=(size,))
        inputs = {"keys": keys, "temperature": jax.ShapeDtypeStruct((), jnp.float32)}
        if module.num_classes is not None:
            inputs["label"] = jax.ShapeDtypeStruct((size,), jnp.int32)

        def sample(variables, keys, temperature, label=None):
            arguments = (keys, keys.shape[0], temperature, label)
            return module.apply(variables, *arguments, method="generate")

        by_name["sample"] = (sample, inputs)
    return by_name


def _with(model: Pretrained, variables: Mapping[str, Any]) -> Pretrained:
    """Returns the model with these parameters and collections."""
    state = {name: v for name, v in variables.items() if name != "params"}
    return dataclasses.replace(model, params=variables["params"], state=state)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def _plain(code: Any) -> Any:
    """Returns an array, or a list of them in place of a type that JAX cannot write."""
    leaves = jax.tree.leaves(code)
    return leaves[0] if len(leaves) == 1 else leaves


def _image_shape(model: Pretrained, size: Any) -> jax.ShapeDtypeStruct:
    """Returns what `encode` takes: images, or tokens of sentences."""
    if model.vocabulary is not None:
        return jax.ShapeDtypeStruct((size, model.model.max_length), jnp.int32)
    if model.model.image_shape is None:
        raise ConfigError(f"{model.name} has no image_shape, so no export")
    return jax.ShapeDtypeStruct((size, *model.model.image_shape), jnp.float32)


def _described(a: Any) -> dict[str, Any]:
    """Returns shape and dtype as JSON; one of each where there are several."""
    leaves = jax.tree.leaves(a)
    if len(leaves) > 1:
        return {"arrays": [_described(leaf) for leaf in leaves]}
    shape = [n if isinstance(n, int) else str(n) for n in leaves[0].shape]
    return {"shape": shape, "dtype": str(leaves[0].dtype)}


def _packages() -> Any:
    """Returns safetensors.numpy; says which extra has it if it is not there."""
    try:
        import flatbuffers  # noqa: F401, jax.export writes by it
        import safetensors.numpy
    except ImportError as error:
        raise ConfigError(
            f"package {error.name} is missing", fix="pip install 'jvae[export]'"
        ) from error
    return safetensors.numpy


def command(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parser = model_parser("jvae export", __doc__)
    parser.add_argument("--platforms", default=",".join(PLATFORMS))
    flags, model = restored(parser, arguments)
    about = export(model, flags.out, flags.platforms.split(","))
    names = ", ".join(about["functions"])
    print(f"step {model.step} in {flags.out}: arrays and {names}")
