"""The shapes of layers, as chips see them: a synapse, the neurons behind it, pools between layers.

geometry(findings, layers)  -> one Shape per synapse, in the order of the graph
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.connect import SynapseCalls
from fxsynops.connectivity.results import Findings
from fxsynops.connectivity.signals import Role
from fxsynops.cost.layers import Layers, NeuronLayer, SynapseLayer, calls_of
from fxsynops.operations.call import Call, shape
from fxsynops.operations.operation import SynapseCall
from fxsynops.operations.windows import each_axis
from fxsynops.tracing.graph_walk import reachable


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
        pools: sizes of the sums and averages of blocks in front of it, on each way.
        merges: how many sums of two there are in front of it.
        in_front: what else lies there, behind the neurons before.
        in_between: what lies between it and its neurons, but reshapes and batch norms.
        asymmetric: whether its padding is.
        whole: whether its outputs are all there are: a linear layer on the last of several axes has
            more of them.
        reads: the synapses whose neurons' events come in.
        from_input: the network's inputs that come in, and their elements.
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
    pools: tuple[tuple[tuple[int, int], ...], ...]
    merges: int
    in_front: tuple[str, ...]
    in_between: tuple[str, ...]
    asymmetric: bool
    whole: bool
    reads: frozenset[str]
    from_input: dict[str, float]
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
        name: frozenset(drivers[s] for s in of if drivers.get(s)) for name, of in sources.items()
    }
    analog = {row.calls.name for row in findings.dense}
    found = []
    for layer in layers.synapses:
        driven = layers.driven_by(layer.name)
        outside: dict[str, float] = {
            c.source: c.neurons
            for c in findings.connections
            if c.calls.name == layer.name and not set(c.sources) & drivers.keys()
        }
        if layer.name in analog:
            outside["analog values"] = layer.inputs
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
    from_input: dict[str, float],
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
    way = _in_front(findings, x)
    even = any(k % 2 == 0 for k in kernel)
    same = role.synapse is not None and role.synapse.call.get("padding") == "same"
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
        way.pools,
        way.merges,
        way.others,
        _behind(findings, node),
        same and even,
        layer.outputs == math.prod(out),
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
    """From a synapse's input to where its events come from, on all ways."""
    roles = findings.connector.signals.roles

    def carriers(node: fx.Node) -> tuple[fx.Node, ...]:
        return roles[node].carriers if roles[node].kind in ("routing", "gate") else ()

    return reachable([x], carriers)


# -- what lies between layers ---------------------------------------------------------------------

_RESHAPES = frozenset(
    """view reshape flatten unflatten ravel view_as reshape_as squeeze unsqueeze _unsafe_view alias
    clone contiguous detach to float double type identity dropout dropout1d dropout2d dropout3d
    feature_dropout expand""".split()
)
_TURNS = frozenset("permute transpose t swapaxes swapdims movedim moveaxis".split())
_PARTS = frozenset("getitem select unbind narrow index_select split chunk".split())
_JOINS = frozenset("stack cat concat".split())


@dataclass(frozen=True)
class _Way:
    """What lies between layers.

    Attributes:
        pools: sizes of sums and averages of blocks on each way, one after the other.
        merges: how many sums of two there are.
        others: what else there is, by name.
    """

    pools: tuple[tuple[tuple[int, int], ...], ...]
    merges: int
    others: tuple[str, ...]


def _in_front(findings: Findings, x: fx.Node) -> _Way:
    """Between a synapse's input and the neurons before it."""
    roles = findings.connector.signals.roles
    ways: set[tuple[tuple[int, int], ...]] = set()
    others: dict[str, None] = {}
    merges = 0
    seen: set[tuple[fx.Node, tuple[tuple[int, int], ...]]] = set()
    stack: list[tuple[fx.Node, tuple[tuple[int, int], ...]]] = [(x, ())]
    while stack:
        node, pools = stack.pop()
        if (node, pools) in seen:
            continue
        seen.add((node, pools))
        role = roles[node]
        if role.kind not in ("routing", "gate"):
            ways.add(pools)
            continue
        call, entry = findings.connector.signals.calls[node]
        terms = entry.terms(call) if entry and entry.terms else []
        if "pool" in call.name and (kernel := _blocks(call)) is not None:
            pools = (kernel, *pools)
        elif len(role.carriers) == 2 and [factor for factor, _ in terms] == [1, 1]:
            merges += 1
        elif not _keeps_maps(findings, node, call.name):
            others[call.name or getattr(call.target, "__name__", str(call.target))] = None
        stack += [(carrier, pools) for carrier in role.carriers]
    return _Way(tuple(sorted(ways)), merges, tuple(others))


