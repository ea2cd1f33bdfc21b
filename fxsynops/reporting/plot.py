"""Pictures of results with matplotlib: ``pip install "fxsynops[plot]"``.

``synops``, ``steps`` and ``training`` show counts, ``rates`` the firing of neurons, and
``fanout_map`` what an analysis found. Each draws into axes that it is given, or into a new figure,
and returns the axes.

Example:
    >>> import torch, fxsynops
    >>> from fxsynops import plot
    >>> model = torch.nn.Conv2d(1, 4, 3, padding=1)
    >>> analysis = fxsynops.analyze(model, torch.ones(1, 1, 8, 8))
    >>> plot.fanout_map(analysis).get_title()
    'Fan-out of input → conv2d'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from torch import Tensor

from fxsynops.bounds.bound import Bounded
from fxsynops.connectivity.results import Connection, Findings
from fxsynops.counting.counts import Counted
from fxsynops.counting.firing_rates import FiringRates
from fxsynops.errors import InputError
from fxsynops.reporting.report import count_of

_DECADES = 2.5  # between the shortest bar and the longest, from which on an axis is logarithmic
_ROW = 64  # neurons of one axis that fit into a row


def synops(
    counts: Counted, bound: Bounded | None = None, *, ax: Axes | None = None, top: int = 20
) -> Axes:
    """SynOps of each layer as bars, inside of those of the bound.

    Args:
        counts: what was measured; bars are per sample.
        bound: of the same model; where it is finite, it shows as a wider, lighter bar. Bars are
            then of as many steps as the bound's window has.
        ax: where to draw; a new figure if None.
        top: how many layers have a bar of their own: the heaviest, in the model's order. The
            others share one.

    Raises:
        InputError: nothing has been counted, the bound is of another model, or ``top`` is no
            positive whole number.
    """
    if not isinstance(top, int) or top < 1:
        raise InputError(f"top is how many layers have a bar of their own, not {top!r}.")
    if not counts.samples:
        raise InputError("nothing has been counted yet: run the counter on data first.")
    steps = counts.timesteps if bound is None else bound.timesteps
    if bound is not None:
        bound = bound.compare(counts)
    scale = steps / counts.timesteps / counts.samples
    bars = _by_layer((row.connection.synapse, row.synops * scale) for row in counts.rows)
    marks = _by_layer((r.connection.synapse, r.charge) for r in bound.rows) if bound else {}
    heaviest = set(sorted(bars, key=bars.__getitem__, reverse=True)[:top])
    others = [name for name in bars if name not in heaviest]
    if others:
        rest = f"… {len(others)} more"
        bars = {n: v for n, v in bars.items() if n in heaviest} | {
            rest: math.fsum(bars[n] for n in others)
        }
        marks[rest] = math.fsum(marks.get(n, math.inf) for n in others)
    if ax is None:
        ax = _figure(7.0, (1.7 if bound else 1.3) + 0.28 * len(bars))
    found = [(marks[n], i) for i, n in enumerate(bars) if math.isfinite(marks.get(n, math.inf))]
    if found:
        most, rows = zip(*found, strict=True)
        ax.barh(rows, most, color="C0", alpha=0.25, height=0.8, label="at most (bound)")
    height = 0.4 if found else 0.8
    ax.barh(range(len(bars)), list(bars.values()), color="C0", height=height, label="measured")
    ax.set_yticks(range(len(bars)), list(bars))
    ax.invert_yaxis()
    values = [value for value in (*bars.values(), *(mark for mark, _ in found)) if value > 0]
    if values and math.log10(max(values) / min(values)) > _DECADES:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=4))
        ax.set_xlim(min(values) / 3, max(values) * 40)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlim(0, (1.45 if found else 1.25) * max(values, default=1.0))
    _label(ax, bars, marks)
    if found:
        above = (1.0, 1.0)
        ax.legend(loc="lower right", bbox_to_anchor=above, ncols=2, fontsize="small", frameon=False)
    _finish(ax, f"SynOps of {counts.model}", _per_sample(steps, counts.dt), "layer")
    if found:  # beside the legend
        ax.set_title(ax.get_title(), fontsize="medium", loc="left")
        ax.set_title("")
    ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
    if ax.get_xscale() == "log":
        ax.set_xlabel(f"{ax.get_xlabel()}, logarithmic")
    return ax


def steps(
    counts: Counted,
    max_synops_per_second: float | None = None,
    *,
    ax: Axes | None = None,
    top: int = 8,
) -> Axes:
    """SynOps over time, stacked by layer, against a budget.

    Args:
        counts: of a counter made with ``steps=True``; what is shown is the mean of the samples,
            and a line is the most of any sample.
        max_synops_per_second: of a chip, a line; none if None.
        ax: where to draw; a new figure if None.
        top: how many layers have a color of their own: the heaviest. The others share one.

    Raises:
        InputError: the steps were not kept apart or are not known, or ``top`` is no positive
            whole number.
    """
    if not isinstance(top, int) or top < 1:
        raise InputError(f"top is how many layers have a color of their own, not {top!r}.")
    counts.peak()  # or the reason why there are no steps
    found = counts.steps
    assert found is not None
    layers: dict[str, np.ndarray[Any, Any]] = {}
    for row in found.rows:
        layers[row.synapse] = layers.get(row.synapse, 0.0) + np.array(row.mean)
    heaviest = sorted(layers, key=lambda name: -layers[name].sum())[:top]
    shown = {name: values for name, values in layers.items() if name in heaviest}
    if others := [values for name, values in layers.items() if name not in heaviest]:
        shown[f"… {len(others)} more"] = np.sum(others, axis=0)
    own = ax is None
    if ax is None:
        ax = _figure(7.0, 4.0)
    below, places = np.zeros(len(found.samples)), np.arange(len(found.samples))
    for i, (name, values) in enumerate(shown.items()):
        ax.bar(places, values, 0.9, below, color=f"C{i % 10}", label=name)
        below = below + values
    if found.total.max is not None and sum(found.samples) > len(found.samples):
        ax.step(places, found.total.max, where="mid", color="0.2", lw=1, label="most of a sample")
    if max_synops_per_second is not None:
        limit = max_synops_per_second * counts.dt / 1000
        ax.axhline(limit, color="C3", linestyle="--", label=f"budget ({_thousands(limit)})")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if own:
        ax.figure.legend(loc="outside right upper", fontsize="small")
    else:
        ax.legend(loc="best", fontsize="small")
    _finish(ax, f"SynOps of {counts.model} over time", f"step of {counts.dt:g} ms", "")
    ax.set_ylabel("SynOps per sample and step")
    ax.yaxis.set_major_formatter(FuncFormatter(_thousands))
    return ax


def fanout_map(
    connection_or_analysis: Connection | Findings,
    synapse: str | None = None,
    *,
    channel: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """The fan-out of each neuron of a connection's source, as an image.

    Args:
        connection_or_analysis: the connection, or an analysis that has it.
        synapse: of an analysis, which synapse; may be left out if there is only one.
        channel: of a source with more than two axes, which entry of all axes but the last two,
            counted through. A source with one axis shows as a row, or folded into several.
        ax: where to draw; a new figure if None.

    Raises:
        InputError: there is no such synapse or channel, or several sources of the synapse differ
            in their maps.
    """
    connections = _connections(connection_or_analysis, synapse)
    planes = [_plane(connection, channel) for connection in connections]
    first = connections[0]
    if any(not torch.equal(plane, planes[0]) for plane in planes):
        raise InputError(
            f"the sources of '{first.synapse}' differ in their maps: "
            f"{', '.join(repr(c.label) for c in connections)}. Pass one of analysis.connections."
        )
    image = planes[0]
    if len(first.shape) < 2:
        image = _folded(image.flatten())
    if ax is None:
        wide = image.shape[1] > 4 * image.shape[0]
        ax = _figure(7.0 if wide else 5.0, 2.2 if wide else 4.2)
    shown = ax.imshow(image.numpy(), interpolation="nearest", vmin=min(0.0, float(planes[0].min())))
    bar = ax.figure.colorbar(shown, ax=ax, label="fan-out (synapses per event)")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(_thousands))
    sources = ", ".join(c.label for c in connections)
    title = f"Fan-out of {sources} → {first.synapse}"
    if math.prod(first.shape[:-2]) > 1:
        title += f", channel {channel}"
    if len(title) > 45:
        title = title.replace(" → ", "\n→ ")
    folded = len(first.shape) < 2 and image.shape[0] > 1
    down, across = _axes_of(first)
    _finish(ax, title, across, "")
    ax.set_ylabel(f"row of {image.shape[1]:,} neurons" if folded else down)
    for axis, size in ((ax.xaxis, image.shape[1]), (ax.yaxis, image.shape[0])):
        axis.set_major_locator(MaxNLocator(min(size, 8), integer=True))
    if image.shape[0] == 1:
        ax.set_yticks([])
        ax.set_ylabel("")
    return ax


def rates(
    rates_by_source: Mapping[str, FiringRates],
    *,
    bins: int = 20,
    axes: Iterable[Axes] | None = None,
) -> np.ndarray[Any, np.dtype[np.object_]]:
    """How often neurons fire: a histogram for each source.

    Args:
        rates_by_source: ``counter.rates``, or ``counter.counts.rates`` for all forwards.
        bins: intervals between zero and the largest rate of a source.
        axes: where to draw, one for each source; a new figure if None.

    Returns:
        the axes, (sources,).

    Raises:
        InputError: no rates were kept, there are fewer axes than sources, or ``bins`` is no
            positive whole number.
    """
    if not rates_by_source:
        raise InputError(
            "there are no firing rates: make the counter with SynOpsCounter(..., rates=True) and "
            "run it on data."
        )
    if not isinstance(bins, int) or bins < 1:
        raise InputError(f"bins is a positive whole number, not {bins!r}.")
    found = _grid(len(rates_by_source)) if axes is None else list(np.ravel(np.asarray(axes)))
    if len(found) < len(rates_by_source):
        raise InputError(
            f"there are {len(found)} axes for {len(rates_by_source)} sources "
            f"({', '.join(rates_by_source)})."
        )
    for ax, (name, firing) in zip(found, rates_by_source.items(), strict=False):
        heights, edges = (tensor.numpy() for tensor in firing.histogram(bins))
        ax.bar(edges[:-1], heights, np.diff(edges), align="edge", color="C0")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(_thousands))
        _finish(ax, f"{name}\n{firing.silent:.1%} silent", "events per step", "neurons")
    return np.array(found[: len(rates_by_source)], dtype=object)


def training(
    synops: Sequence[float | Tensor] | Tensor,
    target: float | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """SynOps over the steps of a training, against the target.

    Args:
        synops: after each training step, SynOps per sample and time step (what ``target_loss``
            compares with its target).
        target: the same of the target.
        ax: where to draw; a new figure if None.

    Raises:
        InputError: there are no SynOps to show.
    """
    values = [float(value.detach() if isinstance(value, Tensor) else value) for value in synops]
    if not values:
        raise InputError("there are no SynOps to show: append counter.synops after each step.")
    if ax is None:
        ax = _figure(7.0, 4.0)
    marker = "." if len(values) < 40 else ""
    ax.plot(range(1, len(values) + 1), values, color="C0", marker=marker, label="measured")
    if target is not None:
        words = f"target ({_thousands(target)})"
        ax.axhline(float(target), color="C3", linestyle="--", label=words)
        ax.legend(loc="best")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _finish(ax, "SynOps in training", "training step", "SynOps per sample and time step")
    ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
    ax.yaxis.set_major_formatter(FuncFormatter(_thousands))
    return ax


def _axes_of(connection: Connection) -> tuple[str, str]:
    """What the last two axes of a source are, as its synapse takes them."""
    axes = len(connection.shape)
    if axes < 2:
        return "", "neuron"
    if connection.kind.endswith("1d"):
        return "channel", "position"
    if connection.kind.startswith("conv"):
        return "row", "column"
    names = {"linear": "feature"}
    return f"axis {axes - 2}", names.get(connection.kind, f"axis {axes - 1}")


# -- maps ------------------------------------------------------------------------------------------


def _connections(found: Connection | Findings, synapse: str | None) -> list[Connection]:
    connections = [found] if isinstance(found, Connection) else list(found.connections)
    names = list(dict.fromkeys(c.synapse for c in connections))
    if synapse is None and len(names) == 1:
        return connections
    if synapse not in names:
        said = "say which synapse" if synapse is None else f"there is no synapse '{synapse}'"
        raise InputError(f"{said}: those with events are {', '.join(map(repr, names))}.")
    return [c for c in connections if c.synapse == synapse]


def _plane(connection: Connection, channel: int) -> Tensor:
    """The last two axes of the expanded map, float64; the mean of time steps that differ."""
    map, size = connection.fanout.map.detach().cpu().double(), connection.shape
    if map.dim() > len(size):
        map = map.flatten(0, map.dim() - len(size) - 1).mean(0) if size else map.mean()
    rows = (1, 1, *size)[-2:]
    planes = map.expand(size).reshape(-1, *rows)
    if not 0 <= channel < len(planes):
        raise InputError(
            f"'{connection.label}' has channels 0 to {len(planes) - 1}, not {channel!r}: its "
            f"shape is {size}."
        )
    return planes[channel]


def _folded(row: Tensor) -> Tensor:
    """A long row as a rectangle, whose last places may be empty (NaN)."""
    if len(row) <= _ROW:
        return row[None]
    width = math.ceil(math.sqrt(len(row)))
    height = math.ceil(len(row) / width)
    return torch.cat([row, row.new_full((width * height - len(row),), math.nan)]).view(-1, width)


# -- figures ---------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _grid(count: int) -> list[Axes]:
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    _, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.6 * columns + 0.6, 2.4 * rows),
        layout="constrained",
        squeeze=False,
    )
    for ax in axes.flat[count:]:
        ax.remove()
    return list(axes.flat[:count])


def _finish(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize="medium")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)


def _label(ax: Axes, bars: dict[str, float], marks: dict[str, float]) -> None:
    """Write each bar's number to its right, and of what finite bound it is how much."""
    for i, (name, value) in enumerate(bars.items()):
        mark = marks.get(name, math.inf)
        said = "silent" if not value else _thousands(value)
        if 0 < mark < math.inf:
            said += f" of {_thousands(mark)}" + (f" ({_percent(value / mark)})" if value else "")
        place = (max(value, mark if mark < math.inf else 0.0, ax.get_xlim()[0]), i)
        ax.annotate(
            said,
            place,
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 else f"{100 * share:.1g}%"


def _by_layer(costs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for name, cost in costs:
        found.setdefault(name, []).append(cost)
    return {name: math.fsum(values) for name, values in found.items()}


def _per_sample(steps: float, dt: float) -> str:
    return f"SynOps per sample ({count_of(steps, 'step')} of {dt:g} ms)"


def _thousands(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"
