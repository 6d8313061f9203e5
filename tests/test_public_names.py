"""What README and docs import, and the reference lists, stays from 0.2.0 on.

A name may be added here, none may go: a caller's code would break.
"""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PUBLIC = {
    "jvae": "restore".split(),
    "jvae.data": """
        ArraySource DATASETS Source Splits batch_indices build eval_batches
        order train_batches
    """.split(),
    "jvae.data.datasets.grammar": "log_prob".split(),
    "jvae.distributions": """
        Bernoulli Categorical DiagGaussian DiscretizedLogistic
        DiscretizedLogisticMixture Distribution Gaussian GaussianMixture
        GumbelSoftmax LOG_TWO_PI Sentences UniformOnSphere VonMisesFisher arc
        as_distribution data_log_prob draw kl_per_group slerp softplus sum_events
    """.split(),
    "jvae.evaluation.settings": "Settings".split(),
    "jvae.flows": """
        ActNorm Bijection Chain ConditionalActNorm ConvNet Coupling DenseNet
        FlowPosterior FlowPrior Glow GlowSteps InvertibleConv Nice Permutation
        Split Squeeze Steps VectorSteps check_scales random_orders
    """.split(),
    "jvae.layers": """
        BatchNorm Conv ConvTranspose convolution depthwise_convolution
        double_bilinear double_nearest scan upsampling_convolution
    """.split(),
    "jvae.losses": """
        LOSSES balance bottleneck_terms build cluster_imbalance coefficients_of
        config_fields decompose_kl decompose_kl_per_example donsker_varadhan
        elbo_terms in_batch_negatives info_nce infomax information_bottleneck
        iwae_terms jensen_shannon label_information log_weights
        negative_cluster_elbo negative_decomposed_elbo negative_elbo
        negative_hierarchical_elbo negative_iwae num_examples prior_kl
    """.split(),
    "jvae.losses.elbo": "elbo_terms".split(),
    "jvae.contract": "Model TRAINING as_model".split(),
    "jvae.losses.objective": """
        apply_model blank_padding masked_mean objective require_methods with_check
        with_coefficients
    """.split(),
    "jvae.models": """
        BottleneckClassifier Classifier ClusterVAE FlowModel InfoMaxEncoder
        LanguageModel MODELS NVAE PoetryVAE SingleLatent TextVAE VAE build conv
        glow infomax language_model mlp mlp_classifier nice poetry_vae text_vae
    """.split(),
    "jvae.models.cluster": "clusters".split(),
    "jvae.models.likelihoods": """
        Head bernoulli build categorical discretized_logistic
        discretized_logistic_mixture gaussian nvae_logistic_mixture
    """.split(),
    "jvae.models.nvae": "NVAE nvae".split(),
    "jvae.pretrained.batch_norm": "recomputed_statistics".split(),
    "jvae.pretrained.interpolation": """
        by_kl interpolate interpolation_grid traversals
    """.split(),
    "jvae.pretrained.trained_model": "TrainedModel".split(),
    "jvae.pretrained.restore": "Pretrained restore".split(),
    "jvae.reports.report": "evaluate".split(),
    "jvae.reports.run": "evaluate_run".split(),
    "jvae.runtime.xla_options": "for_repeated_runs".split(),
    "jvae.training.config": "Experiment".split(),
    "jvae.types": "Aux batch_size".split(),
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
    assert unknown == set(), "add it to PUBLIC: it stays for ever"


def test_every_name_of_the_reference_is_public():
    """Of `autofunction`, `autoclass`, and `automodule` with the members it lists."""
    text = (ROOT / "docs" / "reference.md").read_text()
    directive = r"\.\. auto(module|function|class):: ([\w.]+)(?:\n +:members:(.*))?"
    unknown = set()
    for kind, target, members in re.findall(directive, text):
        module, names = target, re.findall(r"\w+", members)
        if kind != "module":
            module, _, name = target.rpartition(".")
            names = [name]
        elif not names:
            names = getattr(importlib.import_module(module), "__all__", [])
        unknown |= {f"{module}.{n}" for n in names if n not in PUBLIC.get(module, ())}
    assert unknown == set(), "add it to PUBLIC: it stays for ever"


def is_module(dotted):
    path = ROOT / dotted.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()