def _blocks(call: Call) -> tuple[int, int] | None:
    """The size of blocks that a pool sums, or averages; None if it does something else."""
    size = call.get("kernel_size")
    if "max" in call.name or "adaptive" in call.name or size is None:
        return None
    n = 1 if "1d" in call.name else 3 if "3d" in call.name else 2
    kernel = _pair(each_axis(size, n), 1)
    stride, padding = call.get("stride"), call.get("padding")
    if stride and _pair(each_axis(stride, n), 1) != kernel:
        return None
    if padding and max(_pair(each_axis(padding, n), 0)):
        return None
    return None if call.get("ceil_mode") else kernel


def _keeps_maps(findings: Findings, node: fx.Node, name: str) -> bool:
    """Whether an operation leaves the maps of a sample as they are: a reshape, or one in time."""
    roles = findings.connector.signals.roles
    size, carriers = shape(node), roles[node].carriers
    before = shape(carriers[0]) if carriers else size
    if name in _RESHAPES:
        return True
    if name in _TURNS:  # samples and steps change places
        kept = 3 if len(size) > 3 else 1
        return len(size) == len(before) and _same_behind(node, before, kept)
    if name in _PARTS:
        kept = min(3, len(size) - 1) if len(size) > 1 else len(size)
        return size[len(size) - kept :] == before[len(before) - kept :]
    if name in _JOINS:
        names = findings.connector.names
        sources = {names[n] for c in carriers for n in findings.connector.signals.behind(c)}
        return len(sources) == 1
    return False


def _same_behind(node: fx.Node, before: tuple[int, ...], kept: int) -> bool:
    """Whether the last axes stay where they are, seen by what happens to numbered ones."""
    target: Any = node.target
    numbered = torch.empty(tuple(range(1, len(before) + 1)), device="meta")
    with suppress(Exception):
        args = tuple(numbered if isinstance(arg, fx.Node) else arg for arg in node.args)
        turned = getattr(numbered, target)(*args[1:]) if isinstance(target, str) else target(*args)
        return tuple(turned.shape[-kept:]) == tuple(numbered.shape[-kept:])
    return False


def _behind(findings: Findings, node: fx.Node) -> tuple[str, ...]:
    """What lies between a synapse and the neurons that it drives, but reshapes and batch norms."""
    roles, signals = findings.connector.signals.roles, findings.connector.signals
    others: dict[str, None] = {}
    reached: set[str] = set()
    neurons = {origin_of(n)[0] for nodes in findings.spiking.values() for n in nodes}

    def ahead(at: fx.Node) -> Iterator[fx.Node]:
        for user in at.users:
            role = roles.get(user)
            if role is None:
                if user.op != "output":
                    yield user
                continue
            if role.kind == "source":
                reached.add(findings.connector.names[user])
                continue
            if origin_of(user)[0] in neurons:
                continue  # their states
            if role.counted:
                others["another synapse"] = None
                continue
            call, entry = signals.calls[user]
            norm = entry is not None and entry.shifts(call) and not _trains(findings, user)
            if not norm and not _plain(call.name, user, at):
                others[call.name or getattr(call.target, "__name__", str(call.target))] = None
            yield user

    if "virtual" in node.meta:
        return ()
    for _ in reachable([node], ahead):
        pass
    return (*others, *(["several layers of neurons"] if len(reached) > 1 else []))


def _plain(name: str, node: fx.Node, before: fx.Node) -> bool:
    if name in _PARTS:
        kept = min(3, len(shape(node)) - 1)
        return shape(node)[len(shape(node)) - kept :] == shape(before)[len(shape(before)) - kept :]
    if name in _TURNS:
        return _same_behind(node, shape(before), 3 if len(shape(before)) > 3 else 1)
    return name in _RESHAPES or name in _JOINS


def _trains(findings: Findings, node: fx.Node) -> bool:
    module = findings.connector.signals.calls.module(node)
    call, _ = findings.connector.signals.calls[node]
    return bool(module.training if module is not None else call.get("training"))


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
