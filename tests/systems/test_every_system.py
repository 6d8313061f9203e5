"""Every model with every loss it can have: trained, resumed, evaluated, restored.

One path for all of them. What a kind of model offers beyond that is tested where it is
made.
"""

import json

import jax
import numpy as np
import pytest

import jvae
from jvae import losses, models
from jvae.errors import ConfigError, DataError, WorkdirError
from jvae.reports.run import evaluate_run
from jvae.training import experiment
from tests.conftest import TINY
from tests.runs import assert_same_run, cut_off, metrics, steps
from tests.tiers import others_slow

MLP = TINY["model"]  # whose programs other tests need too
CLUSTERS = {"num_clusters": 4, "classifier_hidden": [6]}
MIXTURE = {"num_clusters": 4, "assignment": "responsibilities", "mean_std": 1.0}
CONV = {
    "name": "conv",
    "image_shape": [8, 8, 1],
    "channels": [4, 6],
    "latent_dim": 3,
    "batch_norm": True,
}
CLASSIFIER = {**MLP, "name": "mlp_classifier"}
ENCODER = {
    "name": "infomax",
    "image_shape": [8, 8, 1],
    "latent_dim": 4,
    "channels": [4, 6],
    "top_channels": [5],
    "critic_hidden": [8],
}
SPHERE = {**MLP, "latent": "von_mises_fisher"}
DISCRETE = {**MLP, "latent": {"name": "gumbel_softmax", "num_values": 4}}
TEXT = {
    "name": "text_vae",
    "vocabulary_size": 85,
    "latent_dim": 3,
    "embedding_dim": 6,
    "hidden": 8,
    "max_length": 10,
}
LANGUAGE = {k: v for k, v in TEXT.items() if k != "latent_dim"}
LANGUAGE |= {"name": "language_model"}
VERSES = {k: v for k, v in TEXT.items() if k != "hidden"}
VERSES |= {"name": "poetry_vae", "max_length": 13, "latent": "moment_gaussian"}
GLOW = {
    "name": "glow",
    "image_shape": [8, 8, 1],
    "levels": 2,
    "depth": 2,
    "hidden": 6,
    "num_bits": 4,
}
NICE = {
    "name": "nice",
    "image_shape": [8, 8, 1],
    "depth": 2,
    "hidden": [12],
    "num_bits": 4,
}
FVAE = {
    "name": "fvae",
    "image_shape": [12, 12, 1],
    "levels": 1,
    "blocks": 1,
    "block_hidden": 6,
    "flow_levels": 1,
    "depth": 2,
    "hidden": 6,
}
NVAE = {
    "name": "nvae",
    "image_shape": [8, 8, 1],
    "channels": 4,
    "groups": [1, 2],
    "latent_channels": 2,
    "group_cells": 1,
    "blocks": 0,
    "block_cells": 1,
}
FLOWING = {**MLP, "latent": {"name": "flow", "posterior_depth": 2, "prior_depth": 2}}
SYSTEMS = {
    "plain": (MLP, {"name": "elbo", "beta": 2.0}),
    "conditional": ({**MLP, "num_classes": 10}, {"name": "elbo"}),
    "conv": ({**CONV, "downsampling": "max_pool"}, {"name": "elbo"}),
    "iwae": (CONV, {"name": "iwae", "num_samples": 2}),
    "prior_kl": (MLP, {"name": "prior_kl"}),
    "decomposed": (MLP, {"name": "decomposed_elbo", "dataset_size": 1217}),
    "clusters": ({**MLP, "clusters": CLUSTERS}, {"name": "cluster_elbo"}),
    "mixture": ({**MLP, "clusters": MIXTURE}, {"name": "cluster_elbo"}),
    "discrete": (DISCRETE, {"name": "elbo"}),
    "sphere": (SPHERE, {"name": "iwae", "num_samples": 2}),
    "bottleneck": (CLASSIFIER, {"name": "bottleneck"}),
    "without_noise": ({**CLASSIFIER, "noise": False}, {"name": "bottleneck"}),
    "infomax": (ENCODER, {"name": "infomax"}),
    "info_nce": (
        {**ENCODER, "critic": "dot", "global_view": "code"},
        {"name": "infomax", "estimator": "info_nce", "num_negatives": 7},
    ),
    "text": ({**TEXT, "latent": "normalized_gaussian"}, {"name": "elbo"}),
    "language": (LANGUAGE, {"name": "elbo"}),
    "verses": (VERSES, {"name": "elbo"}),
    "glow": ({**GLOW, "remat": "invert"}, {"name": "elbo"}),
    "nice": (NICE, {"name": "iwae", "num_samples": 2}),
    "nvae": (NVAE, {"name": "hierarchical_elbo", "smoothness": 0.01}),
    "fvae": (FVAE, {"name": "elbo"}),
    "flow": (FLOWING, {"name": "elbo"}),
}
WITHOUT_DATA = {"bottleneck", "without_noise", "infomax", "info_nce"}
OF_LEVELS = {"glow", "nice"}
SENTENCES = {"text", "language", "verses"}
GRAMMAR = {
    "name": "grammar",
    "num_train": 250,
    "num_test": 70,
    "transform": "tokens",
    "batch_size": 32,
    "num_validation": 50,
    "num_buckets": 1,  # each is compiled
}


