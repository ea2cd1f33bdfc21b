"""Static analysis: which synapses every spiking node drives, and how many, before any data.

analyze(model, example)
  trace      record one forward as a graph          (fxsynops.tracing.trace)
  classify   what is events, what is analog         (fxsynops.connectivity.signals)
  connect    every connection and its fan-out map   (fxsynops.connectivity.connect)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fxsynops import neurons
from fxsynops.bounds.bound import Bound, estimate, upper_bound
from fxsynops.bounds.events_per_step import Assumptions, Interval
from fxsynops.connectivity.classify import classify
from fxsynops.connectivity.connect import Edge, Unresolved, Wiring, connect
from fxsynops.connectivity.findings import (
    Connection,
    DenseSynapse,
    Events,
    FanOut,
    Findings,
    Options,
    Weights,
)
from fxsynops.connectivity.sample_axes import leading
from fxsynops.connectivity.signals import State
from fxsynops.errors import InputError, TraceError, UnsupportedOperationError
from fxsynops.operations import operations
from fxsynops.operations.call import shape
from fxsynops.reporting.report import VIEWS, Column, Reported, View, source_label, whole
from fxsynops.tracing.inputs import Inputs, Layout, Window, check_devices, check_events
from fxsynops.tracing.recorder import Inside
from fxsynops.tracing.trace import Trace, trace

if TYPE_CHECKING:
    from fxsynops.counter import SynOpsCounter


@dataclass(frozen=True)
class Analysis(Reported, Findings):
    """What :func:`analyze` found. Prints as a table.

    Attributes:
        connections: one per source and synapse, in the order of the graph.
        dense: the synapses with analog input.
        unresolved: what no rule covers (with ``strict=False``; otherwise it is an error).
        specialized: where the model branches on data; it holds for the example's branches.
        window: samples and time steps of the example.
    """

    @cached_property
    def graph(self) -> nx.MultiDiGraph:
        """Sources and synapses, with an edge per connection; ``fxsynops.drawing`` draws it.

        The graph has ``model``, its name. Nodes have ``kind``: "source", "gate" (where events of
        sources are measured that reach it) or a synapse's operation ("conv2d", …); synapses with
        analog input have ``macs``, per sample and step. Edges have ``kind``. Those of a
        "connection", from where its events are measured to the synapse, have ``connection``,
        ``synapses`` (its fan-out total), ``folded`` (see :class:`Connection`) and ``gated``
        (whether a gate lies on the way). Those to a "gate" come from the sources behind it. A
        product of events with events is a synapse and its own gate: its connection is a loop.
        """
        graph = nx.MultiDiGraph(model=self.name)
        for row in self.dense:
            graph.add_node(row.synapse, kind=row.kind, macs=row.macs)
        for connection in self.connections:
            for source in connection.sources:
                graph.add_node(source, kind="source")
            graph.add_node(connection.synapse, kind=connection.kind)
        for connection in self.connections:
            start = connection.source
            if start not in connection.sources:
                if start not in graph:  # else a product of events: a synapse and its own gate
                    graph.add_node(start, kind="gate")
                for source in connection.sources:
                    if not graph.has_edge(source, start):
                        graph.add_edge(source, start, kind="gate")
            graph.add_edge(
                start,
                connection.synapse,
                kind="connection",
                connection=connection,
                synapses=connection.fanout.total,
                folded=connection.folded,
                gated=connection.measured_at not in connection.sources,
            )
        return graph

    def counter(self, *, rates: bool = False) -> SynOpsCounter:
        """A module that runs the model and counts its SynOps; see :class:`SynOpsCounter`."""
        from fxsynops.counter import SynOpsCounter

        return SynOpsCounter.of(self, rates=rates)

    def upper_bound(
        self,
        timesteps: int | None = None,
        *,
        max_spikes: float | dict[str, float] | None = None,
        input_max_events: float | None = None,
        input_range: Interval | dict[str, Interval] | None = None,
        rate: float | dict[str, float] | None = None,
    ) -> Bound:
        """How many SynOps an input can cause at most, before any data.

        *Structural*: a source emits at most r events per neuron and step, so a connection costs at
        most T · r · Σ fan-out. *Charge*: a neuron emits no more events than the charge that it
        receives in the window pays for; see :mod:`fxsynops.neurons.dynamics` for the theorem.
        The window starts from the states that the neurons hold now, and weights, thresholds and
        time constants are those that the model has now.

        Args:
            timesteps: T, the length of the window; the example's if None.
            max_spikes: events per neuron and step, for all spiking nodes or by the name of a
                source. A neuron's own cap (one, for most) holds beside it.
            input_max_events: events per input element over the whole window; None: one per step.
            input_range: the least and the most that an analog input can be, for all inputs or by
                the name of the model's argument; None: anything, which has no charge bound.
            rate: mean events per neuron and step, for all sources or by name. The result is then
                an *estimate*, no bound; and nothing else but ``timesteps`` plays a role.

        Raises:
            InputError: a number makes no sense, a name is none of this model's, or the analysis
                left something unresolved.

        Example:
            >>> import torch, fxsynops
            >>> model = torch.nn.Sequential(
            ...     torch.nn.Linear(4, 3, bias=False), fxsynops.nn.IAF(), torch.nn.Linear(3, 2))
            >>> _ = torch.nn.init.constant_(model[0].weight, 0.5)
            >>> analysis = fxsynops.analyze(model, torch.ones(1, 10, 4), layout="NT")
            >>> bound = analysis.upper_bound()
            >>> bound.structural, bound.charge  # IAF has no cap; a step brings 4 · 0.5 at most
            (inf, 240.0)
        """
        steps = self.window.timesteps if timesteps is None else timesteps
        if rate is not None:
            return estimate(self, steps, rate)
        assumptions = Assumptions(steps, max_spikes, input_max_events, input_range)
        return upper_bound(self._of_length(steps), assumptions)

    def _of_length(self, steps: int) -> Analysis:
        """The analysis of as many steps, where the inputs say how many there are."""
        layout, example = self.options.layout.resized(self.example, self.window, "T", steps)
        as_it_is = self.options.weights == "all" and self.trace.conditions.hold()
        if example is self.example and as_it_is:
            return self
        try:
            return analyze_inputs(self.model, example, replace(self.options, layout=layout))
        except TraceError as error:
            raise InputError(
                f"the model does not run for {steps} steps, so there is no bound for them: {error}"
            ) from error

    def _content(self) -> dict[str, Any]:
        return _content(self)


def analyze(
    model: nn.Module,
    example: Any,
    *,
    layout: str = "N",
    batch_size: int | None = None,
    timesteps: int | None = None,
    dt: float = 1.0,
    input_events: bool | Sequence[bool] = True,
    spiking: Any = (),
    events: Events = "value",
    weights: Weights = "all",
    strict: bool = True,
) -> Analysis:
    """Find every connection of ``model`` and the fan-out of its neurons.

    The model runs once on the example and is afterwards exactly as before.

    Args:
        model: any ``nn.Module``.
        example: a tensor, or a tuple of the model's positional arguments.
        layout: the leading axes of the inputs: "N" samples, "NT" samples and time steps, "TN",
            "T", "" for a single sample, "(NT)" or "(TN)" for one merged axis.
        batch_size, timesteps: what the shape does not tell; both for a loop over a static input.
        dt: length of a time step in milliseconds.
        input_events: whether the inputs carry events; one bool per tensor argument, or one for all.
        spiking: further module types (or autograd functions) to take as spiking sources.
        events: "value", an event of value v counts |v| and is measured at the source;
            "nonzero", every non-zero element counts one, measured at the synapse's input.
        weights: "all", or "nonzero" to count only synapses whose weight is not zero.
        strict: raise when an operation between a source and a synapse is not understood,
            instead of listing it in ``unresolved``.

    Raises:
        InputError: the example or an option does not fit the model.
        TraceError: the model cannot be recorded.
        UnsupportedOperationError: see ``strict``.

    Example:
        >>> import torch, fxsynops
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), fxsynops.nn.IAFSqueeze(batch_size=1), torch.nn.Flatten(),
        ...     torch.nn.Linear(4 * 6 * 6, 10))
        >>> analysis = fxsynops.analyze(model, torch.ones(5, 1, 8, 8), layout="(NT)", timesteps=5)
        >>> [(c.source, c.synapse, c.fanout.total) for c in analysis.connections]
        [('input', '0', 1296), ('1', '3', 1440)]
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"analyze takes an nn.Module, not {model!r}.")
    if not isinstance(input_events, bool | list | tuple):
        raise InputError(f"input_events is a bool, or one per tensor, not {input_events!r}.")
    options = Options(
        Layout(layout, batch_size, timesteps),
        _positive("dt", dt),
        input_events if isinstance(input_events, bool) else tuple(input_events),
        _types(spiking),
        _one_of("events", events, ("value", "nonzero")),
        _one_of("weights", weights, ("all", "nonzero")),
        strict,
    )
    args = example if isinstance(example, tuple) else (example,)
    inputs = Inputs.bind(model, args, {})
    check_devices(model, inputs)
    for name, tensor in inputs.tensors():
        if _event_inputs(options, inputs)[name]:
            check_events(name, tensor)
    return analyze_inputs(model, inputs, options)


