"""On random networks, the counter agrees with independent oracles to the integer."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fxsynops
from tests import oracles
from tests.networks import Builder, Network

LARGE = {1: 40, 2: 14, 3: 7}


@st.composite
def networks(draw, max_depth: int = 6, large: bool = False):
    torch.manual_seed(draw(st.integers(0, 2**16)))
    dims = draw(st.sampled_from([1, 2, 3]))
    builder = Builder(
        lambda options: draw(st.sampled_from(options)), dims, LARGE[dims] if large else None
    )
    net = builder.build(draw(st.integers(max_depth // 2 if large else 1, max_depth)))
    x = torch.randint(0, 3, (draw(st.sampled_from([1, 2, 3])), *net.shapes[0])).float()
    return net.eval(), x


def random_networks(examples: int, **options):
    def decorate(test):
        check = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
        return settings(
            max_examples=examples, deadline=None, derandomize=True, suppress_health_check=check
        )(given(networks(**options))(test))

    return decorate


def assert_counts_agree(net: Network, x: torch.Tensor) -> None:
    counter = fxsynops.SynOpsCounter(net, x)
    expected = net(x)
    assert torch.equal(counter(x), expected)
    oracle = oracles.replay(net, oracles.record(net, x))
    counted: dict[str, float] = {}
    for name, synops in counter.per_synapse.items():
        name = name.partition("#")[0]
        counted[name] = counted.get(name, 0) + float(synops.detach())
    assert {k: v for k, v in counted.items() if v} == {
        name: float(y.sum()) for name, y in oracle.items() if y.any()
    }
    total = float(counter.synops.detach())
    assert total == sum(map(float, (v.detach() for v in counter.per_source.values())))
    assert total == counter.counts.total


@random_networks(200)
def test_synops_are_what_an_all_ones_copy_counts(network):
    assert_counts_agree(*network)


@random_networks(15, max_depth=16, large=True)
def test_synops_of_deep_networks_on_large_inputs(network):
    assert_counts_agree(*network)


@random_networks(60, max_depth=3)
def test_fanout_is_what_one_neuron_at_a_time_reaches(network):
    net, x = network
    analysis = fxsynops.analyze(net, x)
    order = {node: i for i, node in enumerate(analysis.trace.graph.nodes)}
    measured = sorted(
        (n for n, r in analysis.connector.signals.roles.items() if r.kind in ("source", "gate")),
        key=order.__getitem__,
    )
    values = [0] + [i + 1 for i, s in enumerate(net.steps) if s.kind in ("source", "gate")]
    assert len(measured) == len(values)
    maps: dict[tuple, torch.Tensor] = {}
    for connection in analysis.connections:
        for tap in connection.taps:
            key = (tap.node, connection.synapse.partition("#")[0])
            maps[key] = (
                maps.get(key, 0)
                + tap.map.expand(x.shape[0], *net.shapes[values[measured.index(tap.node)]])[0]
            )
    for node, value in zip(measured, values, strict=True):
        for synapse, expected in oracles.fanout(net, value).items():
            found = maps.get((node, synapse), torch.zeros_like(expected))
            assert torch.equal(found, expected)


@pytest.mark.full
@random_networks(2000)
def test_synops_of_many_more_networks(network):
    assert_counts_agree(*network)


@pytest.mark.full
@random_networks(300, max_depth=20, large=True)
def test_synops_of_many_more_deep_networks(network):
    assert_counts_agree(*network)


def test_the_generator_makes_what_it_promises():
    """A guard for the tests above: all kinds of steps do occur."""
    import random

    seen: set[str] = set()
    for seed in range(200):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            net = Builder(rng.choice, rng.choice([1, 2, 3])).build(rng.randint(1, 6))
        seen |= {type(m).__name__ for m in net.layers} | {s.kind for s in net.steps}
    assert {"synapse", "source", "gate", "routing", "Conv1d", "Conv2d", "Conv3d"} <= seen
    assert {"ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear"} <= seen
    assert {"AvgPool2d", "AdaptiveAvgPool2d", "SumPool2d", "MaxPool2d", "BatchNorm2d"} <= seen