def test_every_model_and_every_loss_is_here():
    named = [(model["name"], loss["name"]) for model, loss in SYSTEMS.values()]
    for kind, known in enumerate((models.MODELS, losses.LOSSES)):
        missing = set(known) - {names[kind] for names in named}
        assert not missing, f"give SYSTEMS a row with {missing}"


@pytest.fixture
def config(request, tiny):
    tiny["model"], tiny["loss"] = SYSTEMS[request.param]
    if request.param in WITHOUT_DATA:
        tiny["data"]["transform"] = "signed"
    if request.param in OF_LEVELS:
        tiny["data"] |= {"transform": "levels", "num_bits": 4}
    if request.param == "fvae":
        tiny["data"] |= {"transform": "dequantize", "padding": 2}
    if request.param in SENTENCES:
        tiny["data"] = GRAMMAR
    return tiny


@pytest.mark.timeout(600)  # a deep model is many programs
@pytest.mark.parametrize(
    ("name", "config"),
    others_slow(
        [(name, name) for name in SYSTEMS],
        *((name, name) for name in ("plain", "text", "nice")),
    ),
    indirect=["config"],
)
def test_it_trains_goes_on_bit_for_bit_is_evaluated_and_restored(
    name, config, tmp_path
):
    whole = tmp_path / "whole"
    experiment.run(config, whole)
    again = cut_off(whole, tmp_path / "again", step=4)
    assert steps(again) == [4]
    experiment.run(config, again)
    assert_same_run(whole, again)

    rows = metrics(whole)
    measure = "loss" if name in WITHOUT_DATA else "elbo"
    held_out = {r["step"]: r[measure] for r in rows if r["split"] == "validation"}
    assert set(held_out) == {6, 12} and np.isfinite(list(held_out.values())).all()
    choose = min if measure == "loss" else max
    best = choose(held_out, key=held_out.get)
    assert jvae.restore(whole).step == best

    quick = {"num_samples": 2, "num_examples": 64, "num_images": 4, "batch_size": 64}
    results = evaluate_run(whole, **quick)
    assert results["step"] == best and results["num_examples"] == 64
    folder = whole / "evaluation" / f"test_{best:08d}"
    assert json.loads((folder / "results.json").read_text()) == json.loads(
        json.dumps(results)
    )
    page = (folder / "report.html").read_text()
    assert results["about"] in page and page.count("<img") >= (name != "language")
    for row in results["metrics"].values():
        assert np.isfinite(row["value"])

    if name == "fvae":  # of 12 x 12 pixels, those of padding too
        nats, bits = (results["metrics"][f"nll{u}"]["value"] for u in ("", "_bits"))
        assert bits == pytest.approx(nats / (144 * np.log(2)) + 8)
    restored = jvae.restore(whole)
    size = 12 if name == "fvae" else 8
    x = np.zeros((3, size, size, 1), "float32")
    if name in SENTENCES:
        x = restored.tokenize(["the dog feeds a zebra", "a star", "the"])
        assert restored.detokenize(x)[0] == "the dog feeds a <unk>"
        sentences = restored.detokenize(restored.sample(jax.random.key(0), 2))
        assert len(sentences) == 2 and '<table class="sentences"' in page
        check_sentences(restored, x)
        assert np.isfinite(restored.elbo(x, jax.random.key(0))).all()
    elif name in WITHOUT_DATA:
        with pytest.raises(ConfigError, match=r"has no p\(x\|z\)"):
            restored.sample(jax.random.key(0), 2)
    else:
        assert restored.sample(jax.random.key(0), 2).shape == (2, size, size, 1)
        if name in OF_LEVELS:
            assert results["verdict"]["status"] == "lossless"
            again = restored.reconstruct(x, jax.random.key(0))
            np.testing.assert_array_equal(again, x)
        if name == "fvae":  # its codes are on the scale of its own prior
            assert "active" not in results and "mutual_info" in results["metrics"]
        label = np.arange(3) if name == "conditional" else None
        assert np.isfinite(restored.elbo(x, jax.random.key(0), label)).all()
    if name == "nvae":  # a hierarchy, not one q(z|x)
        with pytest.raises(ConfigError, match="NVAE has no codes"):
            restored.encode(x)
        again = restored.reconstruct(x, jax.random.key(0))
        assert again.shape == (3, 8, 8, 1) and len(results["kl_per_group"]) == 3
        assert [len(scale["kl"]) for scale in results["scales"]] == [1, 2]
        pictures = results["pictures"].keys()
        assert {"scales.png", "kept_1.png", "samples_t0.7.png"} <= pictures
    elif name not in ("without_noise", "language"):
        assert restored.encode(x).mean.shape[0] == 3


