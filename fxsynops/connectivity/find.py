"""From a model and an example to all of its connections.

find(model, inputs, options)
  trace      record one forward as a graph          (fxsynops.tracing)
  classify   what is events, what is analog         (classify.py)
  connect    every connection and its fan-out map   (connect.py)
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fxsynops import neurons
from fxsynops.connectivity import layouts
from fxsynops.connectivity.calls import origin_of
from fxsynops.connectivity.classify import classify
from fxsynops.connectivity.connect import Connector, Edge, Unresolved, Wiring, connect
from fxsynops.connectivity.results import (
    Connection,
    DenseSynapse,
    FanOut,
    Findings,
    Options,
    whole,
)
from fxsynops.connectivity.sample_axes import leading
from fxsynops.connectivity.signals import Role, Signals, State
from fxsynops.errors import InputError, UnsupportedOperationError
from fxsynops.neurons import Neuron
from fxsynops.operations import operations
from fxsynops.operations.call import shape
from fxsynops.operations.signatures import arguments
from fxsynops.tracing import graph_functions
from fxsynops.tracing.graph_walk import reachable
from fxsynops.tracing.inputs import Inputs, Layout, Window
from fxsynops.tracing.places import Place
from fxsynops.tracing.recorder import Inside, Known, OpenedError
from fxsynops.tracing.sharded import gathering
from fxsynops.tracing.trace import Trace, trace
from fxsynops.tracing.witness import Witness

# What was opened once stays so, of each model: names of sources do not change with the batch.
_OPENED: WeakKeyDictionary[nn.Module, set[type]] = WeakKeyDictionary()


def find(
    model: nn.Module,
    inputs: Inputs,
    options: Options,
    known: dict[str, State] | None = None,
    witness: Witness | None = None,
    lent: Iterable[Place] = (),
) -> Findings:
    """Every connection of a model.

    Args:
        model: the model; it is left as it was.
        inputs: the arguments of a forward.
        options: how the analysis was asked for.
        known: what earlier forwards are known to have left in the model's states.
        witness: is told what the recorded forward multiplies, for an audit.
        lent: numbers and lists of the model's that its forwards are known to change.

    Raises:
        InputError: there are no events at all.
        TraceError: the model cannot be recorded.
        UnsupportedOperationError: events reach a synapse in a way that no rule covers.
    """
    replace(options.layout, axes="" if options.layout.auto else options.layout.axes).window(inputs)
    opened, chosen = _OPENED.setdefault(model, set()), neurons.Chosen.of(model, options.spiking)

    @cache
    def describe(module: nn.Module) -> Neuron | None:
        return neurons.describe(module, chosen)

    @cache
    def doubted(module: nn.Module) -> bool:
        neuron = describe(module)
        return neuron is not None and module not in chosen and neuron.is_doubted(module)

    def whole(module: nn.Module) -> bool:
        if doubted(module) and (type(module) in opened or neurons.holds_more(module)):
            return False
        return describe(module) is not None or any(
            base in operations.by_target for base in type(module).__mro__
        )

    def fits(module: nn.Module, result: Any, multiplied: bool) -> bool:
        neuron = describe(module)
        return neuron is None or neuron.fits(module, result, multiplied)

    def inside(target: Any) -> Inside | None:
        if isinstance(target, nn.Module):
            neuron = describe(target)
            return neuron.inside if neuron else None
        operation = operations.find(target, None, None)
        return operation.inside if operation else None

    def meaning(target: Any, args: Any, kwargs: Any) -> Callable[..., Any] | None:
        operation = operations.find(target, None, None)
        if operation is None or operation.meaning is None:
            return None
        bound = arguments(target, args, kwargs)
        given = {n: v for n, v in bound.values.items() if n != "out"} if bound else None
        return None if given is None else partial(operation.meaning, **given)

    known_of = Known(whole, inside, meaning, doubted, fits, tuple(lent))

    def record(inputs: Inputs, witness: Witness | None = None) -> Trace:
        while True:
            try:
                return trace(model, inputs, known_of, witness)
            except OpenedError as error:
                opened.add(type(error.opened))
                if witness is not None:
                    witness.forget()

    recorded = record(inputs, witness)
    with unset_fake_temporarily(), gathering():  # maps are real, also where no values are
        return _understand(
            model, inputs, options, chosen, recorded, known or {}, record, known_of.lent
        )


def _understand(
    model: nn.Module,
    inputs: Inputs,
    options: Options,
    chosen: neurons.Chosen,
    recorded: Trace,
    known: dict[str, State],
    record: Callable[[Inputs], Trace],
    lent: tuple[Place, ...],
) -> Findings:
    graded = options.events == "nonzero"
    options = with_known_inputs(options, inputs)
    signals = classify(recorded, _flags(options), chosen, graded, known, lent)
    if indices := _indices(options, signals):
        options = replace(
            options, looked=options.looked | dict.fromkeys(indices, (False, _INDICES))
        )
        signals = classify(recorded, _flags(options), chosen, graded, known, lent)
    layout = options.layout
    if layout.auto:
        _check_not_empty(inputs)
        layout = layouts.of_inputs(layout, inputs, recorded, signals, record)
    else:
        layout = layouts.recounted(layout, recorded, signals, inputs)
    options, window = replace(options, layout=layout), layout.window(inputs)
    wiring, connector = connect(
        recorded, signals, options.layout, graded, options.weights == "nonzero"
    )
    _check_steps(options.layout, wiring, connector)
    seen = layouts.steps_seen(options.layout, recorded, signals, window)
    recorded = replace(recorded, branches=(*recorded.branches, *_check_sizes(signals, wiring)))
    silent = not any(role.signal.kind == "events" for role in signals.roles.values())
    if silent and not wiring.analog:
        raise InputError(
            f"{type(model).__name__} has no spiking node, and its inputs carry no events, so there "
            "is nothing to count. Name its spiking module types in spiking=, register them with "
            "fxsynops.register_spiking, or pass input_events=True if the input is spikes."
        )
    if wiring.unresolved and options.strict:
        raise UnsupportedOperationError(_explain(wiring.unresolved))
    found = Findings(
        model,
        options,
        inputs,
        recorded,
        connector,
        window,
        tuple(_connection(edge, window, options.layout) for edge in wiring.edges),
        tuple(_dense(wiring, connector, window)),
        wiring.unresolved,
        (*_doubts(recorded, signals, chosen), *seen),
    )
    signals.forget(  # or an analysis would hold a second copy of all weights
        node
        for node in recorded.graph.nodes
        if (place := recorded.reads.get(str(node.target))) and isinstance(place.get(), nn.Parameter)
    )
    return found


def _check_steps(layout: Layout, wiring: Wiring, connector: Connector) -> None:
    """A number of steps that is given must be that of the loops over a static input.

    Raises:
        InputError: a static input is read another number of times, and nothing happens as often.
    """
    steps = layout.timesteps
    read = {tap.repeats for edge in wiring.edges for tap in edge.taps} - {1}
    if steps is None or layout.said or "T" in layout.axes or not read:
        return
    fired = Counter(
        connector.names[node]
        for node, role in connector.signals.roles.items()
        if role.kind == "source" and origin_of(node)[0].op.startswith("call")
    )
    if steps not in read | set(fired.values()):
        often = max(read)
        raise InputError(
            f"timesteps={steps}, but the model reads a static input {often} times in a forward, "
            f"and nothing in it happens {steps} times. Pass timesteps={often}."
        )


def _doubts(recorded: Trace, signals: Signals, chosen: neurons.Chosen) -> Iterator[str]:
    """What may not be as the user thinks, and cannot be found out."""
    found = [(role.module, role.call) for role in signals.roles.values() if role.kind == "source"]
    for name, part in chosen.modules:
        if not any(module is part for module, _ in found):
            yield f"spiking={name!r} matches nothing that the model calls."
    for kind in chosen.types:
        used = any(
            isinstance(module, kind)
            or (call is not None and origin_of(call.node)[0].meta.get("function") is kind)
            or (call is not None and call.name.replace("_", "") == kind.__name__.lower())
            for module, call in found
        )
        if not used:
            yield (
                f"spiking={kind.__name__} matches nothing that the model calls: no module of this "
                "type, or no function."
            )
    said: set[str] = set()
    for node, role in signals.roles.items():
        origin, _ = origin_of(node)
        said |= _unknown_masks(role)
        if role.kind == "other" and role.reason:
            name = origin.meta["function"].__name__
            said.add(
                f"'{name}' {origin.meta['site']} is taken for analog: {role.reason}. If these are "
                f"events, say so: register_spiking({name}, amplitude=…)."
            )
        if origin.meta.get("hooked") and role.signal.kind == "analog":
            yield (
                f"A hook may change what {origin.meta['site']} passes on; it is taken for analog, "
                "as it was before."
            )
    yield from sorted(said)


def _unknown_masks(role: Role) -> set[str]:
    """Of events that are multiplied by values that the meta device does not have."""
    entry, call = role.operation, role.call
    if role.kind != "routing" or entry is None or entry.factors is None or call is None:
        return set()
    factors = [call.constant(n) for n in call.operands() if n not in role.carriers]
    return {
        f"Events are multiplied {origin_of(call.node)[0].meta['site']} by values that the meta "
        "device does not have: all of them are taken to pass, though a zero would stop them."
        for factor in factors
        if factor is not None and factor.is_meta
    }


def _check_sizes(signals: Signals, wiring: Wiring) -> Iterator[str]:
    """Where the size of what is counted depends on data, each replay checks it."""
    measured = {tap.node: None for edge in wiring.edges for tap in edge.taps}
    measured |= {node: None for node, role in signals.roles.items() if role.counted}
    for node in measured:
        if not node.meta["sized"]:
            continue
        site, size = origin_of(node)[0].meta["site"], shape(node)
        where = site.where or str(site)
        with node.graph.inserting_after(node):
            call: Any = (graph_functions.size_of, (node,), size, where)
            check = node.graph.create_node("call_function", graph_functions.check_branch, call)
        check.meta.update(node.meta | {"sized": False})
        del check.meta["spec"]
        yield f"{where}: a size was {size}"


def _connection(edge: Edge, window: Window, layout: Layout) -> Connection:
    per_step = window.samples * window.timesteps
    map = edge.taps[0].map
    elements = sum(math.prod(shape(tap.node)) * tap.repeats for tap in edge.taps)
    synapses = sum(
        float(tap.map.sum()) * (math.prod(shape(tap.node)) / tap.map.numel()) * tap.repeats
        for tap in edge.taps
    )
    size = tuple(shape(edge.taps[0].node))
    beside = leading(size, len(edge.taps), window, layout).axes
    own = tuple(n for axis, n in enumerate(size) if axis not in beside)
    neurons = elements / per_step
    total = mean = synapses / per_step
    alike = all(shape(tap.node) == size for tap in edge.taps)
    some_steps = len(edge.taps) == 1 and len(own) > 1 and 1 < own[0] < window.timesteps
    if alike and not some_steps and math.prod(size) == window.samples * math.prod(own):
        # Each tap is of one step, and some steps may have none: a recurrence, the first.
        neurons = math.ceil(neurons / math.prod(own)) * math.prod(own)
        total = synapses * neurons / elements
    return Connection(
        source=edge.sources[0] if len(edge.sources) == 1 else edge.measured_at,
        sources=edge.sources,
        synapse=edge.name,
        kind=edge.synapse.kind,
        measured_at=edge.measured_at,
        neurons=whole(neurons),
        shape=own,
        fanout=FanOut(
            map.round().to(torch.int64),
            mean=synapses / elements,
            total=whole(total),
            nominal=edge.synapse.nominal,
        ),
        folded=edge.folded,
        guessed=edge.guessed,
        synapses=whole(mean),
        taps=edge.taps,
        calls=edge.synapse,
    )


def _dense(wiring: Wiring, connector: Connector, window: Window) -> Iterable[DenseSynapse]:
    per_step, roles = window.samples * window.timesteps, connector.signals.roles
    for edge in wiring.analog:
        calls = [roles[node].synapse for node in edge.synapse.calls]
        padded = math.fsum(call.padded_macs() for call in calls if call is not None)
        yield DenseSynapse(
            edge.synapse.name,
            edge.synapse.kind,
            whole(edge.macs / per_step),
            whole(padded / per_step),
            edge.synapse,
        )


def with_known_inputs(options: Options, inputs: Inputs) -> Options:
    """The same, once it is known which inputs carry events: those of the example stay so.

    Raises:
        InputError: there are more or fewer flags than inputs.
    """
    tensors: dict[str, list[Tensor]] = defaultdict(list)
    for name, tensor in inputs.tensors():
        tensors[name].append(tensor)
    flags = options.input_events
    if flags == "auto" or options.looked:  # later inputs of the model's are its states
        graded, new = options.events == "nonzero", tensors.keys() - options.looked.keys()
        looked = {n: layouts.carries_events(tensors[n], graded) for n in tensors if n in new}
    elif isinstance(flags, bool):
        looked = dict.fromkeys(tensors, (flags, ""))
    elif len(flags) == len(tensors):
        looked = {name: (flag, "") for name, flag in zip(tensors, flags, strict=True)}
    else:
        raise InputError(
            f"input_events has {len(flags)} entries for {len(tensors)} tensor arguments "
            f"({', '.join(tensors)}). Pass one bool for all, or one for each of them."
        )
    return replace(options, looked=options.looked | looked)


def _check_not_empty(inputs: Inputs) -> None:
    """There is nothing to be seen of no samples.

    Raises:
        InputError: an input is empty.
    """
    for name, tensor in inputs.tensors():
        if tensor.numel() == 0:
            raise InputError(
                f"input '{name}' of shape {tuple(tensor.shape)} is empty. Pass an example with "
                "samples in it."
            )


_INDICES = "indices (token ids), not data"


_LOOKING_UP = {  # operations that look into tables, and their parameters that are indices
    "embedding": ("input", "indices"),
    "embedding_bag": ("input", "indices"),
    "one_hot": ("input",),
}


def _flags(options: Options) -> dict[str, bool]:
    return {name: events for name, (events, _) in options.looked.items()}


def _indices(options: Options, signals: Signals) -> list[str]:
    """The inputs that only say where to look (token ids), of those that seemed to be events."""
    found = []
    for node in signals.roles:
        name = str(node.target)
        if node.op != "placeholder" or not all(options.looked.get(name, (False, ""))):
            continue

        def ahead(at: fx.Node) -> Iterator[fx.Node]:
            """Where what it holds is moved on to, as data."""
            for user in at.users:
                role = signals.roles.get(user)
                if role is not None and role.kind != "unknown" and at in role.carriers:
                    yield user

        moved = list(reachable([node], ahead))
        if any(signals.roles[at].counted for at in moved):
            continue  # it is data, too
        if any(_only_says_where(signals, at, user) for at in moved for user in at.users):
            found.append(name)
    return list(dict.fromkeys(found))


def _only_says_where(signals: Signals, at: fx.Node, user: fx.Node) -> bool:
    """Whether a call uses a value as an index."""
    call, entry = signals.calls[user] if user in signals.roles else (None, None)
    if call is None or entry is None:
        return False
    looks_up = call.name in _LOOKING_UP and at in call.operands(*_LOOKING_UP[call.name])
    return looks_up or at in entry.steers(call)


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
