"""Drawings of the graph: what they hold, where it stands, and how they are written."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import combinations, pairwise
from xml.etree import ElementTree

import networkx as nx
import pytest
import torch
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops import drawing
from fxsynops.errors import InputError
from fxsynops.reporting.drawing.layout import GAP, place

SVG = "{http://www.w3.org/2000/svg}"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


class Gated(nn.Module):
    """Two sources behind one gate, an analog input, and a skip connection."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.skip, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.n1, self.n2, self.n3 = (fnn.IAF() for _ in range(3))

    def forward(self, x):
        x = self.n1(self.a(x))
        y = torch.maximum(self.n2(self.b(x)), x)
        return self.out(x + self.n3(self.skip(y)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.rec, self.mid, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        spikes, out = x.new_zeros(len(x), 8), 0
        for t in range(x.shape[1]):
            first = (self.inp(x[:, t]) + self.rec(spikes) > 0.2).float()
            spikes = (self.mid(first) > 0.1).float()
            out = out + self.out(spikes)
        return out


class Named(nn.Module):
    """Layers with names that need escaping."""

    names = ('a"quoted"', "<b>&amp;</b>", "schöne Schicht ∑ 層", "a]b|c`d#e", "x" * 80, "bell\x07")

    def __init__(self):
        super().__init__()
        for name in self.names:
            self.add_module(name, nn.Linear(8, 8))
            self.add_module(f"{name} neuron", fnn.IAF())

    def forward(self, x):
        for name in self.names:
            x = self._modules[f"{name} neuron"](self._modules[name](x))
        return x


def sew():
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based.model import sew_resnet

    model = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=10)
    functional.set_step_mode(model, "m")
    return model.eval(), torch.rand(4, 1, 3, 32, 32), {"layout": "TN", "input_events": False}


def inner_weights():
    import sinabs.layers as sl

    lif = sl.LIFRecurrent(tau_mem=20.0, rec_connect=nn.Linear(8, 8))
    model = nn.Sequential(nn.Linear(8, 8), lif, nn.Linear(8, 3))
    return model, torch.ones(2, 5, 8), {"layout": "NT"}


class Product(nn.Module):
    """Spikes times spikes: a synapse and a gate at once."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(5, 2)
        self.n, self.m = fnn.IAF(), fnn.IAF()

    def forward(self, x):
        return self.out(self.n(self.a(x)) @ self.m(self.b(x)).transpose(-1, -2))


MODELS = {
    "gated": lambda: (Gated(), torch.rand(2, 5, 8), {"layout": "NT", "input_events": False}),
    "recurrent": lambda: (Recurrent(), torch.ones(2, 5, 8), {"layout": "NT"}),
    "inner weights": inner_weights,
    "product": lambda: (Product(), torch.ones(2, 5, 8), {"layout": "NT"}),
    "names": lambda: (Named(), torch.ones(2, 5, 8), {"layout": "NT"}),
    "SEW-ResNet-18": sew,
}


@pytest.fixture(params=MODELS)
def counter(request):
    model, x, options = MODELS[request.param]()
    counter = fxsynops.SynOpsCounter(model, x, **options)
    with torch.no_grad():
        counter(x)
    return counter


@pytest.fixture
def small():
    return fxsynops.analyze(Gated(), torch.rand(2, 5, 8), layout="NT", input_events=False)


def shown(name):
    """A name without what XML cannot hold."""
    return name.replace("\x07", "\ufffd")


def read(svg):
    """Corners of the boxes by name, and the groups of the lines."""
    root = ElementTree.fromstring(svg)
    boxes = {}
    for group in root.iter(f"{SVG}g"):
        if "data-name" in group.attrib:
            rect = group.find(f"{SVG}rect").attrib
            boxes[group.attrib["data-name"]] = tuple(
                float(rect[key]) for key in ("x", "y", "width", "height")
            )
    return boxes, [group for group in root.iter(f"{SVG}g") if "data-start" in group.attrib]


def width(group):
    return float(group.find(f"{SVG}path").attrib["stroke-width"])


# -- what they hold --------------------------------------------------------------------------------


def test_an_svg_has_a_box_for_each_node_and_a_line_for_each_edge(counter):
    graph = counter.analysis.graph
    boxes, lines = read(drawing.to_svg(counter.analysis, counter.counts))
    assert list(boxes) == list(map(shown, graph))
    found = [
        (g.attrib["data-start"], g.attrib["data-end"])
        for g in lines
        if "current" not in g.attrib["class"]
    ]
    assert sorted(found) == sorted((shown(a), shown(b)) for a, b in graph.edges())


def test_the_page_loads_nothing(counter):
    page = drawing.to_html(counter.analysis, counter.counts)
    addresses = set(re.findall(r"\b[a-z]+://[^\s\"'<]*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\ssrc=|href|@import|url\(|<link|<script|<iframe", page)


def test_the_page_is_html_and_xml(counter):
    page = drawing.to_html(counter.analysis)
    tree = ElementTree.fromstring(page)
    assert tree.find("head/title").text.startswith(counter.analysis.name)
    assert len(tree.findall(f"body/{SVG}svg")) == 1
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            opened.append(tag)

        def handle_endtag(self, tag):
            last = opened.pop()
            assert last == tag

        def handle_startendtag(self, tag, attrs):
            pass

    Reader().feed(page)
    assert not opened


@pytest.mark.skipif(BROWSER is None, reason="there is no browser")
def test_a_browser_shows_the_page_without_errors_or_network(small, tmp_path):
    drawing.draw(small, tmp_path / "graph.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    address = (tmp_path / "graph.html").as_uri()
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    run = subprocess.run(
        [BROWSER, *flags, offline, profile, address], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in run.stderr
    assert all(f'data-name="{name}"' in run.stdout for name in small.graph)


def test_lines_are_the_wider_the_more_synops(counter):
    counts = counter.counts
    _, lines = read(drawing.to_svg(counter.analysis, counts))
    costs = {}
    for row in counts.rows:
        key = shown(row.connection.source), shown(row.connection.synapse)
        costs[key] = max(costs.get(key, 0.0), row.synops)
    ranked = sorted(
        (costs[g.attrib["data-start"], g.attrib["data-end"]], width(g))
        for g in lines
        if "events" in g.attrib["class"]
    )
    assert all(a[1] <= b[1] for a, b in pairwise(ranked))
    assert ranked[-1][1] == 7.0


def test_without_counts_lines_are_as_wide_as_their_synapses():
    model = nn.Sequential(nn.Linear(100, 100), fnn.IAF(), nn.Linear(100, 1))
    svg = drawing.to_svg(fxsynops.analyze(model, torch.ones(1, 2, 100), layout="NT"))
    widths = {g.attrib["data-end"]: width(g) for g in read(svg)[1] if "events" in g.attrib["class"]}
    assert widths == {"0": 7.0, "2": 3.0}  # a hundredth of the synapses


def test_synapses_drive_the_sources_that_their_output_charges():
    for name, expected in {
        "gated": {("a", "n1"), ("b", "n2"), ("skip", "n3")},
        "recurrent": {("inp", "gt"), ("rec", "gt"), ("mid", "gt#2")},
        "inner weights": {("0", "1"), ("1.rec_connect", "1")},
    }.items():
        model, x, options = MODELS[name]()
        _, lines = read(drawing.to_svg(fxsynops.analyze(model, x, **options)))
        currents = [g.attrib for g in lines if "current" in g.attrib["class"]]
        assert {(a["data-start"], a["data-end"]) for a in currents} == expected


def test_an_analog_synapse_looks_different_and_says_its_macs(small):
    svg = drawing.to_svg(small)
    assert re.search(
        r'class="box analog" data-name="a"><title>a\nlinear\nanalog input: 64 mul', svg
    )
    assert "64 MACs/step" in svg


def test_a_tooltip_says_fan_out_and_synops():
    model = nn.Sequential(nn.Linear(4, 3))
    counter = fxsynops.SynOpsCounter(model, torch.ones(2, 4))
    counter(torch.ones(2, 4))
    _, (line,) = read(drawing.to_svg(counter.analysis, counter.counts))
    tip = line.find(f"{SVG}title").text
    assert tip.splitlines() == [
        "input → 0",
        "4 neurons, fan-out 3.0 on average (3 to 3)",
        "12 synapses",
        "12 SynOps per sample",
        "1.0000 events per neuron and step",
    ]


def test_long_names_lose_their_middle_and_keep_it_in_the_tooltip():
    analysis = fxsynops.analyze(Named(), torch.ones(2, 5, 8), layout="NT")
    root = ElementTree.fromstring(drawing.to_svg(analysis))
    labels = [text.text for text in root.iter(f"{SVG}text")]
    assert "xxxxxxxx…xxxxxxxxxxxxxxxxx" in labels
    assert any(tip.text.startswith("x" * 80 + "\n") for tip in root.iter(f"{SVG}title"))


# -- where it stands -------------------------------------------------------------------------------


def test_boxes_do_not_overlap_and_are_within_the_picture(counter):
    svg = drawing.to_svg(counter.analysis, counter.counts)
    boxes, _ = read(svg)
    for (ax, ay, aw, ah), (bx, by, bw, bh) in combinations(boxes.values(), 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
    root = ElementTree.fromstring(svg)
    right, bottom = (float(root.attrib[key]) for key in ("width", "height"))
    assert all(x >= 0 and x + w <= right and y + h <= bottom for x, y, w, h in boxes.values())


def test_a_sew_resnet_is_a_column_that_a_page_can_show():
    model, x, options = sew()
    root = ElementTree.fromstring(drawing.to_svg(fxsynops.analyze(model, x, **options)))
    assert float(root.attrib["width"]) < 1000


def test_edges_run_down_but_for_those_that_close_a_cycle(counter):
    boxes, lines = read(drawing.to_svg(counter.analysis))
    rising = nx.DiGraph()
    full = nx.DiGraph()
    for line in lines:
        start, end = line.attrib["data-start"], line.attrib["data-end"]
        full.add_edge(start, end)
        if boxes[end][1] <= boxes[start][1]:
            rising.add_edge(start, end)
    components = [c for c in nx.strongly_connected_components(full) if len(c) > 1]
    loops = set(nx.selfloop_edges(full))
    edges = set(rising.edges()) - loops
    assert all(any(a in c and b in c for c in components) for a, b in edges)
    assert bool(edges) == bool(components)
    assert full.number_of_edges() >= len(counter.analysis.connections)


def test_layers_are_longest_paths():
    edges = [("s", "a"), *zip("abadcc", "bcccac", strict=True)]
    found = place(list("sabcd"), edges, (80.0, 30.0))
    assert found.layers == {"s": 0, "a": 1, "b": 2, "c": 3, "d": 2}
    assert {edges[i] for i in found.back} == {("c", "a"), ("c", "c")}


def test_no_line_crosses_a_box():
    edges = [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("a", "c"), ("d", "a"), ("b", "b")]
    found = place(list("abcd"), edges, (80.0, 30.0))
    for route in found.routes:
        for i, (p, q) in enumerate(pairwise(route)):
            if i % 2:  # straight through a layer
                assert p.x == q.x
                for corner in found.corners.values():
                    beside = not corner.x <= p.x <= corner.x + 80
                    assert beside or not min(p.y, q.y) <= corner.y <= max(p.y, q.y)
            else:  # in the space between two layers
                assert abs(p.y - q.y) in (0.0, GAP)


def test_two_branches_do_not_cross():
    edges = [("a", "p"), ("b", "q"), ("q", "s"), ("p", "r"), ("r", "t"), ("s", "t")]
    found = place(list("abqpsrt"), edges, (80.0, 30.0))
    sides = [found.corners[x].x < found.corners[y].x for x, y in ("ab", "pq", "rs")]
    assert len(set(sides)) == 1


def test_nothing_to_draw_is_a_picture_too():
    assert place([], [], (80.0, 30.0)).corners == {}


# -- other formats ---------------------------------------------------------------------------------


def test_graphml_reads_back_as_the_same_graph(counter):
    analysis, counts = counter.analysis, counter.counts
    graph = analysis.graph
    again = nx.parse_graphml(drawing.to_graphml(analysis, counts), force_multigraph=True)
    assert again.is_directed()
    assert list(again) == list(map(shown, graph))
    assert sorted(again.edges()) == sorted((shown(a), shown(b)) for a, b in graph.edges())
    assert [d["kind"] for _, d in again.nodes(data=True)] == [
        d["kind"] for _, d in graph.nodes(data=True)
    ]
    assert len({key for _, _, key in again.edges(keys=True)}) == again.number_of_edges()
    synops = sum(d.get("synops", 0.0) for _, _, d in again.edges(data=True))
    assert synops * counts.samples == pytest.approx(counts.total)
    synapses = sum(d.get("synapses", 0.0) for _, _, d in again.edges(data=True))
    assert synapses == pytest.approx(sum(c.fanout.total for c in analysis.connections))


def test_mermaid_has_a_row_for_each_node_and_connection(counter):
    analysis = counter.analysis
    text = drawing.to_mermaid(analysis, counter.counts)
    rows = [row.strip() for row in text.splitlines()]
    assert rows[3] == "flowchart TD"
    shape = r'n\d+(\(\[|\{\{|\[)"[^"]*"(\]\)|\}\}|\]):::(source|gate|synapse|analog)'
    assert sum(bool(re.fullmatch(shape, row)) for row in rows) == len(analysis.graph)
    events = [row for row in rows if re.fullmatch(r'n\d+ ==>\|"[\w.+-]+"\| n\d+', row)]
    assert len(events) == len(analysis.connections)
    others = [row for row in rows if re.fullmatch(r"n\d+ (-->|-\.->) n\d+", row)]
    styles = [row for row in rows if row.startswith(("linkStyle", "classDef"))]
    assert len(rows) == 4 + len(analysis.graph) + len(events) + len(others) + len(styles)


def test_mermaid_labels_hold_no_syntax():
    analysis = fxsynops.analyze(Named(), torch.ones(2, 5, 8), layout="NT")
    text = drawing.to_mermaid(analysis)
    assert "a#93;b#124;c#96;d#35;e<br/>" in text
    assert "#60;b#62;#38;amp#59;#60;/b#62;" in text
    assert "schöne Schicht #8721; 層" in text


# -- files -----------------------------------------------------------------------------------------


def test_the_suffix_says_the_format(small, tmp_path):
    for suffix, make in {
        ".svg": drawing.to_svg,
        ".html": drawing.to_html,
        ".mmd": drawing.to_mermaid,
        ".graphml": drawing.to_graphml,
        ".SVG": drawing.to_svg,
    }.items():
        path = tmp_path / f"graph{suffix}"
        drawing.draw(small, str(path))
        assert path.read_text(encoding="utf-8") == make(small)


def test_another_suffix_is_an_error_that_names_those_there_are(small, tmp_path):
    with pytest.raises(InputError, match=r"graph.png.*\.svg, \.html, \.mmd, \.graphml"):
        drawing.draw(small, tmp_path / "graph.png")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_an_error(small, tmp_path):
    with pytest.raises(InputError, match="cannot be written: No such file"):
        drawing.draw(small, tmp_path / "nowhere" / "graph.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        drawing.draw(small, tmp_path / "folder.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.svg"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(small, tmp_path, monkeypatch):
    path = tmp_path / "graph.svg"
    path.write_text("old")

    def full(self, text, encoding):
        with self.open("w") as stream:
            stream.write(text[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(InputError, match="No space left"):
        drawing.draw(small, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_counts_of_another_model_or_of_nothing_are_errors(small):
    other = fxsynops.SynOpsCounter(nn.Linear(4, 2), torch.ones(1, 4))
    with pytest.raises(InputError, match="nothing has been counted"):
        drawing.to_svg(other.analysis, other.counts)
    other(torch.ones(1, 4))
    for make in (drawing.to_svg, drawing.to_html, drawing.to_mermaid, drawing.to_graphml):
        with pytest.raises(InputError, match=r"another model.*linear"):
            make(small, other.counts)
