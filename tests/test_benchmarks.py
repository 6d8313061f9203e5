"""What the benchmarks count, compare and predict; not how fast anything is."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import __main__ as suite
from benchmarks import hlo, machine, predicted, scaling, turns
from jvae.runtime import mesh


def flops(function, *arguments):
    return hlo.matrix_flops(jax.make_jaxpr(function)(*arguments))


def xla_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_a_product_has_two_operations_for_each_term():
    a, b = jnp.ones((5, 7)), jnp.ones((7, 3))
    assert flops(jnp.matmul, a, b) == 2 * 5 * 7 * 3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_convolution_has_the_operations_of_its_values_that_are_no_padding(
    stride, padding
):
    def convolve(x, kernel):
        axes = ("NHWC", "HWIO", "NHWC")
        strides = (stride, stride)
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=axes
        )

    x, kernel = jnp.ones((2, 9, 8, 5)), jnp.ones((3, 3, 5, 4))
    assert flops(convolve, x, kernel) == xla_flops(convolve, x, kernel)


def test_a_loop_counts_as_often_as_it_runs_and_a_branch_once():
    def looped(x, kernels):
        x, _ = jax.lax.scan(lambda x, k: (x @ k, None), x, kernels)
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x)

    assert flops(looped, jnp.ones((4, 4)), jnp.ones((6, 4, 4))) == 7 * 2 * 4**3


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def test_collectives_are_found_with_their_bytes_devices_and_runs():
    devices = mesh.build(data=4, params=2)

    def summed(x):
        total = jax.lax.psum(x, "data")
        loop = jax.lax.scan(
            lambda c, _: (jax.lax.psum(c, ("data", "params")) / 8, None), x, length=5
        )[0]
        return total + loop

    spec = PartitionSpec(None, None)
    mapped = jax.shard_map(
        summed, mesh=devices, in_specs=spec, out_specs=spec, check_vma=False
    )
    x = jax.device_put(np.ones((6, 10), np.float32), NamedSharding(devices, spec))
    found = hlo.collectives(compiled(mapped, x), 8)
    seen = sorted((one.kind, one.size, one.devices, one.times) for one in found)
    assert seen == [("all-reduce", 240, 4, 1), ("all-reduce", 240, 8, 5)]


def test_groups_are_read_as_xla_writes_them():
    program = """
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %a = f32[8]{0} all-reduce(%x), replica_groups=[4,2]<=[8], to_apply=%add
  %b = bf16[16,2]{1,0} all-gather(%a), replica_groups={{0,1,2,3},{4,5,6,7}}
  ROOT %c = (f32[2]{0}, s8[3]{0}) all-to-all(%b, %b), replica_groups={}
}
"""
    found = [(one.kind, one.size, one.devices) for one in hlo.collectives(program, 8)]
    assert found == [
        ("all-reduce", 32, 2),
        ("all-gather", 64, 4),
        ("all-to-all", 11, 8),
    ]


def test_what_a_device_sends_in_a_ring():
    def sent(kind, size=800, devices=8, times=3):
        return hlo.Collective(kind, size, devices, times).sent

    assert sent("all-reduce") == 3 * 2 * 700
    assert sent("all-gather") == 3 * 700
    assert sent("reduce-scatter", size=100) == 3 * 700
    assert sent("all-reduce", devices=1) == 0.0


@pytest.mark.slow
def test_data_parallel_training_sends_its_gradients_twice():
    """An all-reduce of all gradients: almost twice their bytes, and some scalars."""
    step, operations, state = scaling.lowered("mlp", 2, params=1)
    found = hlo.collectives(step.compile().as_text(), 8)
    size = 4 * sum(a.size for a in jax.tree.leaves(state.params))
    sent = sum(one.sent for one in found)
    np.testing.assert_allclose(sent, 2 * 7 / 8 * size, rtol=1e-3)
    # For each weight and example a product forth and two back, but none to the pixels;
    # for each gradient its square.
    weights = size / 4 - 512 - 32 - 512 - 784
    expected = 2 * 16 * (3 * weights - 784 * 512) + 2 * size / 4
    np.testing.assert_allclose(operations, expected, rtol=1e-3)


@pytest.mark.slow
def test_split_parameters_are_put_together_once_and_no_activations_are_sent():
    step, _, state = scaling.lowered("mlp", 64, params=8)
    found = hlo.collectives(step.compile().as_text(), 8)
    assert {one.kind for one in found} == {"all-gather", "all-reduce"}
    size = 4 * sum(a.size for a in jax.tree.leaves(state.params))
    # Gathered once, and their gradients summed, which takes twice as much.
    assert sum(one.sent for one in found) <= 1.001 * 3 * 7 / 8 * size


def test_seconds_are_those_of_turns_and_the_order_turns_round():
    order = []

    def work(name, seconds):
        return lambda: order.append(name) or seconds

    seconds = turns.in_turns({"jvae": work("a", 1.0), "peer": work("b", 2.0)}, 2)
    assert order == ["a", "b", "b", "a"]
    assert turns.ratio(seconds, "peer") == 2.0
    found = turns.compared("work", {**seconds, "slow": [9.0, 9.0]}, 10, "images")
    assert found["best_peer"] == "peer" and found["ratio"] == 2.0
    assert found["images_per_second"]["jvae"] == 10.0


def test_work_that_is_not_the_same_ends_a_benchmark():
    turns.check_equal("loss", {"a": 100.0, "b": 100.9}, 0.01)
    with pytest.raises(SystemExit, match="not the same work"):
        turns.check_equal("loss", {"a": 100.0, "b": 103.0}, 0.01)
    with pytest.raises(SystemExit):
        turns.check_equal("loss", {"a": 100.0, "b": float("nan")}, 0.01)


def test_the_table_says_what_was_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    more = suite.Target("x", "y", "speed", ("a", "b"), 1.0, 0.7)
    assert suite.judged(more, suite.value_of(more)) == "-"
    (tmp_path / "speed.json").write_text(json.dumps({"a": {"b": 0.8}}))
    assert suite.judged(more, suite.value_of(more)) == "limit"
    less = more._replace(is_most=True, aim=0.5, limit=0.7)
    assert suite.judged(less, suite.value_of(less)) == "MISSED"
    assert suite.judged(less, 0.5) == suite.judged(more, 1.0) == "aim"


def test_every_target_names_a_benchmark_and_a_figure_of_its_results():
    for target in suite.TARGETS:
        assert target.file in suite.SUITE
        file = machine.RESULTS / f"{target.file}.json"
        assert file.exists(), target
        assert isinstance(suite.value_of(target), float)


def test_a_prediction_adds_up():
    row = {
        "devices": 16,
        "split": 1,
        "parameters": 10**9,
        "matrix_flops_per_device": 0.35 * 989e12,
        "collectives": {"all-reduce": {"number": 3, "sent_bytes": 100e9}},
        "sent_bytes_by_group_size": {"8": 45e9, "16": 5e9},
    }
    step = predicted.predicted(row, predicted.GPU)
    assert step.compute == pytest.approx(1.0)
    assert step.update == pytest.approx(36e9 / 3.35e12)
    assert step.exchange == pytest.approx(0.1 + 0.1 + 3 * 5e-6 * 8)
    assert step.least == pytest.approx(1.0 + step.update)
    assert step.most == pytest.approx(1.0 + step.update + step.exchange)
