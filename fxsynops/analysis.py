"""Static analysis: which synapses every spiking node drives, and how many, before any data.

analyze(model, example)
  find         trace, classify, connect     (fxsynops.connectivity.find)
  Analysis     what was found; .upper_bound(), .counter(), and its report
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fxsynops.bounds.bound import estimate, upper_bound
from fxsynops.bounds.events_per_step import Assumptions, Interval
from fxsynops.connectivity.connect import Unresolved
from fxsynops.connectivity.find import find, with_known_inputs
from fxsynops.connectivity.results import Events, Findings, Options, Weights, without_values
from fxsynops.connectivity.signals import State
from fxsynops.cost.chips import Chip
from fxsynops.cost.fit import Fit, fit
from fxsynops.counting.audit import audit as audit_of
from fxsynops.errors import AuditError, InputError, TraceError
from fxsynops.operations.registry import is_torch
from fxsynops.reporting.analysis_table import analysis_content
from fxsynops.reporting.report import Reported
from fxsynops.results import Audit, Bound
from fxsynops.tracing.borrowed import Snapshot
from fxsynops.tracing.devices import own_device
from fxsynops.tracing.inputs import Inputs, Layout, check_devices, check_events, check_not_nested
from fxsynops.tracing.sharded import check_whole
from fxsynops.tracing.witness import Witness

if TYPE_CHECKING:
    from fxsynops.counter import SynOpsCounter


@dataclass(frozen=True)
class Analysis(Findings, Reported):
    """What :func:`analyze` found. Prints as a table.

    Attributes:
        connections: one :class:`Connection` per source and synapse, in the order of the graph.
        dense: one :class:`DenseSynapse` per synapse with analog input.
        unresolved: what no rule covers (with ``strict=False``; otherwise it is an error).
        specialized: where the model branches on data; it holds for the example's branches.
        window: samples and time steps of the example.
        audit: what the model did with the example, beside what the analysis makes of it.
    """

    audit: Audit = Audit((), ("not audited",))

    @classmethod
    def of(cls, findings: Findings, audit: Audit | None = None) -> Analysis:
        """What was found, with everything that can be done with it."""
        found = {entry.name: getattr(findings, entry.name) for entry in fields(Findings)}
        return cls(**found, audit=audit or Audit((), ("not audited",)))

    def counter(self, *, rates: bool = False, steps: bool = False) -> SynOpsCounter:
        """A module that runs the model and counts its SynOps; see :class:`SynOpsCounter`.

        Args:
            rates, steps: whether to keep firing rates, and time steps, apart.
        """
        from fxsynops.counter import SynOpsCounter

        return SynOpsCounter.of(self, rates=rates, steps=steps)

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
        layout = self.options.layout
        known = layout.timesteps if layout.by_step else None
        steps = known or self.window.timesteps if timesteps is None else timesteps
        with own_device(), unset_fake_temporarily():
            if rate is not None:
                present = self._of_length(self.window.timesteps)
                return Bound.of(estimate(present, steps, rate))
            check_whole(self.model)
            assumptions = Assumptions(steps, max_spikes, input_max_events, input_range)
            return Bound.of(upper_bound(self._of_length(steps), assumptions))

    def fits(self, chip: str | Chip) -> Fit:
        """Whether the network fits a chip: every limit, layer by layer, and on which cores.

        Args:
            chip: a name ("speck2f", "loihi", …; see ``fxsynops.chips.chips()``), or your own
                :class:`fxsynops.chips.Chip`.

        Raises:
            InputError: there is no such chip, or the analysis left something unresolved.

        Example:
            >>> import torch, fxsynops
            >>> model = torch.nn.Sequential(torch.nn.Conv2d(2, 17, 3, padding=1), fxsynops.nn.IAF())
            >>> analysis = fxsynops.analyze(model, torch.ones(1, 2, 64, 64), layout="N")
            >>> fit = analysis.fits("speck2f")
            >>> fit.ok, [str(check) for check in fit.broken("0")]
            (False, ['Neuron memory 69,632, at most 65,536'])
        """
        return fit(self, chip)

    def _of_length(self, steps: int) -> Findings:
        """The analysis of as many steps, where the inputs say how many there are."""
        layout, example = self.options.layout.resized(self.example, self.window, "T", steps)
        synapses = dict.fromkeys(connection.calls for connection in self.connections)
        follows = self.options.weights != "all" or any(
            any(self.connector.followed(synapse)) for synapse in synapses
        )
        as_it_is = not follows and self.trace.conditions.hold()
        if example is self.example and as_it_is:
            return self
        try:
            return find(self.model, example, replace(self.options, layout=layout))
        except TraceError as error:
            raise InputError(
                f"the model does not run for {steps} steps, so there is no bound for them: {error}"
            ) from error

    def _content(self) -> dict[str, Any]:
        return analysis_content(self)


def analyze(
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
) -> Analysis:
    """Find every connection of ``model`` and the fan-out of its neurons.

    The model runs once on the example and is afterwards exactly as before.

    Args:
        model: any ``nn.Module``.
        example: a tensor, a tuple of the model's positional arguments, or a dict of all of them by
            the names of the parameters. A dict that is an argument itself comes in a tuple.
        layout: what the axes of the inputs are. "auto": as the model's neurons tell it; the tables
            say how, or that the steps are unknown. Else the leading axes: "N" samples, "NT" samples
            and time steps, "TN", "T", "" for a single sample, "(NT)" or "(TN)" for one merged axis,
            "N…T" and the like with time inside; "step" for a model whose forward is one step.
        batch_size, timesteps: what the shape does not tell; both for a loop over a static input.
        dt: length of a time step in milliseconds.
        input_events: whether the inputs carry events; one bool per tensor argument, or one for all.
            "auto": small whole numbers do, fractions, images and token ids do not.
        spiking: further spiking sources: types of modules, functions of torch's (``F.relu``, as
            ``nn.ReLU``, which calls it), names of single modules.
        events: "value", an event of value v counts |v| and is measured at the source;
            "nonzero", every non-zero element counts one, measured at the synapse's input.
        weights: "all", or "nonzero" to count only synapses whose weight is not zero.
        strict: raise when an operation between a source and a synapse is not understood,
            instead of listing it in ``unresolved``.
        audit: hold the analysis against what the model did with the example; see
            :attr:`Analysis.audit`.

    Raises:
        InputError: the example or an option does not fit the model.
        TraceError: the model cannot be recorded.
        UnsupportedOperationError: see ``strict``.
        AuditError: the audit disagrees, and ``strict`` is true.

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
    from fxsynops.counter import SynOpsCounter

    for name, part in model.named_modules():
        if isinstance(part, SynOpsCounter):
            where = f"'{name}' is" if name else "this is"
            raise InputError(
                f"{where} a SynOpsCounter already. Pass the model that it counts (its .model)."
            )
    if not isinstance(input_events, bool | list | tuple) and input_events != "auto":
        raise InputError(
            f"input_events is 'auto', a bool, or one per tensor, not {input_events!r}."
        )
    options = Options(
        Layout.of(layout, batch_size, timesteps),
        _positive("dt", dt),
        input_events if isinstance(input_events, bool | str) else tuple(input_events),
        _spiking(spiking),
        _one_of("events", events, ("value", "nonzero")),
        _one_of("weights", weights, ("all", "nonzero")),
        strict,
    )
    inputs = Inputs.of_example(model, example)
    check_devices(model, inputs)
    check_not_nested(inputs)
    if input_events != "auto" and options.events == "value":
        looked = with_known_inputs(options, inputs).looked
        for name, tensor in inputs.tensors():
            if looked[name][0]:
                check_events(name, tensor)
    with own_device():
        if audit:
            return audited(model, inputs, options)
        return Analysis.of(find(model, inputs, options))


