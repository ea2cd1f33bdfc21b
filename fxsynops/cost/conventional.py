"""The papers' convention: multiply-accumulates × rate × T, beside what is exact.

    counts.conventional, bound.conventional  -> Conventional    a row per synapse

Papers count the accumulates of a layer as its multiply-accumulates, padding included, times the
firing rate at its input, times T, and charge 0.9 pJ for each; and 4.6 pJ for each
multiply-accumulate of a layer with analog input (Horowitz, ISSCC 2014), mostly the first. The exact
count differs where events and weights meet in other places than the mean of both says:

    conventional − exact =  at padding     taps of the kernel that lie in the padding
                          + at borders     events where they reach fewer neurons than the mean
                          + scaled         events of 1/k each behind an average pool, each of which
                                           is a whole event for who counts events
                          + biases         which some tools count as further taps
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx

from fxsynops.connectivity.results import Connection, Findings, whole
from fxsynops.cost.layers import SynapseLayer, listed
from fxsynops.cost.workload import Flow
from fxsynops.operations.call import shape
from fxsynops.reporting.conventional_table import conventional_content
from fxsynops.reporting.report import Reported

MAC = 4.6e-12  # joules, 32-bit floating point in 45 nm
AC = 0.9e-12


@dataclass(frozen=True)
class ConventionalRow:
    """One synapse, for one sample.

    Attributes:
        layer: its name.
        kind: its operation.
        operations: multiply-accumulates of one step, padding (and biases) included.
        rate: mean of its input: events per element and step, of the size they have there; 1 if it
            is analog.
        steps: how many steps it runs in.
        analog: whether its input is.
        exact: SynOps, or multiply-accumulates without padding.
        at_padding, at_borders, scaled, biases: what makes the difference.
        sparse: whether weights that are zero do not count, and are among it.
    """

    layer: str
    kind: str
    operations: float
    rate: float
    steps: float
    analog: bool
    exact: float
    at_padding: float
    at_borders: float
    scaled: float
    biases: float
    sparse: bool = False

    @property
    def total(self) -> float:
        """Accumulates, or multiply-accumulates of analog input."""
        found = self.operations * self.rate * self.steps
        if not math.isfinite(found):
            return found
        return round(found) if abs(found - round(found)) < 1e-9 * found else found

    @property
    def difference(self) -> float:
        """How many more than there are."""
        return self.total - self.exact

    @property
    def energy(self) -> float:
        """Joules."""
        return self.total * (MAC if self.analog else AC)

    @property
    def why(self) -> str:
        """Where the difference comes from, in words and numbers."""
        zeros = "weights that are zero, and " if self.sparse else ""
        parts = {
            "taps in the padding": self.at_padding,
            f"{zeros}uneven events at borders": self.at_borders,
            "events that a pool makes smaller": self.scaled,
            "biases": self.biases,
        }
        said = [f"{value:+,.0f} {name}" for name, value in parts.items() if abs(value) >= 0.5]
        return ", ".join(said)


@dataclass(frozen=True)
class Conventional(Reported):
    """A model's operations as papers count them, beside the exact count. Prints as a table.

    Attributes:
        rows: one per synapse.
        name: the model's class.
        timesteps: steps of the sample.
        bound: whether these are of a bound or an estimate, and not of counts.
        remarks: what is left out, or assumed.
    """

    rows: tuple[ConventionalRow, ...]
    name: str
    timesteps: float
    bound: bool = False
    remarks: tuple[str, ...] = ()
    _biases: tuple[float, ...] = field(default=(), repr=False)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of synapses with analog input, per sample."""
        found: float = whole(math.fsum(row.total for row in self.rows if row.analog))
        return found

    @property
    def acs(self) -> float:
        """Accumulates of synapses that events come to, per sample."""
        found: float = whole(math.fsum(row.total for row in self.rows if not row.analog))
        return found

    def energy(self, per_mac: float = MAC, per_ac: float = AC) -> float:
        """Joules per sample: ``per_mac`` × MACs + ``per_ac`` × ACs.

        Args:
            per_mac, per_ac: joules each; 4.6 pJ and 0.9 pJ, if not given.
        """
        return per_mac * self.macs + per_ac * self.acs

    def with_biases(self) -> Conventional:
        """The same, with an operation for each bias of each output, as some tools count."""
        rows = [
            replace(
                row,
                operations=row.operations + each,
                biases=each * row.rate * row.steps,
            )
            for row, each in zip(self.rows, self._biases, strict=True)
        ]
        return replace(self, rows=tuple(rows), _biases=(0.0,) * len(rows))

    def _content(self) -> dict[str, Any]:
        return conventional_content(self)


