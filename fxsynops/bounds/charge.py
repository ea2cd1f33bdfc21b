"""The charge bound: how many events every neuron can emit in a window, and what they cost.

    Charge(findings, ...)
      ├─ sources           every neuron with all its calls, and what it emits (driven_neurons)
      ├─ per step          one pass over the graph: intervals, and each neuron's charge so far
      ├─ totals            from source to source: the charge of a whole window, linear in the events
      └─ row               a connection's SynOps: what its events weigh, times how many there can be

The charge that a neuron gets in a window is bounded twice, and the smaller bound kept. *Per step*,
each input is at its worst in every step. In *totals*, a source's n events are spread evenly over
the steps, and the input summed over them; this is right if an event weighs the same whenever it is
emitted (or nothing, if it comes too late), so that is verified: the derivative of the summed charge
by every event, times random positive weights of the receiving neurons, must be constant in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fxsynops.bounds.driven_neurons import Events, Source, Sources, filled, split_shape
from fxsynops.bounds.events_per_step import Assumptions, Caps
from fxsynops.bounds.ranges import Ranges, unit_of
from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.connect import Tap
from fxsynops.connectivity.results import Connection, Findings
from fxsynops.connectivity.signals import Role
from fxsynops.operations.call import shape
from fxsynops.operations.value_range import Range, as_double

_TINY = 1e-9  # relative differences of derivatives that rounding makes


@dataclass(frozen=True)
class _SoFar:
    """A neuron's window until some step.

    Attributes:
        steps: how many.
        charge: what came in, positive and negative.
        emitted: events.
    """

    steps: int = 0
    charge: tuple[Tensor, ...] = ()
    emitted: Tensor | None = None


class Charge:
    """Bounds on events from the charge that drives them.

    Args:
        findings: an analysis of the window, or of one of the forwards (passes) that make it.
        assumptions: of inputs and neurons.
        caps: events per step.
    """

    def __init__(self, findings: Findings, assumptions: Assumptions, caps: Caps) -> None:
        passes = math.ceil(assumptions.timesteps / findings.window.timesteps)
        self._findings = findings
        self._roles = findings.connector.signals.roles
        self._assumptions = assumptions
        self._caps = caps
        self._passes = passes
        self._steps = Ranges(findings, self._leaf, limit=self._limit, changing=passes > 1)
        self._sources = Sources(findings, assumptions, caps, passes, self._steps)
        self._so_far: dict[int, _SoFar] = {}  # by source
        self._totals: dict[int, Events] = {}
        self._busy: set[int] = set()
        self._random = torch.Generator().manual_seed(0)  # the user's own numbers stay as they are
        taps = {tap.node for c in findings.connections for tap in c.taps}
        taps |= {findings.emitted(n) for nodes in findings.spiking.values() for n in nodes}
        with torch.no_grad():
            self._steps.run(findings.trace.graph.nodes, frozenset(taps))

    # -- per step ---------------------------------------------------------------------------------

    def _limit(self, node: fx.Node) -> tuple[float, float]:
        scale = self._roles[node].signal.scale
        if scale is None or not scale.fixed or node not in self._caps.ranges:
            return -math.inf, math.inf
        low, high = self._caps.ranges[node]
        if scale.factor < 0:
            low, high = -max(-low, high), max(-low, high)
        size = abs(scale.factor)
        return low * size if low else 0.0, high * size if high else 0.0

    def _leaf(self, node: fx.Node, role: Role) -> Range | None:
        """What a source can emit in one step, and an analog input be."""
        if node.op == "placeholder" and role.signal.kind == "analog":
            return self._analog(node)
        if role.kind == "mask":
            low, high = self._limit(node)
            return Range.between(filled(node, low), filled(node, high))
        source = self._sources.of.get(node)
        if source is None or source.computed:
            return None
        size = shape(node)
        if source.dynamics is None:
            most = filled(node, source.cap)
            return Range(most, most if source.signed else None) * source.amplitude
        value = self._steps.operand(source.inputs[source.nodes.index(node)])
        split = source.steps.split
        events = self._events_so_far(source, [split(part) for part in _charges(value, size)])
        up, *down = (source.steps.join(part.clamp(max=source.cap)) for part in events)
        return Range(up, down[0] if down else None) * source.amplitude

    def _events_so_far(self, source: Source, charges: list[Tensor]) -> list[Tensor]:
        """Events, positive and perhaps negative, of the window until each step of a call.

        Args:
            source: a neuron.
            charges: what this call brings at each step: positive and negative, (steps, …).
        """
        before = self._so_far.get(id(source), _SoFar())
        running = [
            part.cumsum(0) + (before.charge[i] if before.charge else 0.0)
            for i, part in enumerate(charges)
        ]
        done = before.steps + len(running[0])
        charge = tuple(part[-1] for part in running)
        if self._passes == 1:
            events = [
                source.until_each_step(drive, part, before.steps, before.emitted)
                for drive, part in zip(source.drives, running, strict=False)
            ]
        else:  # earlier passes have left what the later calls of a pass bring
            one = len(source.nodes) == 1  # else what other calls bring is anything
            left = [x * self._passes if one else torch.full_like(x, math.inf) for x in charge]
            events = [
                source.emitted(drive, whole).expand_as(part)
                for drive, whole, part in zip(source.drives, left, running, strict=False)
            ]
        self._so_far[id(source)] = _SoFar(done, charge, events[0][-1])
        return events

    def _analog(self, node: fx.Node) -> Range:
        low, high = self._assumptions.input_interval(str(node.target))
        return Range.between(filled(node, low), filled(node, high))

    # -- totals -----------------------------------------------------------------------------------

    def _total(self, source: Source) -> Events:
        """What a source emits over the whole window."""
        key = id(source)
        if key in self._totals:
            return self._totals[key]
        if source.dynamics is None:
            most = source.most if source.most is not None else source.cap * source.positions
            size = split_shape(source.nodes[0], source.steps)[1:]
            all_most = torch.full(size, most, dtype=torch.float64)
            self._totals[key] = Events(all_most, all_most if source.signed else None)
            return self._totals[key]
        charges = [x * self._passes for x in self._so_far[key].charge]
        if key in self._busy:  # a loop through other neurons
            return source.all_events(charges)
        self._busy.add(key)
        summed = self._summed(source)
        self._busy.remove(key)
        if summed is not None:
            charges = [torch.minimum(a, b) for a, b in zip(charges, summed, strict=True)]
        self._totals[key] = source.all_events(charges)
        return self._totals[key]

    def _summed(self, source: Source) -> tuple[Tensor, Tensor] | None:
        """The charge of the window, from the totals of the sources before; None if unknown."""
        nodes = self._steps.before(source.inputs)
        leaves = _Leaves(self, nodes)
        if not leaves.finite():
            return None
        need_down = len(source.drives) > 1
        charges = self._window(source, leaves, nodes)
        if bool(charges[0].isfinite().all()):
            weights = (
                torch.rand(charges[0].shape[1:], generator=self._random, dtype=torch.float64) + 0.5
            )
            parts = [charges[0], charges[1]] if need_down else [charges[0]]
            verdicts = {leaves.timing((part * weights).sum()) for part in parts}
            if "varies" in verdicts or (need_down and "again" in verdicts):
                return None
            if "again" in verdicts:
                charges = self._window(source, leaves, nodes)
        up, down = (x.detach().sum(0) * self._passes for x in charges)
        return up, down

    def _window(
        self, source: Source, leaves: _Leaves, nodes: list[fx.Node]
    ) -> tuple[Tensor, Tensor]:
        """The charge of every step, positive and negative."""
        ranges = Ranges(self._findings, leaves.get, self._steps)
        with torch.enable_grad():
            ranges.run(nodes, frozenset(source.inputs))
            found = [
                _charges(ranges.operand(x), shape(node))
                for x, node in zip(source.inputs, source.nodes, strict=True)
            ]
            up, down = (torch.cat([source.steps.split(pair[i]) for pair in found]) for i in (0, 1))
        return up, down

    # -- a connection -----------------------------------------------------------------------------

    def row(self, connection: Connection) -> tuple[float, tuple[str, ...]]:
        """SynOps of a connection per sample, and why no charge argument helps, where none does."""
        taps = connection.taps
        sources = [self._sources.of.get(tap.node) for tap in taps]
        reasons = dict.fromkeys(source.reason for source in sources if source and source.reason)
        if any(tap.product for tap in taps):
            return math.inf, ("events meet events",)
        graded = self._findings.options.events == "nonzero"
        if graded and any(source is None for source in sources):
            return math.inf, ("graded events behind a gate",)
        if any(self._worth(tap) is None for tap in taps):
            return math.inf, ("what an event is worth depends on data",)
        samples = self._findings.window.samples
        with torch.no_grad():
            per_step = math.fsum(self._worst_steps(tap) for tap in taps) * self._passes
        found = min(per_step, self._weighed(taps)) / samples
        if math.isinf(found) and not reasons:
            reasons = dict.fromkeys(self._unbounded(source) for source in sources if source)
        return found, tuple(reasons)

    def _unbounded(self, source: Source) -> str:
        """Why the charge of a source has no bound."""
        name = f"'{source.name}'"
        for node in self._steps.before(source.inputs):
            if node in self._steps.unknown:
                origin, _ = origin_of(node)
                called = getattr(origin.target, "__name__", str(origin.target))
                return f"{name}: nothing bounds what '{called}' puts out, {origin.meta['site']}"
            before = self._sources.of.get(node)
            if before is not None and not self._total(before).finite():
                return f"{name}: '{before.name}', which drives it, is unbounded"
        return f"{name}: its analog input can be anything (input_range= says what it can be)"

    def _worst_steps(self, tap: Tap) -> float:
        """If every step is at its worst."""
        value = self._steps.values[tap.node]
        worth = self._worth(tap)
        return self._slack(tap) * tap.repeats * _dot(tap.map, _in_units(value.peak, worth))

    def _slack(self, tap: Tap) -> float:
        """A gate measures whole events in values that were rounded."""
        return 1.0 if tap.node in self._sources.of else 1 + 8 * unit_of(tap.node)

    def _worth(self, tap: Tap) -> Tensor | None:
        """What one event is worth with the weights that the model has now."""
        source = self._sources.of.get(tap.node)
        if source is not None:
            return source.amplitude
        worth = torch.tensor(tap.scale.factor, dtype=torch.float64)
        for node in tap.scale.nodes:
            factor = self._steps.operand(node)
            if not isinstance(factor, Tensor):
                return None
            over = node in tap.scale.over
            worth = worth / as_double(factor) if over else worth * as_double(factor)
        return worth

    def _weighed(self, taps: tuple[Tap, ...]) -> float:
        """Every event at the time when it weighs most: linear in the events of all sources."""
        nodes = self._steps.before(tap.node for tap in taps)
        leaves = _Leaves(self, nodes, at_rest=True)
        ranges = Ranges(self._findings, leaves.get, self._steps)
        with torch.enable_grad():
            ranges.run(nodes, frozenset(tap.node for tap in taps))
            costs = []
            for tap in taps:
                value = ranges.values[tap.node]
                size = value.up if value.down is None else value.up + value.down
                size = size if value.center is None else size + value.center.abs()
                each = self._slack(tap) * tap.repeats
                costs.append((tap.map * (_in_units(size, self._worth(tap)) * each)).sum())
            cost = torch.stack(costs).sum()
        if not bool(cost.isfinite()):
            return math.inf
        return float(cost.detach()) * self._passes + leaves.heaviest(cost)


def _in_units(size: Tensor, worth: Tensor | None) -> Tensor:
    """How many events a value is; none where an event is worth nothing."""
    assert worth is not None
    return size / torch.where(worth == 0, torch.inf, worth.abs())


class _Leaves:
    """The sources before some nodes, as the start of a computation that is linear in their events.

    Args:
        charge: the bound.
        nodes: a part of the graph.
        at_rest: with no events at all, for derivatives only.
    """

    def __init__(self, charge: Charge, nodes: list[fx.Node], at_rest: bool = False) -> None:
        self._charge = charge
        self._sources: list[tuple[Source, Events]] = []
        self._emitted: dict[fx.Node, tuple[Tensor, Tensor | None]] = {}
        self._factors: list[list[Tensor]] = []
        self._of = charge._sources.of
        present = set(nodes)
        for source in dict.fromkeys(self._of[n] for n in nodes if n in self._of):
            if source.spread:
                known = charge._total(source)
                self._sources.append((source, known))
                for node in source.nodes:
                    if node in present:
                        self._emitted[node] = self._even(node, source, known, at_rest)

    def _even(
        self, node: fx.Node, source: Source, known: Events, at_rest: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Positive and negative events of one call, spread over all steps evenly."""
        steps = split_shape(node, source.steps)[0]

        def part(total: Tensor) -> Tensor:
            each = torch.zeros_like(total) if at_rest else total / source.positions
            return each.expand(steps, *total.shape).clone().requires_grad_()

        return part(known.up), None if known.down is None else part(known.down)

    def finite(self) -> bool:
        """Whether all totals are finite."""
        return all(known.finite() for _, known in self._sources)

    def get(self, node: fx.Node, role: Role) -> Range | None:
        """See :class:`fxsynops.bounds.ranges.Ranges`."""
        if node in self._emitted:
            source = self._of[node]
            up, down = (None if x is None else source.steps.join(x) for x in self._emitted[node])
            assert up is not None
            return Range(up, down) * source.amplitude
        if node in self._of or role.kind == "mask" or node.op == "placeholder":
            with torch.no_grad():
                return self._charge._leaf(node, role)
        return None

    def _derivatives(self, cost: Tensor, again: bool) -> list[list[Tensor | None]]:
        """By source and sign: (steps, …) over all its calls."""
        flat = [x for pair in self._emitted.values() for x in pair if x is not None]
        if not flat or not cost.requires_grad:
            return [[None, None] for _ in self._sources]
        found = torch.autograd.grad(cost, flat, retain_graph=again, allow_unused=True)
        by_leaf = {id(x): g for x, g in zip(flat, found, strict=True)}
        result = []
        for source, _ in self._sources:
            pairs = [self._emitted[n] for n in source.nodes if n in self._emitted]
            signs: list[Tensor | None] = []
            for i in (0, 1):
                parts = [pair[i] for pair in pairs]
                known = [
                    torch.zeros_like(x) if by_leaf[id(x)] is None else by_leaf[id(x)]
                    for x in parts
                    if x is not None
                ]
                signs.append(torch.cat(known) if known else None)
            result.append(signs)
        return result

    def heaviest(self, cost: Tensor) -> float:
        """All events, each at the step where it adds most to ``cost``."""
        total = 0.0
        for (_, known), signs in zip(self._sources, self._derivatives(cost, False), strict=True):
            for events, slope in zip((known.up, known.down), signs, strict=True):
                if slope is not None and events is not None:
                    total += _dot(slope.amax(0), events)
        return total

    def timing(self, cost: Tensor) -> str:
        """Whether it matters when events are emitted: "constant", "varies", or "again".

        Where events add nothing in some steps, the other steps get theirs; then the computation
        has to be done again.
        """
        verdict = "constant"
        for (source, _), signs in zip(self._sources, self._derivatives(cost, True), strict=True):
            calls = [self._emitted[n] for n in source.nodes if n in self._emitted]
            for i, slope in enumerate(signs):
                if slope is None:
                    continue
                most = slope.amax(0)
                if bool(((slope > 0) & ((slope - most).abs() > _TINY * most)).any()):
                    return "varies"
                used = (slope > 0).sum(0)
                all_steps = source.positions // self._charge._passes
                missed = (used > 0) & (used < all_steps)
                if not bool(missed.any()):
                    continue
                verdict = "again"
                factor = torch.where(missed, all_steps / used, 1.0)
                with torch.no_grad():
                    for pair in calls:
                        part = pair[i]
                        assert part is not None
                        part.mul_(factor)
        return verdict


def _charges(value: Any, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The positive and negative charge that an input can bring."""
    if isinstance(value, Tensor):
        value = Range.between(value.double(), value.double())
    if not isinstance(value, Range):
        value = Range.unknown(size)
    down = torch.zeros_like(value.up) if value.positive else value.total_down
    return value.total.expand(size), down.expand(size)


def _dot(weights: Tensor, values: Tensor) -> float:
    """Σ weights · values, where nothing times anything is nothing."""
    product = weights.double() * values
    product = torch.where((weights == 0) | (values == 0), 0.0, product)
    return float(product.sum())