def analyze_inputs(
    model: nn.Module, inputs: Inputs, options: Options, known: dict[str, State] | None = None
) -> Analysis:
    """:func:`analyze` with everything checked and bound; the counter's way in.

    ``known`` is what earlier forwards are known to have left in the model's states.
    """
    window = options.layout.window(inputs)

    def whole(module: nn.Module) -> bool:
        return neurons.describe(module, options.spiking) is not None or any(
            base in operations.by_target for base in type(module).__mro__
        )

    def inside(target: Any) -> Inside | None:
        if isinstance(target, nn.Module):
            neuron = neurons.describe(target, options.spiking)
            return neuron.inside if neuron else None
        operation = operations.find(target, None, None)
        return operation.inside if operation else None

    recorded = trace(model, inputs, whole, inside)
    with unset_fake_temporarily():  # maps are real, also of models without values
        return _understand(model, inputs, options, window, recorded, known or {})


def _understand(
    model: nn.Module,
    inputs: Inputs,
    options: Options,
    window: Window,
    recorded: Trace,
    known: dict[str, State],
) -> Analysis:
    graded = options.events == "nonzero"
    signals = classify(recorded, _event_inputs(options, inputs), options.spiking, graded, known)
    if not any(role.signal.kind == "events" for role in signals.roles.values()):
        raise InputError(
            f"{type(model).__name__} has no spiking node, and its inputs carry no events, so there "
            "is nothing to count. Name its spiking module types in spiking=, register them with "
            "fxsynops.register_spiking, or pass input_events=True if the input is spikes."
        )
    wiring, connector = connect(
        recorded, signals, options.layout, window, graded, options.weights == "nonzero"
    )
    if wiring.unresolved and options.strict:
        raise UnsupportedOperationError(_explain(wiring.unresolved))
    return Analysis(
        model,
        options,
        inputs,
        recorded,
        connector,
        window,
        tuple(_connection(edge, window, options.layout) for edge in wiring.edges),
        tuple(_dense(wiring, window)),
        wiring.unresolved,
    )


