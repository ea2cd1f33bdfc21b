"""A model that counts its own SynOps."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fxsynops.analysis import Analysis, analyze, audited
from fxsynops.connectivity.find import find
from fxsynops.connectivity.layouts import carries_events
from fxsynops.connectivity.moments import Moments
from fxsynops.connectivity.results import Events, Findings, Options, Weights
from fxsynops.connectivity.signals import State
from fxsynops.counting.counts import Extras, Measured, Numbers, Span
from fxsynops.counting.data_sets import Reset, evaluating, first_of, measure
from fxsynops.counting.exact_sums import Tally
from fxsynops.counting.firing_rates import FiringRates
from fxsynops.counting.replay import Detail, OtherBranchError, Replay
from fxsynops.counting.running_totals import Account
from fxsynops.counting.samples_apart import SamplesApart
from fxsynops.errors import CountError, InputError
from fxsynops.neurons import reset_states
from fxsynops.operations.operation import as_dense
from fxsynops.results import Audit, Counts
from fxsynops.tracing.borrowed import Borrowed, Undo
from fxsynops.tracing.devices import own_device
from fxsynops.tracing.inputs import Inputs, Window, call_key, check_devices
from fxsynops.tracing.node_meta import HERE, TORCH, Mode
from fxsynops.tracing.places import Place

_MAX_TRACES = 16
_OFTEN = 8  # analyses anew for one value, of which a warning tells
_MAX_WAYS = 256  # of one forward, by its branches
_FRACTION = 1e-3  # what rounding can do to a whole number of events, and more


class SynOpsCounter(nn.Module):
    """Wraps a model: calling it returns the model's own output, and counts.

    The counter can stand in for the model in training code: it has the model's parameters, its
    ``state_dict`` has the model's keys, and the count is differentiable.

    Args:
        model: any module; it is shared, not copied.
        example: a tensor, or a tuple of the model's positional arguments, or a dict of all of them.
        layout: what the axes of the inputs are. "auto": as the model's neurons tell it; the tables
            say how, or that the steps are unknown. Else the leading axes: "N" samples, "NT" samples
            and time steps, "TN", "T", "" for a single sample, "(NT)" or "(TN)" for one merged axis,
            "N…T" and the like with time inside; "step" for a model whose forward is one step: every
            forward adds one to the samples at hand, until :meth:`end_of_sample`.
        batch_size, timesteps: what the shape does not tell; both for a loop over a static input.
        dt: length of a time step in milliseconds.
        input_events: whether the inputs carry events; one bool per tensor argument, or one for all.
            "auto": small whole numbers do, fractions, images and token ids do not.
        spiking: further spiking sources: types of modules, functions of torch's (``F.relu``, as
            ``nn.ReLU``, which calls it), names of single modules.
        events: "value", an event of value v counts |v| and is measured at the source; "nonzero",
            every non-zero element counts one, measured at the synapse's input.
        weights: "all", or "nonzero" to count only synapses whose weight is not zero.
        strict: raise when an operation between a source and a synapse is not understood, instead
            of listing it in ``analysis.unresolved``.
        audit: hold the analysis against what the model did with the example.
        rates: whether to keep the firing rate of every neuron; see :attr:`rates`.
        steps: whether to keep the SynOps of every time step; see :attr:`per_step`.

    Raises:
        InputError, TraceError, UnsupportedOperationError, AuditError: see :func:`fxsynops.analyze`,
            which takes the same options.

    Attributes:
        model: the model.

    Example:
        >>> import torch, fxsynops
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 3, bias=False), fxsynops.nn.IAF(), torch.nn.Linear(3, 2))
        >>> counter = fxsynops.SynOpsCounter(model, torch.ones(2, 5, 4), layout="NT")
        >>> y = counter(torch.ones(2, 5, 4))
        >>> int(counter.per_synapse["0"])  # 2 samples x 5 steps x 4 events x fan-out 3
        120
    """

    _analysis: Analysis | None

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        *,
        layout: str = "auto",
        batch_size: int | None = None,
        timesteps: int | None = None,
        dt: float = 1.0,
        input_events: bool | Sequence[bool] | Literal["auto"] = "auto",
        spiking: Any = (),
        events: Events = "value",
        weights: Weights = "all",
        strict: bool = True,
        audit: bool = True,
        rates: bool = False,
        steps: bool = False,
    ) -> None:
        super().__init__()
        analysis = analyze(
            model,
            example,
            layout=layout,
            batch_size=batch_size,
            timesteps=timesteps,
            dt=dt,
            input_events=input_events,
            spiking=spiking,
            events=events,
            weights=weights,
            strict=strict,
            audit=audit,
        )
        self._start(analysis, Detail(rates, steps=steps))

    @classmethod
    def of(cls, analysis: Analysis, *, rates: bool = False, steps: bool = False) -> SynOpsCounter:
        """A counter for an analysis that is already there.

        Args:
            analysis: of :func:`analyze`; its model is counted, with its options.
            rates, steps: see :class:`SynOpsCounter`.
        """
        counter = cls.__new__(cls)
        nn.Module.__init__(counter)
        counter._start(analysis, Detail(rates, steps=steps))
        return counter

    def _start(self, analysis: Analysis, detail: Detail) -> None:
        self._begin(analysis.model, analysis.example, analysis.options, detail)
        self._learn(analysis)
        self._changing |= {(id(p.root), p.path): p for p in analysis.trace.changes()}
        example = analysis.example
        self._replays[_key(example.args, example.kwargs)] = [self._replay(analysis)]

    def _begin(self, model: nn.Module, example: Inputs, options: Options, detail: Detail) -> None:
        self.model = model
        self.training = model.training
        self._example, self._options, self._detail = example, options, detail
        self._analysis = None
        self._states: dict[str, State] = {}
        self._replays: OrderedDict[Any, list[Replay]] = OrderedDict()
        self._account = Account()
        self._ways = 0
        self._anew: Counter[str] = Counter()
        self._changing: dict[tuple[int, Any], Place] = {}  # numbers and lists, by forwards
        self._has_looked = False
        self._before: Numbers | None = None  # what an earlier run has counted
        self._register_state_dict_hook(_without_prefix)
        self._register_load_state_dict_pre_hook(_with_prefix, with_module=True)

    # -- running ---------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own output for these inputs; counts are committed when it is there.

        Under ``torch.compile``, what the model does is compiled, and the sums of events with it.

        Raises:
            InputError: another number or size of inputs than analyzed. Other numbers of samples
                and time steps are fine, and so are other modes, dtypes and devices.
        """
        if torch.compiler.is_dynamo_compiling():
            from fxsynops.compiled import counted  # what it takes is there only now

            return counted(self._compilable, self._commit, self.forward, args, kwargs)
        args, kwargs, values = self._bound(args, kwargs)
        replay = self._replay_for(args, kwargs)
        if replay.own_branches:
            replay, output, tally = self._count_branching(replay, args, kwargs, values)
        else:
            output, tally = replay.count(values)
        self._commit(replay, tally)
        return output

    def _bound(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]:
        """Arguments as the model's signature has them, and one value for each placeholder."""
        if not kwargs:
            return args, kwargs, args
        inputs = Inputs.bind(self.model, args, kwargs)  # some are perhaps positional parameters
        return inputs.args, inputs.kwargs, inputs.values

    def _replay_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Replay:
        """What replays the model for some arguments, recorded if it has to be.

        Raises:
            InputError: see :meth:`forward`.
        """
        replay = self._known_or_new(args, kwargs)
        self._check_at_hand(replay.analysis.window.samples)
        if not self._has_looked:
            self._look_at(Inputs.bind(self.model, args, kwargs))
        return replay

    def _compilable(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The replay of these inputs, its function if it can be compiled, and what that takes."""
        args, kwargs, values = self._bound(args, kwargs)
        replay = self._replay_for(args, kwargs)
        return replay, replay.compilable(), values

    def _commit(self, replay: Replay, tally: Tally) -> None:
        """Add what a pass has counted."""
        if torch._C._current_graph_task_id() == -1:  # else a checkpoint's recomputation
            self._account.commit(replay, tally)

    def _count_branching(
        self, replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any], values: tuple[Any, ...]
    ) -> tuple[Replay, Any, Tally]:
        """The same for a forward that branches on its own output: each way is recorded once."""
        undo, tried, recorded = Undo(self.model, values), [replay], False
        while True:
            try:
                return (replay, *replay.count(values))
            except OtherBranchError as other:
                if not undo.back() or recorded:  # recorded: it does not go the same way twice
                    raise
                ways = (way for way in self._replays[_key(args, kwargs)] if way not in tried)
                known = next((way for way in ways if way.may_go_on(other.seen)), None)
                recorded = known is None
                exact = any(isinstance(value, float) for value in other.seen)
                if exact and len(tried) == 1 and not known:
                    self._warn_of_many_ways(str(other))
                most = _MAX_TRACES if exact else _MAX_WAYS
                replay = known or self._recorded(args, kwargs, most)
                tried.append(replay)

    def _warn_of_many_ways(self, why: str) -> None:
        """A forward that computes with numbers out of its own values is hardly ever the same."""
        self._ways += 1
        if self._ways == _MAX_TRACES:
            where, _, rest = why.partition(": the model ")
            _warn(
                f"{where}: the model {rest.partition('. ')[0]}, and so each forward is recorded "
                "anew: counts are right, and slow. Make it a tensor operation.",
            )

    def _look_at(self, inputs: Inputs) -> None:
        """The first data may be spikes where the example was not; on the CPU, that is seen."""
        self._has_looked = True
        looked = self._options.looked
        for name, tensor in inputs.tensors():
            events, why = looked.get(name, (True, ""))
            if events or not why.startswith("fractions") or not tensor.is_cpu:
                continue
            if not as_dense(tensor.detach()).any():  # silence is both
                continue
            now, found = carries_events([tensor], graded=False)
            if now:
                _warn(
                    f"'{name}' was taken for analog, since the example has {why}, but now it has "
                    f"{found}. If these are spikes, make the counter with an example that is like "
                    "the data, or pass input_events=True.",
                )

    def _check_at_hand(self, samples: int) -> None:
        """A step must be of as many samples as those before it."""
        if self._account.at_hand not in (0, samples):
            raise InputError(
                f"this step is of {samples} samples, but the samples at hand are "
                f"{self._account.at_hand}. Where others begin, say so: counter.end_of_sample()."
            )

    def _known_or_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Replay:
        key = _key(args, kwargs)
        candidates = self._replays.get(key, [])
        for i, replay in enumerate(candidates):
            if replay.analysis.trace.conditions.hold():
                if i:  # the next forward will likely be of the same kind
                    candidates.insert(0, candidates.pop(i))
                return replay
        began = time.perf_counter()
        changed = candidates[0].analysis.trace.conditions.changed() if candidates else []
        replay = self._recorded(args, kwargs, _MAX_TRACES)
        self._note_anew(changed, time.perf_counter() - began)
        return replay

    def _note_anew(self, changed: list[str], seconds: float) -> None:
        """Values of the model's for which it has been analyzed anew: say so if that is often."""
        for name in changed:
            self._anew[name] += 1
            if self._anew[name] == _OFTEN:
                _warn(
                    f"'{name}' of {type(self.model).__name__} was another value in {_OFTEN} "
                    f"forwards, and what the model does may depend on it, so it was analyzed anew "
                    f"each time ({1e3 * seconds:.0f} ms for the last). Counts are right, and slow. "
                    "Change it outside of what is counted, or keep it in a tensor (a buffer), "
                    "which each forward reads as it is.",
                )

    def _recorded(self, args: tuple[Any, ...], kwargs: dict[str, Any], most: int) -> Replay:
        """A new trace of these inputs, one of ``most`` of their kind."""
        key = _key(args, kwargs)
        inputs = Inputs.bind(self.model, args, kwargs)
        self._options.layout.check_same_sample(inputs, self._example)
        if self._account.at_hand:  # before neurons see states of other samples
            self._check_at_hand(self._options.layout.window(inputs).samples)
        check_devices(self.model, inputs)
        with own_device():
            lent = self._changing.values()
            analysis = find(self.model, inputs, self._options, self._states, lent=lent)
        self._changing |= {(id(p.root), p.path): p for p in analysis.trace.changes()}
        self._warn_of_lost_rows(analysis)
        self._warn_of_lost_steps(analysis)
        self._learn(analysis)
        replay = self._replay(analysis)
        replay.analysis = replace(analysis, example=inputs.hollow())  # not to keep every batch
        self._replays[key] = [replay, *self._replays.get(key, [])][:most]
        self._replays.move_to_end(key)
        while len(self._replays) > _MAX_TRACES:
            self._replays.popitem(last=False)
        return replay

    def _replay(self, analysis: Findings) -> Replay:
        detail = self._detail
        apart = detail.rates or detail.steps or detail.samples
        return Replay(analysis, detail, self._moments(analysis) if apart else None)

    def _moments(self, analysis: Findings) -> Moments:
        """Where samples and steps lie, seen by what differs in passes of other numbers of them."""
        samples = 2 if analysis.window.samples > 2 else analysis.window.samples + 1
        wider = self._resized(analysis, "N", samples)
        longer = self._resized(wider or analysis, "T", 2 * analysis.window.timesteps)
        return Moments(analysis, wider, longer)

    def _resized(self, analysis: Findings, axis: str, size: int) -> Findings | None:
        """The analysis of another number of samples or steps, if there can be one."""
        layout, example = analysis.options.layout, analysis.example
        resized, inputs = layout.resized(example, analysis.window, axis, size)
        if inputs is example:  # there is no such axis
            return None
        options = replace(self._options, layout=resized)
        with suppress(Exception):  # a model of fixed size, or with states of these samples
            return find(self.model, inputs, options, self._states)
        if not layout.by_step:
            return None
        with suppress(Exception), Borrowed(self.model):
            if reset_states(self.model):
                return find(self.model, inputs, options, self._states)
        return None

    def _learn(self, analysis: Findings) -> None:
        """Remember the first analysis, and what a forward leaves in the model's states."""
        if self._analysis is None:
            full = analysis if isinstance(analysis, Analysis) else Analysis.of(analysis)
            self._analysis = full
        self._states |= analysis.connector.signals.left

    def _warn_of_lost_steps(self, analysis: Findings) -> None:
        """Neurons that told the layout may say something else now."""
        now = analysis.options.layout
        if self._analysis and self._analysis.options.layout.known and not now.known:
            _warn(
                f"from this forward on, neurons do not see the {analysis.window.timesteps} steps "
                f"that layout {now.axes!r} gives it ({now.said}) Its rates and SynOps/s are of "
                "these, all the same. Say what there is: layout=, timesteps=.",
            )

    def _warn_of_lost_rows(self, analysis: Findings) -> None:
        """A synapse whose events came from a state may get analog values once there is a state."""
        counted = {c.synapse for c in analysis.connections}
        analog = {row.synapse for row in analysis.dense}
        before = {c.synapse for c in self.analysis.connections} if self._analysis else set()
        if lost := sorted((before - counted) & analog):
            _warn(
                f"from this forward on, what reaches {', '.join(map(repr, lost))} is analog (a "
                "state of the model that decays or mixes with analog values): multiply-"
                "accumulates, not SynOps.",
            )

    def audit(self, *args: Any, **kwargs: Any) -> Audit:
        """Hold the analysis of other inputs against what the model does with them.

        The model is run, and left as it was; nothing is counted.

        Args:
            args, kwargs: of the model's forward.

        Returns:
            what left the sources, and what arrived, by synapse.

        Raises:
            AuditError: they disagree, and the counter is strict.

        Example:
            >>> import torch, fxsynops
            >>> counter = fxsynops.SynOpsCounter(torch.nn.Linear(4, 3), torch.ones(2, 4))
            >>> audit = counter.audit(torch.eye(4))
            >>> audit.ok, audit.rows[0].left, audit.rows[0].arrived
            (True, 12.0, 12.0)
        """
        inputs = Inputs.bind(self.model, args, kwargs)
        self._options.layout.check_same_sample(inputs, self._example)
        if self._account.at_hand:  # before neurons see states of other samples
            self._check_at_hand(self._options.layout.window(inputs).samples)
        check_devices(self.model, inputs)
        return audited(self.model, inputs, self._options, self._states).audit

    # -- counts ----------------------------------------------------------------------------------

    @property
    def analysis(self) -> Analysis:
        """The analysis of the example (of a copied counter: of its first input).

        Raises:
            FxSynopsError: of a copied counter that has to analyze first; see :func:`analyze`.
        """
        if self._analysis is None:
            self._analysis = Analysis.of(find(self.model, self._example, self._options))
        return self._analysis

    @property
    def last(self) -> tuple[Replay, Tally]:
        """The last forward: what ran it, and what it counted.

        Raises:
            CountError: nothing has been counted yet.
        """
        if self._account.last is None:
            raise CountError("nothing has been counted yet: call the counter on an input first.")
        return self._account.last

    @property
    def latest(self) -> Findings:
        """The analysis that the last forward was counted with: of its shapes, and its branches.

        Raises:
            CountError: nothing has been counted yet.
        """
        return self.last[0].analysis

    @property
    def arguments(self) -> int:
        """How many positional arguments the model was analyzed with."""
        return len(self._example.args)

    @property
    def synops(self) -> Tensor:
        """SynOps of the last forward, all samples and steps: (), float64, differentiable.

        On the device that the events were counted on; nothing waits for it.

        Raises:
            CountError: nothing has been counted yet.
        """
        return self.last[1].total()

    @property
    def window(self) -> Window:
        """Samples and time steps of the last forward: ``.samples`` and ``.timesteps``.

        Raises:
            CountError: nothing has been counted yet.
        """
        return self.latest.window

    @property
    def per_synapse(self) -> dict[str, Tensor]:
        """SynOps of the last forward by the synapse's name: each (), float64, differentiable.

        All samples and steps; their sum is :attr:`synops`.

        Raises:
            CountError: nothing has been counted yet.
        """
        return self._grouped("synapse")

    @property
    def per_source(self) -> dict[str, Tensor]:
        """SynOps of the last forward by the source's name (a gate's, of several): each (), float64.

        All samples and steps, differentiable; their sum is :attr:`synops`.

        Raises:
            CountError: nothing has been counted yet.
        """
        return self._grouped("source")

    @property
    def per_step(self) -> Tensor | None:
        """SynOps of the last forward by time step: (timesteps,), float64, differentiable.

        Events count in the step in which their source has fired, also where a layer mixes steps
        (attention, convolutions, sums over time); states of a forward before count in the first
        step, and what is made of all steps in the last one. None if it is not known when some
        events are; ``counts.steps_unknown`` says why.

        Raises:
            InputError: the counter was made without ``steps=True``.
            CountError: nothing has been counted yet.

        Example:
            >>> import torch, fxsynops
            >>> model, x = torch.nn.Linear(2, 3), torch.tensor([[[2.0, 2.0], [1.0, 0.0]]])
            >>> counter = fxsynops.SynOpsCounter(model, x, layout="NT", steps=True)
            >>> _ = counter(x)
            >>> counter.per_step
            tensor([12.,  3.], dtype=torch.float64)
        """
        table = self.step_table()
        return None if table is None else table.sum((0, 2))

    def step_table(self) -> Tensor | None:
        """SynOps of the last forward: (connections, timesteps, samples), float64, differentiable.

        There is one sample where samples cannot be told apart. None if steps are not known; see
        :attr:`per_step`.

        Raises:
            InputError: the counter was made without ``steps=True``.
            CountError: nothing has been counted yet.
        """
        if not self._detail.steps:
            raise InputError(
                "this counter does not keep steps apart: make it with SynOpsCounter(..., "
                "steps=True)."
            )
        replay, tally = self.last
        if replay.per_step is None:
            return None
        table = replay.per_step(tally.parts)
        return table if replay.per_step.since == 0 else table.sum(1, keepdim=True)

    @property
    def rates(self) -> dict[str, FiringRates]:
        """Firing rates of every spiking node in the last forward, by name; differentiable.

        Each has ``.rates`` and ``.events`` of the neurons' shape, float64; those of all forwards
        since :meth:`clear` are in ``counts.rates``.

        Raises:
            InputError: the counter was made without ``rates=True``.
            CountError: nothing has been counted yet.
        """
        if not self._detail.rates:
            raise InputError(
                "this counter keeps no firing rates: make it with SynOpsCounter(..., rates=True)."
            )
        replay, tally = self.last
        return {firing.source: firing(tally.parts) for firing in replay.firing}

    @property
    def counts(self) -> Counts:
        """What was counted since :meth:`clear`. Reading it waits for a GPU.

        Raises:
            CountError: events were not numbers; names their source.
        """
        measured = {c.key: Measured(c) for c in self.analysis.connections}
        account = self._account
        if account.is_meta:
            raise CountError(
                "the model is on the meta device, where nothing has a value, so there are no "
                "counts. Ask for analysis.upper_bound(), or move the model to a real device."
            )
        account.settle()
        fired: dict[str, float] = {}
        active: dict[str, float] = {}
        macs = dict(account.macs)
        for total in account.totals.values():
            events, synops = total.both.tolist()
            for i, connection in enumerate(total.rows.connections):
                row = measured.setdefault(connection.key, Measured(connection))
                row.events += events[i]
                row.synops += synops[i]
                other = total.rows.arriving.get(connection.key)
                each = connection.arriving
                row.arrived += events[other] if other is not None else events[i] * (each or 0.0)
                row.largest = max(row.largest, float(total.largest))
            for name, i in total.rows.fired.items():
                fired[name] = fired.get(name, 0.0) + events[i]
            for name, i in total.rows.multiplied.items():
                active[name] = active.get(name, 0.0) + events[i]
        span = Span(account.samples, account.sample_steps)
        apart = account.fractions
        fractions = frozenset(name for name in apart if float(apart[name]) > _FRACTION)
        names = {
            key: (row.connection.synapse, row.connection.source, row.connection.measured_at)
            for key, row in measured.items()
        }
        extras = Extras(
            dict(account.rates),
            fractions=fractions,
            steps=account.steps.ended(account.at_hand).steps(names, self._options.dt),
            steps_unknown=account.steps.unknown,
            lengths=account.taken,
            fired=fired,
            macs=macs | active,
        )
        found = Counts.of(self.analysis, list(measured.values()), span, extras)
        return found if self._before is None else found.plus([self._before])

    def end_of_sample(self) -> None:
        """With ``layout="step"``: the next forward is the first step of other samples.

        Neuron states stay as they are: reset them as the model wants it.

        Example:
            >>> import torch, fxsynops
            >>> model = torch.nn.Linear(4, 3)
            >>> counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4), layout="step")
            >>> for _ in range(2):
            ...     for _ in range(10):
            ...         _ = counter(torch.ones(2, 4))
            ...     counter.end_of_sample()
            >>> counter.counts.samples, counter.counts.timesteps, counter.counts.total
            (4, 10, 480)
        """
        self._account.end()

    def clear(self) -> None:
        """Set the accumulated counts to zero. Neuron states stay as they are."""
        self._account.clear()
        self._before = None

    def progress(self) -> dict[str, Any]:
        """What has been counted since :meth:`clear`, to be saved with a checkpoint.

        Plain numbers, names and tensors: ``torch.load`` reads them with ``weights_only=True``.

        Raises:
            InputError: the counter was made with ``steps=True``: maxima over samples cannot go on.
            CountError: see :attr:`counts`.

        Example:
            >>> import torch, fxsynops
            >>> counter = fxsynops.SynOpsCounter(torch.nn.Linear(4, 3), torch.ones(2, 4))
            >>> y = counter(torch.ones(2, 4))
            >>> saved = counter.progress()
            >>> again = fxsynops.SynOpsCounter(torch.nn.Linear(4, 3), torch.ones(2, 4))
            >>> again.resume(saved)
            >>> y = again(torch.ones(2, 4))
            >>> again.counts.total, again.counts.samples
            (48, 4)
        """
        self._check_no_steps()
        return Numbers.of(self.counts).plain()

    def resume(self, progress: Mapping[str, Any]) -> None:
        """Go on from what :meth:`progress` has given, in place of what was counted so far.

        Args:
            progress: of a counter of the same model, with the same options.

        Raises:
            InputError: it is of another model, or the counter was made with ``steps=True``.
        """
        self._check_no_steps()
        self.clear()
        self._before = Numbers.of_plain(progress)
        try:
            self.counts  # noqa: B018
        except InputError:
            self._before = None
            raise

    def _check_no_steps(self) -> None:
        if self._detail.steps:
            raise InputError(
                "counts of each step cannot be taken up again: make the counter without steps=True."
            )

    def measure(
        self,
        loader: Iterable[Any],
        *,
        inputs: Callable[[Any], Any] | None = None,
        reset: Reset = True,
        device: torch.device | str | None = None,
        progress: bool | Console = True,
    ) -> Counts:
        """Run every batch of a loader through the model, and count.

        The model runs in eval mode and without gradients; modes are as before afterwards. The
        counter starts from zero. Ctrl-C returns what was counted so far.

        Args:
            loader: batches; of a tuple or list (inputs, labels, …), the first as many as the model
                takes, of a dict what the forward has parameters for, else the batch itself, is the
                input.
            inputs: gets the model's input (a tensor, or a tuple of arguments) out of a batch, if
                that is something else.
            reset: True, neurons of known libraries are reset before each batch by their libraries'
                own resets; a function of the model that resets its states; or False, states are
                carried over from batch to batch.
            device: where to move batches; by default, where the model's parameters are.
            progress: whether to show a bar with samples, SynOps so far and the time left (in a
                terminal only), or the console to show it on.

        Returns:
            counts of the whole data set. ``per_sample`` has mean, standard deviation, minimum and
            maximum (None if it is not known what belongs to which sample: the model mixes samples,
            or states are carried over; it is tried out by exchanging samples).
            After Ctrl-C ``partial`` is true, and ``samples`` says how many were counted.

        Raises:
            InputError: the loader has no batches, a batch holds no input, or the model keeps
                states of its own and ``reset`` does not say what to do with them.

        Example:
            >>> import torch, fxsynops
            >>> model = torch.nn.Linear(4, 3)
            >>> counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
            >>> counts = counter.measure([torch.ones(2, 4), torch.zeros(1, 4)])
            >>> counts.samples, counts.total, counts.per_sample.mean, counts.per_sample.max
            (3, 24, 8.0, 12.0)
        """
        found = measure(self, loader, inputs=inputs, reset=reset, device=device, progress=progress)
        assert isinstance(found, Counts)
        return found

    @contextmanager
    def sample_by_sample(self, reset: Callable[[], object]) -> Iterator[SamplesApart]:
        """Keep the samples of each forward apart, for as long as the context lasts.

        Args:
            reset: sets the model to where a batch starts.

        Yields:
            what tells them apart.
        """
        detail, replays = self._detail, self._replays
        self._detail, self._replays = replace(detail, samples=True), OrderedDict()
        try:
            yield SamplesApart(self.model, reset)
        finally:
            self._detail, self._replays = detail, replays

    def _grouped(self, attribute: str) -> dict[str, Tensor]:
        replay, tally = self.last
        rows: dict[str, list[int]] = {}
        for i, connection in enumerate(replay.analysis.connections):
            rows.setdefault(getattr(connection, attribute), []).append(i)
        synops = tally.both()[1]
        return {name: synops[numbers].sum() for name, numbers in rows.items()}

    # -- copies ----------------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        """Copies and pickles hold the model, and start to count anew."""
        return _rebuild, (type(self), self.model, self._example, self._options, self._detail)

    def _replicate_for_data_parallel(self) -> Any:
        """Refuse ``nn.DataParallel``, whose threads would count on copies that it throws away.

        Raises:
            InputError: always.
        """
        raise InputError(
            "nn.DataParallel makes copies of the counter for each forward, whose counts are lost. "
            "Use DistributedDataParallel, one process per device, and counter.counts.all_reduce()."
        )

    def __getattr__(self, name: str) -> Any:
        """The model's modules, parameters and buffers go by the names in the state dict."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            model = self.__dict__.get("_modules", {}).get("model")
            held = () if model is None else (model._modules, model._parameters, model._buffers)
            for entries in held:
                if name in entries:
                    return entries[name]
            raise

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """The model's modules go by its own names, and so do parameters and buffers."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self.model.named_modules(memo, prefix, remove_duplicate):
            yield (
                (f"{prefix}.model" if prefix else "model") if module is self.model else name,
                module,
            )

    def _fqn_modifiers(self) -> dict[str, str]:
        """What ``torch.distributed.checkpoint.state_dict`` finds behind the name "model"."""
        model = self.model
        return dict.fromkeys((*model._modules, *model._parameters, *model._buffers), "model")

    def extra_repr(self) -> str:
        """How many connections are counted."""
        return f"connections={len(self.analysis.connections)}"


def _warn(message: str) -> None:
    """Warn of the line that has called the counter: neither torch's nor the package's own."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith((HERE, TORCH)):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level + 1)


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a trace is valid for, beside its own conditions."""
    key = call_key(args, kwargs)
    if not torch._C._is_any_autocast_enabled():  # nearly always; and asks for no device
        return key, torch.is_grad_enabled()
    leaves = pytree.tree_leaves((args, kwargs))
    kinds = (leaf.device.type for leaf in leaves if isinstance(leaf, Tensor))
    return key, Mode.now(next((kind for kind in kinds if kind != "meta"), "cpu"))


def count(
    model: nn.Module,
    data: Any,
    *,
    layout: str = "auto",
    batch_size: int | None = None,
    timesteps: int | None = None,
    dt: float = 1.0,
    input_events: bool | Sequence[bool] | Literal["auto"] = "auto",
    spiking: Any = (),
    events: Events = "value",
    weights: Weights = "all",
    strict: bool = True,
    audit: bool = True,
    rates: bool = False,
    steps: bool = False,
    inputs: Callable[[Any], Any] | None = None,
    reset: Reset = True,
    device: torch.device | str | None = None,
    progress: bool | Console = True,
) -> Counts:
    """Count the SynOps of a model on data, in one call.

    The model runs in eval mode and without gradients; its modes are as before afterwards.

    Args:
        model: any module.
        data: a tensor, a tuple of the model's positional arguments, or a loader of batches. Of a
            batch that is a tuple or list (inputs, labels, …), the first as many as the model
            needs are its inputs, unless ``inputs`` says else.
        layout, batch_size, timesteps, dt, input_events, spiking, events, weights, strict, audit,
            rates, steps: see :class:`SynOpsCounter`. The first batch is the example.
        inputs, reset, device, progress: see :meth:`SynOpsCounter.measure`.

    Raises:
        FxSynopsError: see :class:`SynOpsCounter` and :meth:`SynOpsCounter.measure`.

    Example:
        >>> import torch, fxsynops
        >>> counts = fxsynops.count(torch.nn.Linear(4, 3), torch.ones(2, 4))
        >>> counts.total, counts.samples
        (24, 2)
    """
    example, batches = first_of(data, model, inputs, device)
    with evaluating(model):
        counter = SynOpsCounter(
            model,
            example,
            layout=layout,
            batch_size=batch_size,
            timesteps=timesteps,
            dt=dt,
            input_events=input_events,
            spiking=spiking,
            events=events,
            weights=weights,
            strict=strict,
            audit=audit,
            rates=rates,
            steps=steps,
        )
        return counter.measure(
            batches, inputs=inputs, reset=reset, device=device, progress=progress
        )


def _rebuild(
    cls: type[SynOpsCounter], model: nn.Module, example: Inputs, options: Options, detail: Detail
) -> Any:
    counter = cls.__new__(cls)
    nn.Module.__init__(counter)
    counter._begin(model, example, options, detail)
    return counter


def _without_prefix(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """The counter's state dict has the model's own keys."""
    for mapping in (state, getattr(state, "_metadata", {})):
        _rename(mapping, prefix + "model.", prefix)
        if prefix + "model" in mapping:
            mapping[prefix[:-1]] = mapping.pop(prefix + "model")


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """… and loads them."""
    _rename(state, prefix, prefix + "model.")


def _rename(mapping: dict[str, Any], old: str, new: str) -> None:
    """Give all keys that begin with ``old`` another beginning, in their order."""
    items = list(mapping.items())
    mapping.clear()
    for key, value in items:
        mapping[new + key[len(old) :] if key.startswith(old) else key] = value
