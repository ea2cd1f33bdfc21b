"""The shapes of layers, as chips see them: a synapse, the neurons behind it, pools between layers.

geometry(findings, layers)  -> one Shape per synapse, in the order of the graph
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx

from fxsynops.connectivity.connect import SynapseCalls
from fxsynops.connectivity.results import Findings
from fxsynops.connectivity.signals import Role
from fxsynops.cost.layers import Layers, NeuronLayer, SynapseLayer, calls_of
from fxsynops.operations.call import shape
from fxsynops.operations.operation import SynapseCall
from fxsynops.operations.windows import each_axis


@dataclass(frozen=True)
class Shape:
    """One synapse, with the neurons that it drives.

    Attributes:
        layer: the synapse.
        driven: the names of the neurons whose potentials it has.
        leaks: whether these multiply their potentials in every step; None if it is not known.
        neurons: how many these are; its outputs, if they are read out as they are.
        inputs: channels, height and width of its input; of a linear layer behind a flattened map,
            of that map.
        kernel, stride, padding, dilation: per side.
        groups: of channels.
        outputs: channels, height and width of what it puts out.
        pools: sizes of the pools in front of it, per side, behind the neurons before.
        other_pools: what pools there take, if not sums and averages of blocks.
        reads: the synapses whose neurons' events come in.
        from_input: whether the network's input comes in.
        behind: the synapses whose neurons get the events of its own.
        fan_in: the most synapses of one of its outputs.
        fan_out: the most synapses of one of its inputs.
    """

    layer: SynapseLayer
    driven: tuple[str, ...]
    leaks: bool | None
    neurons: float
    inputs: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    outputs: tuple[int, int, int]
    pools: tuple[tuple[int, int], ...]
    other_pools: tuple[str, ...]
    reads: frozenset[str]
    from_input: bool
    behind: frozenset[str]
    fan_in: float
    fan_out: float

    @property
    def recurrent(self) -> bool:
        """Whether what it drives is what it reads."""
        return self.layer.drives in self.reads


def geometry(findings: Findings, layers: Layers) -> list[Shape]:
    """The shapes of all synapses."""
    calls = {one.name: one for one in calls_of(findings)}
    drivers = {layer.name: layer.synapse for layer in layers.neurons}
    sources = {
        layer.name: {
            s for c in findings.connections if c.calls is calls[layer.name] for s in c.sources
        }
        for layer in layers.synapses
    }
    reads = {
        name: frozenset(drivers[s] for s in of if s in drivers) for name, of in sources.items()
    }
    analog = {row.calls.name for row in findings.dense}
    found = []
    for layer in layers.synapses:
        driven = layers.driven_by(layer.name)
        outside = bool(sources[layer.name] - drivers.keys()) or layer.name in analog
        behind = {one.drives for one in layers.synapses if layer.name in reads[one.name]}
        found.append(
            _shape(
                findings,
                layer,
                calls[layer.name],
                driven,
                reads[layer.name],
                outside,
                frozenset(behind),
            )
        )
    return found


def _shape(
    findings: Findings,
    layer: SynapseLayer,
    calls: SynapseCalls,
    driven: list[NeuronLayer],
    reads: frozenset[str],
    from_input: bool,
    behind: frozenset[str],
) -> Shape:
    node = calls.calls[0]
    role = findings.connector.signals.roles[node]
    kernel = stride = dilation = (1, 1)
    padding, groups = (0, 0), 1
    x = _input(role)
    if role.synapse is not None and layer.kind.startswith("conv"):
        n = int(layer.kind[-2])
        kernel, stride, padding, dilation, groups = _convolution(role.synapse, n)
        into, out = _map(shape(x), n), _map(shape(node), n)
    else:
        into = _before_flattening(findings, x)
        kernel, out = into[1:], (shape(node)[-1] if shape(node) else 1, 1, 1)
    pools, others = _pools(findings, x)
    return Shape(
        layer,
        tuple(one.name for one in driven),
        _leaks(driven),
        math.fsum(one.neurons for one in driven) or layer.outputs,
        into,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        out,
        pools,
        others,
        reads,
        from_input,
        behind,
        _fan_in(role),
        _fan_out(findings, calls),
    )


def _leaks(driven: list[NeuronLayer]) -> bool | None:
    if any(one.known and one.update.multiplies for one in driven):
        return True
    return False if all(one.known for one in driven) else None


def _input(role: Role) -> fx.Node:
    if role.synapse is not None:
        return role.synapse.input
    assert role.product is not None
    return role.product.operands[0]


def _convolution(
    synapse: SynapseCall, n: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int], int]:
    call = synapse.call
    kernel = _pair(shape(call["weight"])[2:], 1)
    dilation = _pair(each_axis(call["dilation"], n), 1)
    padding = call["padding"]
    if padding == "same":
        padded = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
    elif padding == "valid":
        padded = (0, 0)
    else:
        padded = _pair(each_axis(padding, n), 0)
    return kernel, _pair(each_axis(call["stride"], n), 1), padded, dilation, int(call["groups"])


def _pair(sizes: tuple[int, ...], missing: int) -> tuple[int, int]:
    """Height and width, of one axis too; of three, the time is left out."""
    two = (missing, *sizes)[-2:] if len(sizes) < 2 else sizes[-2:]
    return int(two[0]), int(two[1])


def _map(size: tuple[int, ...], n: int) -> tuple[int, int, int]:
    """Channels, height and width."""
    height, width = _pair(tuple(size[-n:]), 1)
    return size[-n - 1], height, width


def _before_flattening(findings: Findings, x: fx.Node) -> tuple[int, int, int]:
    """The map that has become the features of a linear layer; features, if there was none."""
    features = shape(x)[-1] if shape(x) else 1
    for node in _back(findings, x):
        size = shape(node)
        if len(size) > 2 and math.prod(size[-3:]) == features:
            return size[-3], size[-2], size[-1]
    return features, 1, 1


def _back(findings: Findings, x: fx.Node) -> Iterator[fx.Node]:
    """From a synapse's input to where its events come from, while there is one way."""
    roles = findings.connector.signals.roles
    while True:
        yield x
        role = roles[x]
        if role.kind not in ("routing", "gate") or len(role.carriers) != 1:
            return
        (x,) = role.carriers


def _pools(findings: Findings, x: fx.Node) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    """Pools between a synapse's input and the neurons before; those that are no sums of blocks."""
    found, others = [], []
    for node in _back(findings, x):
        call, _ = findings.connector.signals.calls[node]
        if "pool" not in call.name:
            continue
        size = call.get("kernel_size")
        if "max" in call.name or "adaptive" in call.name or size is None:
            others.append(call.name)
            continue
        n = 1 if "1d" in call.name else 3 if "3d" in call.name else 2
        kernel = _pair(each_axis(size, n), 1)
        stride = call.get("stride")
        if stride and _pair(each_axis(stride, n), 1) != kernel:
            others.append(f"{call.name} with another stride")
        found.append(kernel)
    return tuple(found), tuple(others)


def _fan_in(role: Role) -> float:
    """Synapses of one output at most."""
    if role.synapse is None:
        assert role.product is not None
        return role.product.contracted
    if role.synapse.rule.kind == "linear":
        return shape(role.synapse.input)[-1]
    return role.synapse.rule.fan_in(role.synapse.call)


def _fan_out(findings: Findings, calls: SynapseCalls) -> float:
    maps = [float(c.fanout.max) for c in findings.connections if c.calls is calls]
    role = findings.connector.signals.roles[calls.calls[0]]
    if maps or role.synapse is None:
        return max(maps, default=0.0)
    return float(role.synapse.fanout().max())
