"""Places for the boxes and lines of a layered drawing, from top to bottom.

    place(names, edges, size) -> Layout
      back edges     what closes a cycle is left out of the layering, and drawn back
      layers         longest path from the top
      lanes          an edge that passes layers has a lane in each, shared by all edges of its start
      order          barycenter sweeps; the order with the fewest crossings is kept
      columns        least squares of the lines' slants, boxes and lanes kept apart

After Sugiyama, Tagawa and Toda, Methods for visual understanding of hierarchical system
structures (1981), in its plainest form.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

GAP = 46.0  # between layers
_APART = 26.0  # between boxes of a layer
_LANE = 16.0  # width of a lane
_SWEEPS = 24


class Point(NamedTuple):
    """A place, in pixels from the top left."""

    x: float
    y: float


class _Lane(NamedTuple):
    """Where edges pass a layer."""

    key: tuple[str, ...]
    layer: int


_Item = str | _Lane  # what stands in a layer: a box by its name, or a lane


@dataclass(frozen=True)
class Layout:
    """Where everything is.

    Attributes:
        width, height: of the whole.
        size: of a box.
        corners: the top left of each box.
        layers: the number of each box's layer; the top one is 0.
        routes: for each edge its points. Between the first and second, third and fourth, … it
            crosses from layer to layer; between the others it runs straight through one.
        back: the numbers of the edges that are drawn back.
    """

    width: float
    height: float
    size: tuple[float, float]
    corners: dict[str, Point]
    layers: dict[str, int]
    routes: tuple[tuple[Point, ...], ...]
    back: frozenset[int]


def place(
    names: Sequence[str], edges: Sequence[tuple[str, str]], size: tuple[float, float]
) -> Layout:
    """Lay out boxes of one size, so that edges run down, but for those that close a cycle.

    Args:
        names: the boxes, each once; where nothing else decides, they stand in this order.
        edges: from box to box, any number between two.
        size: width and height of a box in pixels.

    Example:
        >>> found = place(["a", "b", "c"], [("a", "b"), ("b", "c"), ("c", "b")], (80, 30))
        >>> found.layers, found.back
        ({'a': 0, 'b': 1, 'c': 2}, frozenset({2}))
    """
    back = _back(names, edges)
    layers = _layers(names, [edge for i, edge in enumerate(edges) if i not in back])
    chains = [_chain(a, b, layers, i in back) for i, (a, b) in enumerate(edges)]
    links = _Links()
    for (a, b), chain, i in zip(edges, chains, itertools.count(), strict=False):
        links.add(chain[::-1] if i in back else chain, a, b, i in back)
    rows = _order(_rows(names, layers, chains), links)
    columns = _columns(rows, links, size[0])
    pitch = size[1] + GAP
    left = min((columns[x] - _width(x, size[0]) / 2 for row in rows for x in row), default=0.0)
    right = max((columns[x] + _width(x, size[0]) / 2 for row in rows for x in row), default=0.0)
    columns = {item: x - left for item, x in columns.items()}
    corners = {n: Point(columns[n] - size[0] / 2, GAP + layers[n] * pitch) for n in names}
    routes = _routes(edges, chains, back, columns, corners, size)
    return Layout(
        right - left, GAP + len(rows) * pitch, size, corners, layers, routes, frozenset(back)
    )


# -- layers ----------------------------------------------------------------------------------------


def _back(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> set[int]:
    """The edges that close a cycle, walking down from what nothing leads to."""
    ahead: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for i, (a, b) in enumerate(edges):
        ahead[a].append((i, b))
    reached = {b for a, b in edges if a != b}
    back: set[int] = set()
    done: set[str] = set()
    for start in sorted(names, key=lambda name: name in reached):
        path = [start]
        walks = [iter(ahead[start])] if start not in done else []
        while walks:
            for i, b in walks[-1]:
                if b in path:
                    back.add(i)
                elif b not in done:
                    path.append(b)
                    walks.append(iter(ahead[b]))
                    break
            else:
                walks.pop()
                done.add(path.pop())
    return back


def _layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Longest path from the top; what nothing leads to stands right above what it leads to."""
    before: dict[str, set[str]] = {name: set() for name in names}
    after: dict[str, set[str]] = {name: set() for name in names}
    for a, b in edges:
        before[b].add(a)
        after[a].add(b)
    layers: dict[str, int] = {}
    waiting = {name: len(before[name]) for name in names}
    ready = [name for name in names if not before[name]]
    while ready:
        name = ready.pop(0)
        layers[name] = max((layers[b] + 1 for b in before[name]), default=0)
        for b in after[name]:
            waiting[b] -= 1
            if not waiting[b]:
                ready.append(b)
    for name in names:
        if not before[name] and after[name]:
            layers[name] = min(layers[b] for b in after[name]) - 1
    return {name: layers[name] for name in names}