def audited(
    model: nn.Module, inputs: Inputs, options: Options, known: dict[str, State] | None = None
) -> Analysis:
    """An analysis and its audit.

    Raises:
        AuditError: they disagree, and the options are strict.
    """
    before, witness = Snapshot(model), Witness()
    findings = find(model, inputs, options, known, witness)
    if without_values(findings):
        return Analysis.of(findings, Audit((), ("nothing to audit: the model has no values",)))
    found = Audit.of(audit_of(findings, witness, before.changes()))
    if found.ok:
        return Analysis.of(replace(findings, doubts=(*findings.doubts, *found.notes)), found)
    if options.strict:
        raise AuditError(found.explain())
    wrong = [row for row in found.rows if row.agrees is False]
    unresolved = (
        *findings.unresolved,
        *(Unresolved(r.synapse, "audit", "", str(r)) for r in wrong),
    )
    doubts = (*findings.doubts, *found.faults, *found.notes)
    return Analysis.of(replace(findings, unresolved=unresolved, doubts=doubts), found)


def _spiking(spiking: Any) -> tuple[type | str, ...]:
    """Module types and names; a function of torch's stands for the module that calls it."""
    given = tuple(spiking) if isinstance(spiking, (tuple, list, set)) else (spiking,)
    found: list[type | str] = []
    layers = {name.lower(): kind for name, kind in vars(nn).items() if isinstance(kind, type)}
    for entry in given:
        layer = layers.get(str(getattr(entry, "__name__", "")).replace("_", ""))
        if isinstance(entry, type | str):
            found.append(entry)
        elif callable(entry) and layer is not None and is_torch(entry):
            found.append(layer)
        else:
            raise InputError(
                f"spiking= takes module types (nn.ReLU), functions of torch's (F.relu) and names "
                f"of modules ('encoder.act'), not {entry!r}. A function of your own can be "
                "registered: fxsynops.register_spiking."
            )
    return tuple(found)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise InputError(f"{name}={value!r} is none of {', '.join(map(repr, allowed))}.")
    return value


def _positive(name: str, value: float) -> float:
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name} must be positive, not {value!r}.")
    return float(value)
