"""What would help: the changes of a network that would save most, each computed and not guessed.

    counts.advice()  -> Advice      the largest savings first

Of a network that was counted with its firing rates:

    silent channels    neurons that have never fired: nothing has to be added up for them. Saves
                       their part of what comes to their synapse.
    dead ends          neurons whose events meet weights of zero alone. Saves all that they cause.
    threshold          a neuron's threshold, raised until its mean rate is what was asked for;
                       counted anew on the example, with all that follows behind.
    pool in front      a pool behind a convolution's neurons, in front of it instead: as many
                       events, each of which reaches fewer places. Computed with the same events.
    silent padding     zeros in place of padding that repeats events at the borders (reflect,
                       replicate, circular); counted anew on the example.

The first two change nothing of what the network puts out for the data that were counted; the others
do, and want training. What can be changed in the model at once is changed, counted on the example,
and put back: such rows are verified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxsynops.connectivity.find import find
from fxsynops.connectivity.results import Findings
from fxsynops.cost.geometry import Shape, geometry
from fxsynops.cost.layers import layers_of
from fxsynops.counting.firing_rates import FiringRates
from fxsynops.counting.replay import Replay
from fxsynops.neurons import reset_states
from fxsynops.reporting.advice_table import advice_content
from fxsynops.reporting.report import Reported
from fxsynops.tracing.borrowed import Borrowed

_THRESHOLDS = ("v_threshold", "spike_threshold", "threshold", "thresh", "b0")
_CLOSE = 0.01  # of a factor


@dataclass(frozen=True)
class Change:
    """One change, and what it saves.

    Attributes:
        layer: what is changed.
        kind: "silent channels", "dead ends", "threshold", "pool in front", "silent padding".
        change: in words.
        saves: SynOps per sample.
        harmless: whether the network puts out the same for the data that were counted.
        verified: whether the changed network was counted on the example, and saves as much there;
            None if it cannot be changed at once.
    """

    layer: str
    kind: str
    change: str
    saves: float
    harmless: bool
    verified: bool | None


@dataclass(frozen=True)
class Advice(Reported):
    """Changes that would save most. Prints as a table.

    Attributes:
        changes: the largest saving first.
        total: SynOps per sample, before.
        name: the model's class.
    """

    changes: tuple[Change, ...]
    total: float
    name: str

    def _content(self) -> dict[str, Any]:
        return advice_content(self)


def advice(
    findings: Findings,
    synops: Mapping[tuple[str, str, str], float],
    rates: Mapping[str, FiringRates],
    samples: int,
    most: int,
    rate: float | None,
) -> Advice:
    """The changes that would save most.

    Args:
        findings: the analysis of the model.
        synops: SynOps per sample, by the connection's key.
        rates: of every spiking node, by name.
        samples: how many were counted.
        most: how many changes to give.
        rate: events per neuron and step that thresholds shall be raised for; half of the present
            one if None.
    """
    shapes = geometry(findings, layers_of(findings))
    every = [
        *_silent(findings, shapes, synops, rates),
        *_dead_ends(findings, rates, samples),
        *_pools(findings, shapes, synops, rates, samples),
        *_padding(findings, synops),
        *_thresholds(findings, synops, rates, rate),
    ]
    best = sorted((change for change in every if change.saves > 0), key=lambda c: -c.saves)
    return Advice(tuple(best[:most]), math.fsum(synops.values()), findings.name)


# -- counting the example -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counted:
    """What the example costs: SynOps by connection, events by spiking node."""

    synops: dict[tuple[str, str, str], float]
    fired: dict[str, float]

    @property
    def total(self) -> float:
        return math.fsum(self.synops.values())


def _count(findings: Findings, change: Callable[[], object] = lambda: None) -> _Counted:
    """The example, from fresh states, in a model that is changed as long as it runs."""
    with torch.set_grad_enabled(findings.trace.mode.grad), Borrowed(findings.model):
        reset_states(findings.model)
        with torch.no_grad():
            change()
        replay = Replay(findings)
        events, synops = replay.count(findings.example.clone().values)[1].both().tolist()
    fired = {name: events[row] for name, row in replay.rows.fired.items()}
    return _Counted(dict(zip(replay.keys, synops, strict=False)), fired)


def _module(findings: Findings, name: str) -> nn.Module | None:
    """The module of a name, if there is one."""
    with suppress(AttributeError):
        return findings.model.get_submodule(name)
    return None


# -- neurons that do nothing ----------------------------------------------------------------------


def _silent(
    findings: Findings,
    shapes: list[Shape],
    synops: Mapping[tuple[str, str, str], float],
    rates: Mapping[str, FiringRates],
) -> Iterator[Change]:
    """Output channels whose neurons have never fired."""
    for shape in shapes:
        neurons = [rates[name] for name in shape.driven if name in rates]
        group = [s for s in shapes if s.layer.drives == shape.layer.name]
        channels = shape.outputs[0]
        if len(neurons) != 1 or any(s.groups != 1 or s.outputs[0] != channels for s in group):
            continue
        events = neurons[0].events.detach()
        if not events.dim() or events.shape[0] != channels:
            continue
        silent = events.reshape(channels, -1).sum(1) == 0
        number, names = int(silent.sum()), [s.layer.name for s in group]
        cost = math.fsum(synops[c.key] for c in findings.connections if c.calls.name in names)
        if number and cost:
            yield Change(
                shape.layer.name,
                "silent channels",
                f"remove {number:,} of {channels:,} output channels, whose neurons never fire",
                cost * number / channels,
                True,
                _stays_silent(findings, group, silent) if number < channels else None,
            )


def _stays_silent(findings: Findings, group: list[Shape], silent: Tensor) -> bool | None:
    """Whether all events of the example stay as they are without some channels of a synapse."""
    for shape in group:
        layer, module = shape.layer, _module(findings, shape.layer.name)
        plain = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        if module is None or not plain or layer.biased != layer.has_bias:
            return None  # a norm adds its own to what is not there
        if module._parameters.get("weight") is None:
            return None  # computed from something else

    def remove() -> None:
        for shape in group:
            module: Any = _module(findings, shape.layer.name)
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    parameter[silent.to(parameter.device)] = 0

    return _count(findings) == _count(findings, remove)


def _dead_ends(
    findings: Findings, rates: Mapping[str, FiringRates], samples: int
) -> Iterator[Change]:
    """Neurons whose events meet weights of zero alone."""
    connector = findings.connector
    if findings.options.weights != "all":
        return
    for connection in findings.connections:
        firing = rates.get(connection.measured_at)
        nodes = {n: call.weight for n in connection.calls.calls if (call := _call(findings, n))}
        weights = {n: connector.signals.constant(w) for n, w in nodes.items() if w is not None}
        usable = weights and all(w is not None and not w.is_meta for w in weights.values())
        if firing is None or not usable:
            continue
        maps = {node: map for node, map, _ in connector.taps(connection.calls, weights)}
        tap = connection.taps[0]
        reached = maps.get(tap.node)
        if reached is None or (
            len(connection.taps) > 1
            and any(not torch.equal(maps.get(t.node, reached), reached) for t in connection.taps)
        ):
            continue
        events = firing.events.detach().double().cpu()
        every, alive = (_per_neuron(map, events) for map in (tap.map, reached))
        if every is None or alive is None:
            continue
        dead = (alive == 0) & (every > 0)
        cost = float((events * every)[dead].sum()) * tap.repeats / samples
        if cost:
            yield Change(
                connection.synapse,
                "dead ends",
                f"remove {int(dead.sum()):,} neurons of '{connection.source}' from its inputs, "
                "whose weights there are zero",
                cost,
                True,
                None,
            )


def _call(findings: Findings, node: Any) -> Any:
    return findings.connector.signals.roles[node].synapse


def _per_neuron(map: Tensor, events: Tensor) -> Tensor | None:
    """A map as one of the neurons of a sample, if it is the same for all samples and steps."""
    extra = map.dim() - events.dim()
    if extra < 0 or any(n > 1 for n in map.shape[:extra]):
        return None
    with suppress(RuntimeError):
        return map.reshape(map.shape[extra:]).expand(events.shape)
    return None


# -- fewer places ---------------------------------------------------------------------------------


def _pools(
    findings: Findings,
    shapes: list[Shape],
    synops: Mapping[tuple[str, str, str], float],
    rates: Mapping[str, FiringRates],
    samples: int,
) -> Iterator[Change]:
    """Convolutions whose neurons are pooled: the pool in front of them instead."""
    by_name = {shape.layer.name: shape for shape in shapes}
    for behind in shapes:
        one_way = behind.pools[0] if len(behind.pools) == 1 else ()
        if len(one_way) != 1 or behind.in_front or len(behind.reads) != 1:
            continue
        shape, kernel = by_name[next(iter(behind.reads))], one_way[0]
        into = [c for c in findings.connections if c.calls.name == shape.layer.name]
        plain = shape.layer.kind == "conv2d" and shape.stride == (1, 1)
        if not plain or len(into) != 1 or max(kernel) < 2 or into[0].arriving != 1:
            continue
        firing = rates.get(into[0].measured_at)
        if firing is None or tuple(firing.events.shape) != shape.inputs:
            continue
        fewer = _behind_a_pool(shape, kernel)
        after = float((firing.events.detach().double().cpu() * fewer).sum()) / samples
        size = f"{kernel[0]}×{kernel[1]}"
        yield Change(
            shape.layer.name,
            "pool in front",
            f"sum {size} blocks of its input instead of its output",
            synops[into[0].key] - after,
            False,
            None,
        )


def _behind_a_pool(shape: Shape, kernel: tuple[int, int]) -> Tensor:
    """Fan-out of the neurons in front of a convolution, if blocks of them are summed first."""
    x = torch.zeros(1, *shape.inputs, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(shape.outputs[0], shape.inputs[0] // shape.groups, *shape.kernel).double()
    with torch.enable_grad():
        pooled = F.avg_pool2d(x, kernel, divisor_override=1)
        y = F.conv2d(pooled, weight, None, 1, shape.padding, shape.dilation, shape.groups)
        (map,) = torch.autograd.grad(y.sum(), x)
    return map[0]


# -- borders --------------------------------------------------------------------------------------


def _padding(findings: Findings, synops: Mapping[tuple[str, str, str], float]) -> Iterator[Change]:
    """Padding that repeats events: the costliest convolutions', and modules of padding."""
    cost: dict[str, float] = {}
    for connection in findings.connections:
        name = connection.calls.name
        cost[name] = cost.get(name, 0.0) + synops[connection.key]
    padded: dict[str, Any] = {
        name: module
        for name, module in findings.model.named_modules()
        if isinstance(module, _PADS)
        or (_mode(module) != "zeros" and any(module.padding) and cost.get(name))
    }
    before: _Counted | None = None
    for name in sorted(padded, key=lambda one: -cost.get(one, math.inf))[:_TRIED]:
        before = before or _count(findings)
        yield Change(
            name,
            "silent padding",
            f"pad with zeros, not {_mode(padded[name])}",
            _saved(before, _silently_padded(findings, name), synops),
            False,
            True,
        )


