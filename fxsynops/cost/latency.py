"""How long a chip takes for a sample, and what it costs there. An estimate.

In a step, a core visits its neurons and sends their spikes, and receives those of others; all cores
at once, and each both at once. A step is over when the last one is done, and all have said so:

    sending    = neurons · neuron_ns + active · update_ns
                 + spikes · (spike_ns + cores · message_out_ns)
    receiving  = messages · message_in_ns + synaptic events · synapse_ns
    step       = max over cores of max(sending, receiving) + barrier

which is how SANA-FE combines them (Boyle et al., IEEE TCAD 44, 2025). Here events are spread evenly
over the steps and over the cores of a layer, and every neuron is active in every step: real steps
differ, and the slowest one may take longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fxsynops.cost.chips import Chip, EventCosts
from fxsynops.cost.fit import Fit, Place
from fxsynops.cost.workload import Flow
from fxsynops.errors import InputError
from fxsynops.reporting.latency_table import latency_content
from fxsynops.reporting.report import Reported


@dataclass(frozen=True)
class LatencyRow:
    """One layer, in the mean step of a sample.

    Attributes:
        layer: the synapse that drives the neurons.
        cores: how many it lies on.
        neurons: how many there are.
        spikes: that they fire.
        messages: that come in, of all its cores.
        synops: synaptic events.
        sending, receiving: seconds that each of its cores takes.
        energy: joules.
    """

    layer: str
    cores: int
    neurons: float
    spikes: float
    messages: float
    synops: float
    sending: float
    receiving: float
    energy: float


@dataclass(frozen=True)
class Latency(Reported):
    """Time and energy of one sample on a chip: an estimate. Prints as a table.

    Attributes:
        chip: the chip.
        rows: one per layer.
        barrier: seconds until all cores have ended a step.
        timesteps: steps of a sample.
        name: the model's class.
        fits: whether the network fits the chip.
    """

    chip: Chip
    rows: tuple[LatencyRow, ...]
    barrier: float
    timesteps: float
    name: str
    fits: bool

    @property
    def step(self) -> float:
        """Seconds per step."""
        return max((max(r.sending, r.receiving) for r in self.rows), default=0.0) + self.barrier

    @property
    def latency(self) -> float:
        """Seconds per sample."""
        return self.step * self.timesteps

    @property
    def throughput(self) -> float:
        """Samples per second, one after the other."""
        return 1 / self.latency if self.latency else math.inf

    @property
    def energy(self) -> float:
        """Joules per sample."""
        return math.fsum(row.energy for row in self.rows) * self.timesteps

    def _content(self) -> dict[str, Any]:
        return latency_content(self)


def latency_of(fit: Fit, flow: Flow) -> Latency:
    """Time and energy of one sample.

    Args:
        fit: how the network lies on the chip.
        flow: what goes through it in a sample.

    Raises:
        InputError: nothing is known of what events cost on the chip.
    """
    costs = fit.chip.cost
    if costs is None:
        raise InputError(
            f"no figures are known for how long events take on {fit.chip.title}. Give a chip with "
            "some: fxsynops.chips.Chip(..., cost=EventCosts(...))."
        )
    rows = [_row(place, fit, flow, costs) for place in fit.places]
    barrier = costs.barrier(sum(row.cores for row in rows)) * 1e-9
    return Latency(fit.chip, tuple(rows), barrier, flow.timesteps, fit.name, fit.ok)


def _row(place: Place, fit: Fit, flow: Flow, costs: EventCosts) -> LatencyRow:
    shape, cores = place.shape, len(place.cores)
    each = 1 / flow.timesteps
    belong = {s.layer.name for s in fit.shapes if s.layer.drives == shape.layer.name}
    here = [row for row in flow.connections if row[0].calls.name in belong]
    synops = math.fsum(cost for _, cost, _ in here) * each
    arriving: dict[str, float] = {}  # a spike comes once, however many synapses it has there
    for connection, _, events in here:
        known = arriving.get(connection.measured_at, 0.0)
        arriving[connection.measured_at] = max(known, events)
    came = math.fsum(arriving.values()) * each * cores
    spikes = math.fsum(flow.fired.get(name, 0.0) for name in shape.driven) * each
    behind = sum(len(p.cores) for p in fit.places if p.shape.layer.name in shape.behind)
    visits = shape.neurons * (costs.neuron_ns + costs.update_ns)
    sending = visits + spikes * (costs.spike_ns + behind * costs.message_out_ns)
    receiving = came * costs.message_in_ns + synops * costs.synapse_ns
    picojoules = (
        shape.neurons * (costs.neuron_pj + costs.update_pj)
        + spikes * costs.spike_pj
        + came * costs.message_pj
        + synops * costs.synapse_pj
    )
    return LatencyRow(
        shape.layer.name,
        cores,
        shape.neurons,
        spikes,
        came,
        synops,
        sending / cores * 1e-9,
        receiving / cores * 1e-9,
        picojoules * 1e-12,
    )