def conventional_of(findings: Findings, flow: Flow, bound: bool = False) -> Conventional:
    """The operations of one sample, as papers count them.

    Args:
        findings: the analysis of its model.
        flow: what goes through it.
        bound: whether that is no measurement.
    """
    rows, biases = [], []
    for layer in flow.layers.synapses:
        for row in _rows(findings, layer, flow):
            rows.append(row)
            biases.append(layer.outputs if layer.has_bias else 0.0)
    remarks = list(flow.remarks(findings))
    if unknown := [row.layer for row in rows if math.isnan(row.rate)]:
        remarks.append(
            f"Not known: the rate of the first factor of {listed(unknown)}, and so the sum of ACs."
        )
    name, steps = findings.name, flow.timesteps
    return Conventional(tuple(rows), name, steps, bound, tuple(remarks), tuple(biases))


def _rows(findings: Findings, layer: SynapseLayer, flow: Flow) -> Iterator[ConventionalRow]:
    steps, sparse = layer.runs(flow.timesteps), findings.options.weights != "all"
    arriving = [row for row in flow.connections if row[0].calls.name == layer.name]
    if arriving:
        places = layer.inputs * steps
        each = [(_worth(findings, c), n) for c, _, n in arriving]
        rate = _ratio(math.fsum(worth * n for worth, n in each), places)
        whole_rate = _ratio(math.fsum(n for _, n in each), places)
        if arriving[0][0].taps[0].product is not None:
            rate = whole_rate = _rate_of_left(findings, arriving[0][0], flow)
        synops = math.fsum(synops for _, synops, _ in arriving)
        evenly = layer.macs * whole_rate * steps
        yield ConventionalRow(
            layer.name,
            layer.kind,
            layer.padded,
            rate,
            steps,
            False,
            whole(synops),
            at_padding=(layer.padded - layer.macs) * rate * steps,
            at_borders=evenly - synops,
            scaled=layer.macs * rate * steps - evenly,
            biases=0.0,
            sparse=sparse,
        )
    for row in findings.dense:
        if row.calls.name == layer.name:
            share = row.macs / layer.macs if arriving and layer.macs else 1.0  # beside events
            share *= layer.window / layer.steps if arriving else 1.0
            macs = flow.macs.get(row.synapse, 0.0)
            operations = layer.padded * share
            yield ConventionalRow(
                layer.name,
                layer.kind,
                operations,
                1.0,
                steps,
                True,
                whole(macs),
                at_padding=(layer.padded - layer.macs) * share * steps,
                at_borders=layer.macs * share * steps - macs,
                scaled=0.0,
                biases=0.0,
                sparse=sparse,
            )


def _worth(findings: Findings, connection: Connection) -> float:
    """The size of an event at the synapse's input, where it had that of one at its source."""
    roles, behind = findings.connector.signals.roles, findings.connector.signals.behind
    for node in connection.calls.calls:
        synapse = roles[node].synapse
        sources = behind(connection.taps[0].node)
        if synapse is None or not sources:
            continue
        there, here = (roles[n].signal.scale for n in (synapse.input, sources[0]))
        if here is None:
            continue
        if there is not None and there.fixed and here.fixed and here.factor:
            return abs(there.factor / here.factor)
    return 1.0


def _rate_of_left(findings: Findings, connection: Connection, flow: Flow) -> float:
    """Of a product of two activations, events per element and step of its first factor.

    NaN if that is not known: its events may be of several neurons, or pass a gate.
    """
    product = connection.taps[0].product
    assert product is not None
    roles, node = findings.connector.signals.roles, product.operands[0]
    while roles[node].kind == "routing" and len(roles[node].carriers) == 1:
        (node,) = roles[node].carriers
    if roles[node].kind == "product":
        for other, synops, _ in flow.connections:
            if node in other.calls.calls:
                return _ratio(synops, _places(findings, other.calls.calls, flow))
    name = findings.connector.names[node]
    alone = len(findings.spiking.get(name, ())) <= len(connection.calls.calls)
    if roles[node].kind != "source" or name not in flow.fired or not alone:
        return math.nan
    return _ratio(flow.fired[name], _places(findings, findings.spiking[name], flow))


def _places(findings: Findings, nodes: Sequence[fx.Node], flow: Flow) -> float:
    """Elements × steps of some values, for one sample."""
    window = findings.window
    elements = math.fsum(math.prod(shape(node)) for node in nodes) / window.samples
    return elements * flow.timesteps / window.timesteps


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