_PADS = (
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    *(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    *(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
)


def _mode(module: nn.Module) -> str:
    """What a module pads its input with; "zeros" if it does not pad at all."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.padding_mode
    if isinstance(module, _PADS):
        kind = type(module).__name__
        return "reflect" if "Ref" in kind else "replicate" if "Rep" in kind else "circular"
    return "zeros"


def _silently_padded(findings: Findings, name: str) -> _Counted:
    """What the example costs where one module pads with zeros: it is another graph."""
    parent, _, key = name.rpartition(".")
    parts = findings.model.get_submodule(parent)._modules
    module: Any = parts[key]
    mode = getattr(module, "padding_mode", None)
    try:
        if mode is not None:
            module.padding_mode = "zeros"
        else:
            size = len(module.padding) // 2
            zeros = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)[size - 1]
            parts[key] = zeros(module.padding, 0.0)
        return _count(find(findings.model, findings.example, findings.options))
    finally:
        parts[key] = module
        if mode is not None:
            module.padding_mode = mode


# -- fewer events ---------------------------------------------------------------------------------


def _thresholds(
    findings: Findings,
    synops: Mapping[tuple[str, str, str], float],
    rates: Mapping[str, FiringRates],
    rate: float | None,
) -> Iterator[Change]:
    """The neurons that cost most, with a higher threshold."""
    cost: dict[str, float] = {}
    for connection in findings.connections:
        for source in connection.sources:
            if source in rates:
                cost[source] = cost.get(source, 0.0) + synops[connection.key]
    before: _Counted | None = None
    for name in sorted(cost, key=lambda one: -cost[one])[:_TRIED]:
        module = _module(findings, name)
        attribute = next((a for a in _THRESHOLDS if _is_threshold(module, a)), "")
        if module is None or not attribute or not rates[name].mean:
            continue
        before = before or _count(findings)
        steps = findings.window.samples * findings.window.timesteps
        present = before.fired.get(name, 0.0) / (rates[name].events.numel() * steps)
        target = present / 2 if rate is None else rate
        if not present > target:
            continue
        factor, after = _raised(findings, module, attribute, name, present, target, before)
        if factor is None:
            continue
        reached = after.fired[name] / (rates[name].events.numel() * steps)
        yield Change(
            name,
            "threshold",
            f"{attribute} × {factor:.3g}: {present:.3g} → {reached:.3g} events per neuron and "
            "step, on the example",
            _saved(before, after, synops),
            False,
            True,
        )


_TRIED = 3  # sources


def _saved(
    before: _Counted, after: _Counted, synops: Mapping[tuple[str, str, str], float]
) -> float:
    """SynOps per sample of what was counted, if they sink as those of the example do."""
    if not before.total:
        return 0.0
    return (before.total - after.total) / before.total * math.fsum(synops.values())


def _is_threshold(module: nn.Module | None, attribute: str) -> bool:
    value = getattr(module, attribute, None)
    if isinstance(value, Tensor):
        return value.is_floating_point() and bool((value > 0).all())
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _raised(
    findings: Findings,
    module: Any,
    attribute: str,
    name: str,
    present: float,
    target: float,
    before: _Counted,
) -> tuple[float | None, _Counted]:
    """The smallest factor for a threshold that brings a rate to a target, and what it costs."""
    value = getattr(module, attribute)

    def tried(factor: float) -> _Counted:
        def change() -> None:
            held = getattr(module, attribute)
            if isinstance(held, Tensor):
                held.mul_(factor)
            else:
                setattr(module, attribute, value * factor)

        try:
            return _count(findings, change)
        finally:
            if not isinstance(value, Tensor):
                setattr(module, attribute, value)

    most = target / present * before.fired[name]
    low, high = 1.0, 2.0
    after = tried(high)
    while after.fired[name] > most:
        low, high = high, 2 * high
        if high > _FACTOR:
            return None, after
        after = tried(high)
    while high - low > _CLOSE * low:
        middle = (low + high) / 2
        found = tried(middle)
        if found.fired[name] <= most:
            high, after = middle, found
        else:
            low = middle
    return high, after


_FACTOR = 64
