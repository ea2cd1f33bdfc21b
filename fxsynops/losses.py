"""Terms to add to a task's loss, so that training leads to fewer SynOps (Sorbaro et al. 2020).

Each takes a counter after a forward, and is differentiable by what the count is differentiable by.
Targets and limits are SynOps per sample and time step (rates: events per neuron and step), so that
neither the batch nor the number of steps changes their scale; ``per="pass"`` takes the raw count of
the whole pass, as the how-to of sinabs does.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

from fxsynops.counter import SynOpsCounter
from fxsynops.errors import InputError

Per = Literal["step", "pass"]
LimitPer = Literal["step", "pass", "peak"]


def target_loss(counter: SynOpsCounter, target: float | Tensor, *, per: Per = "step") -> Tensor:
    """The relative square of the distance to a target: ``((target - synops) / target) ** 2``.

    Args:
        counter: after the forward whose SynOps count.
        target: SynOps to reach, such as half of what the network costs at first.
        per: "step", the target is per sample and time step; "pass", of the whole pass.

    Returns:
        0-d, float64; 1 at no SynOps or twice the target.

    Raises:
        InputError: the target is not positive.
        CountError: nothing has been counted yet.

    Example:
        >>> import torch, fxsynops
        >>> model = torch.nn.Linear(4, 3)
        >>> counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
        >>> _ = counter(torch.ones(2, 4))  # 4 events × fan-out 3 per sample
        >>> float(fxsynops.losses.target_loss(counter, 6))
        1.0
    """
    goal = _positive(target, "target")
    return ((goal - _scaled(counter, counter.synops, per)) / goal).square()


def limit_loss(
    counter: SynOpsCounter, limits: dict[str, float], *, per: LimitPer = "step"
) -> Tensor:
    """How far layers are above their limits: the sum of ``relu((synops - limit) / limit)``.

    Args:
        counter: after the forward whose SynOps count.
        limits: by the name of a synapse (a key of ``counter.per_synapse``), as a chip's cores set
            them; layers without a limit do not matter.
        per: see :func:`target_loss`; or "peak", of the step with the most SynOps of any sample,
            which needs a counter made with ``steps=True``.

    Returns:
        0-d, float64; 0 where all limits are kept.

    Raises:
        InputError: a limit is not positive, or of a layer that does not exist, or the steps are
            not known.
        CountError: nothing has been counted yet.

    Example:
        >>> import torch, fxsynops
        >>> model = torch.nn.Linear(4, 3)
        >>> counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
        >>> _ = counter(torch.ones(2, 4))
        >>> float(fxsynops.losses.limit_loss(counter, {"linear": 8.0}))
        0.5
    """
    layers = _peaks(counter) if per == "peak" else counter.per_synapse
    if missing := set(limits) - set(layers):
        raise InputError(
            f"limits names {sorted(missing)}, which are no synapses of this model. "
            f"Its synapses are {sorted(layers)}."
        )
    if not limits:
        raise InputError("limits is empty: name at least one layer and its limit.")
    excess = []
    for name, given in limits.items():
        limit = _positive(given, f"limit of '{name}'")
        synops = layers[name] if per == "peak" else _scaled(counter, layers[name], per)
        excess.append(torch.relu((synops - limit) / limit))
    return torch.stack(excess).sum()


def rate_floor_loss(counter: SynOpsCounter, floor: float | dict[str, float]) -> Tensor:
    """How far neurons fire below a rate: ``relu(1 - rate / floor)``.

    It is the mean over the neurons of a source, added up over sources.

    A silent neuron counts one, so that without a floor, a low target for SynOps may leave a layer
    without any. Silent neurons learn from it through their surrogate gradient.

    Args:
        counter: made with ``rates=True``, after a forward.
        floor: events per neuron and step, for all spiking nodes, or by the name of a source (a key
            of ``counter.rates``); sources without a floor do not matter.

    Returns:
        0-d, float64; 0 where every neuron fires often enough, one per source if all are silent.

    Raises:
        InputError: the floor is not positive, or of a source that does not exist, or the counter
            keeps no rates.
        CountError: nothing has been counted yet.

    Example:
        >>> import torch, fxsynops
        >>> model = torch.nn.Sequential(fxsynops.nn.NeuromorphicReLU(), torch.nn.Linear(2, 3))
        >>> x = torch.tensor([[1.0, 0.0]])  # of two neurons, one is silent
        >>> counter = fxsynops.SynOpsCounter(model, x, input_events=False, rates=True)
        >>> _ = counter(x)
        >>> float(fxsynops.losses.rate_floor_loss(counter, 0.5))
        0.5
    """
    rates = _rates(counter, floor, "floor")
    return torch.stack([torch.relu(1 - rate / low).mean() for rate, low in rates]).sum()


def rate_ceiling_loss(counter: SynOpsCounter, ceiling: float | dict[str, float]) -> Tensor:
    """How far neurons fire above a rate: ``relu(rate / ceiling - 1)``.

    It is the mean over the neurons of a source, added up over sources.

    Args:
        counter: made with ``rates=True``, after a forward.
        ceiling: events per neuron and step; see :func:`rate_floor_loss`.

    Returns:
        0-d, float64; 0 where no neuron fires too often.

    Raises:
        InputError: see :func:`rate_floor_loss`.
        CountError: nothing has been counted yet.

    Example:
        >>> import torch, fxsynops
        >>> model = torch.nn.Sequential(fxsynops.nn.NeuromorphicReLU(), torch.nn.Linear(2, 3))
        >>> x = torch.tensor([[3.0, 0.0]])  # one of two neurons fires three times
        >>> counter = fxsynops.SynOpsCounter(model, x, input_events=False, rates=True)
        >>> _ = counter(x)
        >>> float(fxsynops.losses.rate_ceiling_loss(counter, 1.0))
        1.0
    """
    rates = _rates(counter, ceiling, "ceiling")
    return torch.stack([torch.relu(rate / high - 1).mean() for rate, high in rates]).sum()


def _rates(
    counter: SynOpsCounter, given: float | dict[str, float], what: str
) -> list[tuple[Tensor, float | Tensor]]:
    """The rates of the neurons of each source, and what is asked of them."""
    rates = counter.rates
    if not rates:
        raise InputError("the model has no spiking node, so there are no firing rates.")
    wanted = given if isinstance(given, dict) else dict.fromkeys(rates, given)
    if missing := set(wanted) - set(rates):
        raise InputError(
            f"{what} names {sorted(missing)}, which are no spiking nodes of this model. "
            f"Its spiking nodes are {sorted(rates)}."
        )
    if not wanted:
        raise InputError(f"{what} is empty: name at least one source and its {what}.")
    return [
        (rates[name].rates, _positive(rate, f"{what} of '{name}'")) for name, rate in wanted.items()
    ]


def _peaks(counter: SynOpsCounter) -> dict[str, Tensor]:
    """The most SynOps of a sample in one step, by synapse."""
    table = counter.step_table()
    if table is None:
        raise InputError(f"the steps are not known: {counter.counts.steps_unknown}.")
    rows: dict[str, list[int]] = {}
    for i, connection in enumerate(counter.latest.connections):
        rows.setdefault(connection.synapse, []).append(i)
    if table.shape[2] < counter.window.samples:
        table = table / counter.window.samples  # of the mean sample: they are not told apart
    return {name: table[numbers].sum(0).amax() for name, numbers in rows.items()}


def _scaled(counter: SynOpsCounter, synops: Tensor, per: Per) -> Tensor:
    if per not in ("step", "pass"):
        raise InputError(f"per={per!r} is neither 'step' nor 'pass' (limits: nor 'peak').")
    window = counter.window
    return synops if per == "pass" else synops / (window.samples * window.timesteps)


def _positive(value: float | Tensor, what: str) -> float | Tensor:
    if isinstance(value, Tensor):  # computed, perhaps on a GPU that nobody wants to wait for
        return value.detach()
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < value < math.inf:
        raise InputError(f"the {what} must be a positive number, not {value!r}.")
    return float(value)