def check_sentences(restored, x):
    """What a restored model of sentences does with them."""
    key = jax.random.key(1)
    with pytest.raises(ConfigError, match=r"tokens must be within \[0, 84\]"):
        restored.elbo(np.full((1, 2), 85), key)
    if not restored.has_latents:
        with pytest.raises(ConfigError, match="LanguageModel has no code"):
            restored.encode(x)
        with pytest.raises(ConfigError, match="LanguageModel has no code"):
            restored.reconstruct(x, key)
        return
    z = restored.encode(x).sample(key)
    np.testing.assert_array_equal(restored.reconstruct(x, key), restored.decode(z))
    likelihood = restored.likelihood(z, x)
    assert np.isfinite(likelihood.log_prob(x)).all()
    with pytest.raises(ConfigError, match="x must hold sentences, got None"):
        restored.likelihood(z)
    short = restored.tokenize(["the"])
    assert restored.interpolate(x[:1], short, 3).shape[:2] == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["text"], indirect=True)
def test_a_dry_run_of_sentences_and_one_that_starts_from_another(config, tmp_path):
    config["data"] = {**GRAMMAR, "num_buckets": 3}
    assert np.isfinite(experiment.dry_run(config)["elbo"])
    config |= {"num_steps": 1, "eval_every_steps": 0}
    experiment.run(config, tmp_path / "first")
    lines = "the dog feeds a star\n" * 40
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(lines)
    other = {"name": "text", "path": str(tmp_path), "transform": "tokens"}
    config["data"] = {**other, "batch_size": 32}
    config["init_from"] = str(tmp_path / "first")
    with pytest.raises(WorkdirError, match="has another vocabulary than this run"):
        experiment.run(config, tmp_path / "second")
    fewer = {"num_train": 300}  # the same words: another vocabulary is refused
    evaluate_run(tmp_path / "first", data_fields=fewer, num_samples=1)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["text"], indirect=True)
def test_a_model_of_characters_reads_and_writes_without_spaces(config, tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text("花落知多少\n" * 40, encoding="utf-8")
    fields = {"name": "text", "path": str(tmp_path), "unit": "character"}
    config["data"] = {**fields, "transform": "tokens", "batch_size": 32}
    experiment.run(config | {"num_steps": 1, "eval_every_steps": 0}, tmp_path / "run")
    restored = jvae.restore(tmp_path / "run")
    tokens = restored.tokenize(["花落知多少", "花鸟"])
    assert tokens.shape == (2, 6)
    assert restored.detokenize(tokens) == ["花落知多少", "花<unk>"]
    evaluate_run(tmp_path / "run", num_samples=1, out=str(tmp_path / "out"))
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "花落知多少" in report and "花 落" not in report


@pytest.mark.slow
@pytest.mark.parametrize("config", ["bottleneck"], indirect=True)
def test_a_classifier_reports_and_classifies(config, tmp_path):
    experiment.run(config, tmp_path)
    results = evaluate_run(tmp_path, num_samples=3)
    found = {name: row["value"] for name, row in results["metrics"].items()}
    assert np.trace(results["confusion"]) == round(355 * found["accuracy"])
    np.testing.assert_allclose(found["rate"], 1 / np.log2(np.e) * found["rate_bits"])
    assert "confusion.png" in results["pictures"]
    model = jvae.restore(tmp_path)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 8, 8, 1)).astype("f4")
    at_mean = model.classify(x)
    assert at_mean.shape == (5, 10)
    np.testing.assert_allclose(at_mean.sum(-1), 1.0, rtol=1e-5)
    drawn = model.classify(x, jax.random.key(0), num_samples=4)
    assert np.abs(drawn - at_mean).max() > 1e-4
    with pytest.raises(ConfigError, match="num_samples must be at least 1, got 0"):
        model.classify(x, jax.random.key(0), num_samples=0)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["infomax"], indirect=True)