def _connection(edge: Edge, window: Window, layout: Layout) -> Connection:
    per_step = window.samples * window.timesteps
    map = edge.taps[0].map
    elements = sum(math.prod(shape(tap.node)) * tap.repeats for tap in edge.taps)
    synapses = sum(
        float(tap.map.sum()) * (math.prod(shape(tap.node)) / tap.map.numel()) * tap.repeats
        for tap in edge.taps
    )
    total = synapses / per_step
    size = tuple(shape(edge.taps[0].node))
    return Connection(
        source=edge.sources[0] if len(edge.sources) == 1 else edge.measured_at,
        sources=edge.sources,
        synapse=edge.name,
        kind=edge.synapse.kind,
        measured_at=edge.measured_at,
        neurons=whole(elements / per_step),
        shape=size[leading(size, len(edge.taps), window, layout).count :],
        fanout=FanOut(
            map.round().to(torch.int64),
            mean=synapses / elements,
            total=whole(total),
            nominal=edge.synapse.nominal,
        ),
        folded=edge.folded,
        guessed=edge.guessed,
        taps=edge.taps,
        calls=edge.synapse,
    )


def _dense(wiring: Wiring, window: Window) -> Iterable[DenseSynapse]:
    for edge in wiring.analog:
        macs = whole(edge.macs / (window.samples * window.timesteps))
        yield DenseSynapse(edge.synapse.name, edge.synapse.kind, macs)