def _chain(a: str, b: str, layers: dict[str, int], back: bool) -> list[_Item]:
    """What an edge passes, its ends included."""
    if back:
        passed = range(layers[a], layers[b] - 1, -1)
        return [a, *(_Lane((a, b), layer) for layer in passed), b]
    return [a, *(_Lane((a,), layer) for layer in range(layers[a] + 1, layers[b])), b]


def _rows(
    names: Sequence[str], layers: dict[str, int], chains: list[list[_Item]]
) -> list[list[_Item]]:
    rows: list[dict[_Item, None]] = [{} for _ in range(max(layers.values(), default=-1) + 1)]
    for name in names:
        rows[layers[name]][name] = None
    for chain in chains:
        for item in chain[1:-1]:
            assert isinstance(item, _Lane)
            rows[item.layer][item] = None
    return [list(row) for row in rows]


# -- order -----------------------------------------------------------------------------------------


@dataclass
class _Links:
    """What pulls at what: up and down to the next layer, and beside (a lane back, to its box)."""

    up: dict[_Item, dict[_Item, float]] = field(default_factory=lambda: defaultdict(dict))
    down: dict[_Item, dict[_Item, float]] = field(default_factory=lambda: defaultdict(dict))
    beside: dict[_Item, dict[_Item, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, chain: list[_Item], a: str, b: str, back: bool) -> None:
        """A chain from top to bottom; of one that is drawn back, without its ends."""
        if back:
            for lane, box in ((chain[1], b), (chain[-2], a)):
                self.beside[lane][box] = 1.0
            chain = chain[1:-1]
        for upper, lower in itertools.pairwise(chain):
            weight = {0: 1.0, 1: 2.0, 2: 8.0}[sum(isinstance(x, _Lane) for x in (upper, lower))]
            self.up[lower][upper] = self.down[upper][lower] = weight


def _order(rows: list[list[_Item]], links: _Links) -> list[list[_Item]]:
    """Each layer's items from left to right."""
    best, fewest = rows, _crossings(rows, links)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        rows = [list(row) for row in rows]
        places = {x: i / max(len(row), 1) for row in rows for i, x in enumerate(row)}
        for row in rows if down else rows[::-1]:
            pulls = links.up if down else links.down
            wanted = {}
            for item in row:
                near = [places[x] for x in (*pulls[item], *links.beside[item])]
                wanted[item] = sum(near) / len(near) if near else places[item]
            row.sort(key=wanted.__getitem__)
            places |= {x: (i + 0.5) / len(row) for i, x in enumerate(row)}
        crossings = _crossings(rows, links)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _crossings(rows: list[list[_Item]], links: _Links) -> int:
    found = 0
    for upper, lower in itertools.pairwise(rows):
        place = {item: i for i, item in enumerate(lower)}
        ends: list[int] = []
        for item in upper:
            own = sorted(place[x] for x in links.down[item])
            found += sum(end > x for x in own for end in ends)
            ends += own
    return found


# -- columns ---------------------------------------------------------------------------------------


def _width(item: _Item, box: float) -> float:
    return _LANE if isinstance(item, _Lane) else box


def _columns(rows: list[list[_Item]], links: _Links, box: float) -> dict[_Item, float]:
    """The middle of each item."""
    columns: dict[_Item, float] = {}
    offsets: list[list[float]] = []
    for row in rows:
        ends = [
            _width(item, box) / 2 + (0 if isinstance(item, _Lane) else _APART / 2) for item in row
        ]
        steps = [a + b for a, b in itertools.pairwise(ends)]
        offsets.append(list(itertools.accumulate(steps, initial=0.0)) if row else [])
        columns |= {x: o - offsets[-1][-1] / 2 for x, o in zip(row, offsets[-1], strict=True)}
    numbers = list(range(len(rows)))
    for sweep in range(2 * _SWEEPS):
        for n in numbers if sweep % 2 == 0 else numbers[::-1]:
            wanted, weights = [], []
            for item in rows[n]:
                pulls = [*links.up[item].items(), *links.down[item].items()]
                pulls += links.beside[item].items()
                weight = sum(w for _, w in pulls)
                at = sum(columns[x] * w for x, w in pulls) / weight if pulls else columns[item]
                wanted.append(at)
                weights.append(weight or 0.1)
            columns |= zip(rows[n], _apart(wanted, weights, offsets[n]), strict=True)
    return columns


def _apart(wanted: list[float], weights: list[float], offsets: list[float]) -> Iterator[float]:
    """The least-squares places in the given order, no closer than the offsets are.

    Isotonic regression of ``wanted - offsets`` by pooling adjacent violators.
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, size
    for at, weight, offset in zip(wanted, weights, offsets, strict=True):
        pool = (at - offset, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, heavy, size = pools.pop()
            both = heavy + pool[1]
            pool = ((mean * heavy + pool[0] * pool[1]) / both, both, size + pool[2])
        pools.append(pool)
    means = itertools.chain.from_iterable([mean] * size for mean, _, size in pools)
    return (mean + offset for mean, offset in zip(means, offsets, strict=True))


# -- routes ----------------------------------------------------------------------------------------


def _routes(
    edges: Sequence[tuple[str, str]],
    chains: list[list[_Item]],
    back: set[int],
    columns: dict[_Item, float],
    corners: dict[str, Point],
    size: tuple[float, float],
) -> tuple[tuple[Point, ...], ...]:
    """The points of each edge; lines to different places leave and reach a box side by side."""
    leaving: dict[str, set[tuple[float, _Item | int]]] = defaultdict(set)
    arriving: dict[str, set[tuple[float, int]]] = defaultdict(set)
    for i, ((a, b), chain) in enumerate(zip(edges, chains, strict=True)):
        leaving[a].add((columns[chain[1]], _goal(i, chain)))
        arriving[b].add((columns[chain[-2]], i))
    out = {(a, goal): x for a in leaving for goal, x in _ports(leaving[a], columns[a], size[0])}
    into = {i: x for b in arriving for i, x in _ports(arriving[b], columns[b], size[0])}
    pitch = size[1] + GAP
    routes = []
    for i, ((a, b), chain) in enumerate(zip(edges, chains, strict=True)):
        points = [Point(out[a, _goal(i, chain)], corners[a].y + size[1])]
        for lane in chain[1:-1]:
            assert isinstance(lane, _Lane)
            top = GAP + lane.layer * pitch
            ends = (top + size[1], top) if i in back else (top, top + size[1])
            points += [Point(columns[lane], y) for y in ends]
        points.append(Point(into[i], corners[b].y))
        routes.append(tuple(points))
    return tuple(routes)


def _goal(i: int, chain: list[_Item]) -> _Item | int:
    """Edges that share their first lane leave a box together, others apart."""
    return chain[1] if isinstance(chain[1], _Lane) else i


def _ports(wanted: Iterable[tuple[float, object]], middle: float, box: float) -> Iterator[tuple]:
    order = sorted(wanted, key=lambda pair: (pair[0], str(pair[1])))
    step = min(22.0, 0.8 * box / max(len(order), 1))
    for i, (_, goal) in enumerate(order):
        yield goal, middle + (i - (len(order) - 1) / 2) * step