def test_an_encoder_reports_neighbors_and_probes(config, tmp_path):
    experiment.run(config, tmp_path)
    results = evaluate_run(tmp_path, num_samples=2)
    assert set(results["probes"]["accuracies"]) == {
        "codes",
        "untrained",
        "principal_components",
        "pixels",
    }
    assert results["probes"]["num_train"] == 1362 and results["num_examples"] == 355
    assert results["probes"]["accuracies"]["pixels"]["knn_1"] > 0.9
    assert {"neighbours_cosine.png", "neighbours_euclidean.png"} <= set(
        results["pictures"]
    )
    without = evaluate_run(tmp_path, num_samples=2, probe_examples=0)
    assert "probes" not in without
    with pytest.raises(ConfigError, match="InfoMaxEncoder is no classifier"):
        jvae.restore(tmp_path).classify(np.zeros((1, 8, 8, 1)))


@pytest.mark.slow
def test_probes_of_a_vae_are_made_if_they_are_asked_for(trained):
    results = evaluate_run(trained, num_samples=2, num_images=4, probe_examples=100)
    assert results["probes"]["num_train"] == 100
    assert results["probes"]["accuracies"]["pixels"]["linear"] > 0.5
    assert {"probe_knn_1", "probe_knn_20", "probe_linear"} < set(results["metrics"])


def unlabelled(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1)).astype("uint8")
    file = tmp_path / "data.npz"
    np.savez(file, train_images=pixels[:150], test_images=pixels[150:])
    return {"name": "npz", "path": str(file)}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("bottleneck", "a classifier needs labels and the data set has none"),
        ("conditional", "a conditional model needs labels and the data set has none"),
    ],
    indirect=["config"],
)
def test_data_without_labels_is_refused_before_anything_is_written(
    config, message, tmp_path
):
    config["data"] |= unlabelled(tmp_path)
    with pytest.raises(DataError, match=message):
        experiment.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("config", ["infomax"], indirect=True)
def test_an_encoder_of_data_without_labels_has_no_probes(config, tmp_path):
    config["data"] |= unlabelled(tmp_path)
    experiment.run(config | {"num_steps": 2, "eval_every_steps": 0}, tmp_path / "run")
    assert "probes" not in evaluate_run(tmp_path / "run", num_samples=2)
    with pytest.raises(DataError, match="probes need labels"):
        evaluate_run(tmp_path / "run", num_samples=2, probe_examples=10)


NO_VALUES = {**DISCRETE, "latent": {"name": "gumbel_softmax", "num_values": 0}}
NO_SPREAD = {**MLP, "latent": {"name": "von_mises_fisher", "concentration": 0.0}}
LAGS = {"name": "adam", "decoder_every": 2}
ON_DEVICE = {**GRAMMAR, "placement": "device"}
TOO_MANY = {"name": "infomax", "num_negatives": 64}


@pytest.mark.parametrize(
    ("config", "section", "given", "message"),
    [
        (
            "bottleneck",
            "model",
            {**CLASSIFIER, "num_classes": 9},
            "at least the data's 10, got 9",
        ),
        ("plain", "loss", {"name": "bottleneck"}, "needs a model whose target is"),
        ("plain", "loss", {"name": "infomax"}, "needs a model with views"),
        ("infomax", "loss", {"name": "elbo"}, "needs a model with likelihood"),
        ("infomax", "loss", {"name": "iwae"}, "needs a model with likelihood"),
        ("infomax", "loss", TOO_MANY, "must be below the batch of 64"),
        ("discrete", "model", NO_VALUES, "num_values must be"),
        ("sphere", "model", NO_SPREAD, "concentration must be"),
        ("text", "model", MLP, "reads 'image' and the data set has tokens, length"),
        ("plain", "model", TEXT, "reads 'tokens' and the data set has image, label"),
        ("text", "model", {**TEXT, "vocabulary_size": 84}, "at least the data's 85"),
        (
            "text",
            "data",
            {**GRAMMAR, "transform": "unit"},
            "transform must be 'tokens'",
        ),
        ("text", "data", ON_DEVICE, "must be 'host' for sentences"),
        ("verses", "model", {**VERSES, "max_length": 12}, "at least the data's 13"),
        ("bottleneck", "optimizer", LAGS, "must be 1 for a model without a decoder"),
    ],
    indirect=["config"],
)
def test_parts_that_do_not_fit_are_one_line_and_leave_no_workdir(
    config, section, given, message, tmp_path
):
    config[section] = given
    with pytest.raises(ConfigError) as error:
        experiment.run(config, tmp_path / "run")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