def _event_inputs(options: Options, inputs: Inputs) -> dict[str, bool]:
    names = list(dict.fromkeys(name for name, _ in inputs.tensors()))
    flags = options.input_events
    if isinstance(flags, bool):
        flags = (flags,) * len(names)
    if len(flags) != len(names):
        raise InputError(
            f"input_events has {len(flags)} entries for {len(names)} tensor arguments "
            f"({', '.join(names)}). Pass one bool for all, or one for each of them."
        )
    return dict(zip(names, flags, strict=True))


def _types(spiking: Any) -> tuple[type, ...]:
    types = tuple(spiking) if isinstance(spiking, (tuple, list, set)) else (spiking,)
    for entry in types:
        if not isinstance(entry, type):
            raise InputError(
                f"spiking= takes module types, such as spiking=nn.ReLU, not {entry!r}."
            )
    return types


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise InputError(f"{name}={value!r} is none of {', '.join(map(repr, allowed))}.")
    return value


def _positive(name: str, value: float) -> float:
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name} must be positive, not {value!r}.")
    return float(value)


def _explain(unresolved: Sequence[Unresolved]) -> str:
    lines = "\n".join(f"  - {row}" for row in unresolved[:10])
    more = f"\n  … and {len(unresolved) - 10} more" if len(unresolved) > 10 else ""
    return (
        f"events reach a synapse in ways that cannot be counted:\n{lines}{more}\n"
        "Say what the operation does: fxsynops.register_routing(target, incidence) if it carries "
        "events on, fxsynops.register_synapse(target, pairs) if it has weights, "
        "fxsynops.register_spiking(type) if events come out of it. With strict=False these are "
        "listed in analysis.unresolved, and not counted."
    )


# -- reports --------------------------------------------------------------------------------------

VIEWS["analysis"] = View(
    (
        Column("Source", show=source_label, text=True),
        Column("Synapse", text=True),
        Column("Kind", text=True, optional=5, show=lambda row: row["Kind"] + " *" * row["Folded"]),
        Column("Neurons"),
        Column("Fan-out min", "min", optional=3),
        Column("Fan-out mean", "mean fan-out", digits=1),
        Column("Fan-out max", "max", optional=2),
        Column("Nominal", digits=1, optional=4),
        Column("Synapses"),
    ),
    share="Synapses",
    name="Source",
    group="Synapse",
)


def _content(analysis: Analysis) -> dict[str, Any]:
    """What a report of the fan-out holds."""
    rows = [
        {
            "Source": c.source,
            "Synapse": c.synapse,
            "Kind": c.kind,
            "Measured at": c.measured_at,
            "Neurons": c.neurons,
            "Fan-out min": c.fanout.min,
            "Fan-out mean": c.fanout.mean,
            "Fan-out max": c.fanout.max,
            "Nominal": c.fanout.nominal,
            "Synapses": c.fanout.total,
            "Folded": c.folded,
        }
        for c in analysis.connections
    ]
    dense = [{"Synapse": row.synapse, "Kind": row.kind, "MACs": row.macs} for row in analysis.dense]
    title = "Analog inputs: multiply-accumulates, not SynOps"
    return {
        "kind": "analysis",
        "title": f"Fan-out of {analysis.name}",
        "model": analysis.name,
        "events": analysis.options.events,
        "weights": analysis.options.weights,
        "samples": analysis.window.samples,
        "timesteps": analysis.window.timesteps,
        "dt": analysis.options.dt,
        "totals": {"Synapses": whole(sum(c.fanout.total for c in analysis.connections))},
        "rows": rows,
        "dense": dense,
        "tables": [{"title": title, "rows": dense}] if dense else [],
        "unresolved": [str(row) for row in analysis.unresolved],
        "specialized": list(analysis.specialized),
        "notes": [
            "Neurons, synapses and MACs per sample and time step; fan-out per event "
            f'(events="{analysis.options.events}", weights="{analysis.options.weights}").',
            *analysis.remarks(),
            *(f"Unresolved, not counted: {row}" for row in analysis.unresolved),
        ],
    }
