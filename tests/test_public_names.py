"""What README and docs import stays where it is, from 0.2.0 on.

A name may be added here, none may go: a caller's code would break.
"""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PUBLIC = {
    "jvae": ["restore"],
    "jvae.data": ["ArraySource", "Splits", "build"],
    "jvae.data.datasets.grammar": ["log_prob"],
    "jvae.distributions": ["Bernoulli", "DiagGaussian", "GumbelSoftmax"],
    "jvae.flows": ["FlowPrior"],
    "jvae.losses": [
        *("LOSSES", "build", "negative_elbo", "negative_iwae", "prior_kl"),
        *("decompose_kl", "balance", "negative_cluster_elbo"),
    ],
    "jvae.losses.elbo": ["elbo_terms"],
    "jvae.losses.objective": ["masked_mean", "with_coefficients"],
    "jvae.models": ["MODELS", "build", "ClusterVAE", "SingleLatent"],
    "jvae.models.cluster": ["clusters"],
    "jvae.pretrained.batch_norm": ["recomputed_statistics"],
    "jvae.pretrained.restore": ["Pretrained", "restore"],
    "jvae.runtime.xla_options": ["for_repeated_runs"],
    "jvae.types": ["Aux", "batch_size"],
}

METHODS = {
    "DiagGaussian": ["sample", "log_prob", "entropy", "kl_to", "kl_to_standard_normal"],
    "Bernoulli": ["log_prob", "mean", "sample"],
    "Pretrained": [
        *("encode", "decode", "likelihood", "reconstruct", "sample", "interpolate"),
        *("elbo", "log_likelihood", "interpolation_grid", "resample_fine_scales"),
        *("tokenize", "detokenize", "cluster", "classify", "prepare", "sampler"),
    ],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_there(module):
    found = importlib.import_module(module)
    for name in PUBLIC[module]:
        value = getattr(found, name)
        for method in METHODS.get(name, ()):
            assert hasattr(value, method), f"{name}.{method}"


def test_every_name_that_the_docs_use_is_public():
    """Imports and dotted names; a module may be named for what is in it."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    pages += sorted((ROOT / "notebooks").glob("*.ipynb"))
    used = set()
    for page in pages:
        text = page.read_text()
        for module, names in re.findall(r"from (jvae[\w.]*) import ([\w, ]+)", text):
            used |= {(module, name.split()[0]) for name in names.split(",")}
        dotted = r"\b(jvae(?:\.[a-z_]+)*)\.([A-Za-z_]\w*)"
        used |= set(re.findall(dotted, text))
    unknown = {
        f"{module}.{name}"
        for module, name in used
        if name not in PUBLIC.get(module, ()) and not is_module(f"{module}.{name}")
    }
    assert unknown == set()


def is_module(dotted):
    path = ROOT / dotted.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()
