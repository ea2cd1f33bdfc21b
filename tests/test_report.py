"""Reports: every form holds the numbers, and tables can be read."""

from __future__ import annotations

import csv
import html.parser
import io
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from collections import OrderedDict

import pandas
import pytest
import torch
from rich.console import Console
from torch import nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.comparison import compare
from fxsynops.errors import InputError
from fxsynops.reporting.report import Report, number, render, shortened


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), fnn.NeuromorphicReLU(), nn.AvgPool2d(2))
    model.extend([nn.Flatten(), nn.Linear(36, 9), fnn.NeuromorphicReLU(), nn.Linear(9, 3)])
    for layer in (model[0], model[4]):
        layer.weight.data.mul_(4)
    return model


def results() -> dict[str, fxsynops.Analysis | fxsynops.Counts | fxsynops.Bound]:
    x = torch.rand(4, 1, 8, 8)
    counter = fxsynops.SynOpsCounter(network(), x, input_events=False)
    counts = counter.measure([x])
    bound = counter.analysis.upper_bound(input_range=(0, 1))
    return {
        "analysis": counter.analysis,
        "counts": counts,
        "bound": bound,
        "compared": bound.compare(counts),
        "estimate": counter.analysis.upper_bound(rate=0.5),
    }


each = pytest.mark.parametrize("kind", list(results()))
VALUE = {"analysis": "Synapses", "counts": "SynOps"}


def values(result) -> list[float]:
    return [row[VALUE.get(result.report().kind, "SynOps")] for row in result.to_rows()]


def as_number(cell: str) -> float:
    return float(cell.replace(",", "").strip("*% "))


@each
def test_json_is_read_back_as_the_same_report(kind, tmp_path):
    result = results()[kind]
    path = tmp_path / "report.json"
    path.write_text(result.to_json())
    loaded = fxsynops.load(path)
    assert loaded == result.report()
    assert str(loaded) == str(result)
    assert loaded.rows == json.loads(json.dumps(result.report().rows))
    assert loaded.content["fxsynops"] == fxsynops.__version__
    assert loaded.content["model"] == "Sequential"
    assert loaded.content["schema"] == 1
    for form in ("csv", "markdown", "latex", "html"):
        assert loaded.to(form) == result.report().to(form)


def test_json_carries_the_options():
    found = results()
    for name in ("events", "weights", "dt", "timesteps", "samples"):
        assert name in found["counts"].report().content
    assert found["bound"].report().content["assumptions"]


@each
def test_csv_opens_in_pandas(kind):
    result = results()[kind]
    frame = pandas.read_csv(io.StringIO(result.to_csv()))
    assert len(frame) == len(result.to_rows())
    assert frame[VALUE.get(kind, "SynOps")].tolist() == pytest.approx(values(result))
    assert list(frame) == list(result.to_rows()[0])
    assert result.to_pandas()["Source"].tolist() == [row["Source"] for row in result.to_rows()]
    assert len(list(csv.reader(io.StringIO(result.to_csv())))) == len(frame) + 1


def cells(lines: list[str], separator: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(separator)] for line in lines]


@each
def test_markdown_holds_the_numbers_and_the_notes(kind):
    result = results()[kind]
    text = result.to_markdown()
    lines = [line.strip("|") for line in text.splitlines() if line.startswith("|")]
    header, rule, *rows = cells(lines[: len(result.to_rows()) + 3], " | ")
    assert set("".join(rule)) <= set("-: ")
    assert all(len(row) == len(header) for row in rows)
    column = next(i for i, name in enumerate(header) if name.startswith(VALUE.get(kind, "SynOps")))
    assert [as_number(row[column]) for row in rows[:-1]] == pytest.approx(values(result), abs=0.01)
    assert as_number(rows[-1][column]) == pytest.approx(sum(values(result)), abs=0.01)
    for note in result.report().content["notes"]:
        assert note in text


@each
def test_latex_holds_the_numbers(kind):
    result = results()[kind]
    text = result.to_latex()
    lines = [line.removesuffix(" \\\\") for line in text.splitlines() if line.endswith(" \\\\")]
    header, *rows = cells(lines[: len(result.to_rows()) + 2], " & ")
    column = next(i for i, name in enumerate(header) if name.startswith(VALUE.get(kind, "SynOps")))
    assert [as_number(row[column]) for row in rows[:-1]] == pytest.approx(values(result), abs=0.01)
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.isascii()
    assert not re.search(r"(?<!\\)[_%#&](?=[^ ])", text.replace(" & ", ""))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX")
@each
def test_latex_compiles(kind, tmp_path):
    page = r"\documentclass{article}\begin{document}" + results()[kind].to_latex()
    (tmp_path / "page.tex").write_text(page + r"\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)


class Page(html.parser.HTMLParser):
    """The cells of a page, and what it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.cells, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href", "action")]
        if tag == "td":
            self.cells.append("")
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.cells[-1] += data


@each
def test_html_is_well_formed_and_refers_to_nothing(kind):
    result = results()[kind]
    for text in (result.to_html(), result._repr_html_()):
        page = Page()
        page.feed(text)
        assert page.open == []
        assert not page.addresses
        assert not re.search(r"https?:|url\(|@import|<script", text)
        for value in values(result):
            assert number(value) in page.cells


@each
def test_a_table_can_be_read_at_80_columns_in_black_and_white(kind):
    result = results()[kind]
    console = Console(width=80, file=io.StringIO(), color_system=None, force_terminal=False)
    console.print(result)
    text = console.file.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    for value in values(result):
        assert number(value) in text
    assert "Total" in text
    assert "◂" in text


class Long(nn.Module):
    """Names that differ in their middle alone, and fill a line."""

    def __init__(self) -> None:
        super().__init__()

        def block() -> nn.Module:
            return nn.Sequential(nn.Sequential(nn.Linear(4, 4), fnn.NeuromorphicReLU()))

        self.the_backbone_encoder_left_of_the_network = block()
        self.the_backbone_encoder_rght_of_the_network = block()
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        left = self.the_backbone_encoder_left_of_the_network(x)
        return self.out(left + self.the_backbone_encoder_rght_of_the_network(x))


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_tables_fit_terminals_and_lose_columns_but_no_digits_and_no_names(width):
    counter = fxsynops.SynOpsCounter(Long(), torch.ones(2, 4), rates=True)
    x = torch.ones(4000, 4)
    counter(x)
    counts = counter.counts
    names = [c.synapse for c in counts.findings.connections]
    results = [counts, counter.analysis, counter.analysis.upper_bound(max_spikes=3)]
    results += [counts.memory(), counts.energy(), counts.conventional, counts.summary]
    for result in results:
        text = render(result, width)
        assert max(map(len, text.splitlines())) <= width
        report = result.report()
        for row in report.rows:
            for name in {"SynOps", "Total/sample"} & row.keys() - {"Source"}:
                shown = next(c for c in report._view.columns if c.name == name).cell(row)
                assert shown in text
    text = render(counts, width).replace("\n", "")
    assert f"{4000 * 4 * 4:,}" in text
    if width < 100:  # shortened, if at all, to what tells them apart
        rows = [line.split()[0] for line in render(counts, width).splitlines() if "…" in line]
        assert len(set(rows)) == len(rows)
    else:
        assert all(name in text for name in names)


def test_what_is_printed_fits_the_terminal_and_what_is_written_does_not_depend_on_it(monkeypatch):
    result = results()["counts"]
    written = result.report().to("table")
    assert str(result) == written
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, str(result).splitlines())) <= 50
    assert result.report().to("table") == written


def test_text_is_text_in_a_notebook_too(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "SynOps of Sequential" in str(results()["counts"])


def test_the_notes_say_what_is_analog_and_what_is_folded():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), fnn.NeuromorphicReLU(), nn.BatchNorm2d(2))
    model.append(nn.Conv2d(2, 3, 3))
    x = torch.rand(2, 1, 8, 8)
    counter = fxsynops.SynOpsCounter(model.eval(), x, input_events=False)
    counter(x)
    text = str(counter.counts)
    assert f"{6 * 6 * 9 * 2:,} multiply-accumulates per sample, on the analog inputs of 0" in text
    assert "Folded" in text


def test_long_names_lose_their_middle():
    assert shortened("layer1.0.conv1") == "layer1.0.conv1"
    assert shortened("a" * 20 + "b" * 20, 11) == "aaaaa…bbbbb"


class Deep(nn.Module):
    """400 connections in three modules, of layers that grow and shrink, or are all the same."""

    def __init__(self, growth: int = 1) -> None:
        super().__init__()
        widths = [4 + growth * i for i in range(201)]
        pairs = list(itertools.pairwise(widths))
        layers = [nn.Sequential(nn.Linear(*pair), fnn.NeuromorphicReLU()) for pair in pairs]
        self.features, last = nn.Sequential(*layers), widths[-1]
        self.middle = nn.Sequential(
            nn.Linear(last, 900), fnn.NeuromorphicReLU(), nn.Linear(900, last)
        )
        others = [nn.Sequential(fnn.NeuromorphicReLU(), nn.Linear(b, a)) for a, b in pairs[:1:-1]]
        self.classifier = nn.Sequential(*others)

    def forward(self, x):
        return self.classifier(self.middle(self.features(x)))


def test_400_connections_are_shown_by_module():
    analysis = fxsynops.analyze(Deep(), torch.ones(2, 4))
    report = analysis.report()
    assert len(report.rows) == 400
    text = str(report)
    assert len(text.splitlines()) < 45
    assert "middle.0" in text
    assert re.search(r"features: \d+ more", text)
    assert "heaviest of 400 connections" in text
    shown = report.shown()
    assert sum(row["Synapses"] for row in shown) == report.totals["Synapses"]
    assert len(report.complete().shown()) == 400
    assert str(report.complete()).count("classifier.") > 198


def test_repeated_blocks_are_one_row():
    """Rows that differ in the number of a block alone, in all that they say."""
    analysis = fxsynops.analyze(Deep(growth=0), torch.ones(2, 4))
    report = analysis.report()
    shown = {row["Synapse"]: row for row in report.shown()}
    assert set(shown) == {
        "features.0.0",  # of the input, which is no block
        "features.*.0 × 199",
        "middle.0",
        "middle.2",
        "classifier.*.1 × 198",
    }
    row = shown["features.*.0 × 199"]
    assert (row["Source"], row["Neurons"], row["Synapses"]) == ("features.*.1", 4, 199 * 16)
    assert sum(row["Synapses"] for row in report.shown()) == report.totals["Synapses"]
    assert "sums are of all of them" in str(report)
    assert "heaviest" not in str(report)
    assert len(report.complete().shown()) == 400
    few = fxsynops.analyze(Deep(growth=0).features[:20], torch.ones(2, 4)).report()
    assert len(few.shown()) == 20


def test_shares_of_rows_that_are_added_up_are_shares_of_their_sums():
    x = torch.ones(2, 4)
    reports = [fxsynops.analyze(Deep(), x).report() for _ in range(2)]
    for row in reports[1].content["rows"]:
        row["Synapses"] *= 3
    shown = {row["Layer"]: row for row in compare(*reports).shown()}
    grouped = [row for name, row in shown.items() if "more" in name]
    assert grouped
    assert all(row["Change"] == 2.0 for row in shown.values())


def test_columns_without_room_are_named():
    console = Console(width=60, file=io.StringIO())
    console.print(results()["counts"])
    assert "No room for:" in console.file.getvalue()
    assert "Fanout_Prev" in console.file.getvalue()
    assert "No room for:" not in str(results()["counts"])


def test_data_above_a_bound_are_said_to_break_its_assumptions():
    counter = fxsynops.SynOpsCounter(nn.Linear(8, 4), torch.ones(2, 5, 8), layout="NT")
    counter(torch.ones(2, 5, 8))
    text = str(counter.analysis.upper_bound(input_max_events=2).compare(counter.counts))
    assert "250.0%" in text
    assert "break what it assumes" in text
    text = str(counter.analysis.upper_bound(10).compare(counter.counts))
    assert "Measured over 5 steps, scaled to 10." in text
    assert "break" not in text


def test_two_reports_are_compared_by_layer():
    x = torch.ones(2, 4, 8)
    first, second = (
        fxsynops.SynOpsCounter(
            nn.Sequential(nn.Linear(8, n), fnn.NeuromorphicReLU(), nn.Linear(n, 3)), x, layout="NT"
        )
        for n in (4, 6)
    )
    before = first.measure([x])
    after = second.measure([x, x])
    report = compare(before.report(), after.report())
    rows = {row["Layer"]: row for row in report.rows}
    assert (rows["0"]["Before"], rows["0"]["After"]) == (4 * 8 * 4, 4 * 8 * 6)  # of one sample
    assert rows["0"]["Change"] == 0.5
    assert report.totals["Before"] == before.total / 2
    assert report.totals["After"] == after.total / 4
    assert "+50.0%" in str(report)
    assert Report(json.loads(report.to_json())) == report


def test_reports_of_different_things_are_not_compared():
    found = results()
    with pytest.raises(InputError, match="different things"):
        compare(found["counts"].report(), found["bound"].report())
    report = compare(found["counts"].report(), found["counts"].report())
    with pytest.raises(InputError, match="'comparison' cannot be compared"):
        compare(report, report)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "is no JSON"),
        ("[1, 2]", "is no report"),
        ('{"kind": "counts"}', "is no report"),
        (
            '{"schema": 99, "kind": "counts", "title": "", "rows": [], "totals": {}, "notes": []}',
            "schema 99",
        ),
    ],
)
def test_files_that_are_no_reports(tmp_path, text, match):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=match):
        fxsynops.load(path)


def test_a_form_that_does_not_exist():
    with pytest.raises(InputError, match="no format 'xml'"):
        results()["counts"].report().to("xml")


def test_unbounded_stays_so_in_every_form(tmp_path):
    """And names stay names, also that of a layer which is called so."""
    layers = OrderedDict(unbounded=nn.Linear(8, 10), fire=fnn.IAF(), out=nn.Linear(10, 4))
    analysis = fxsynops.analyze(nn.Sequential(layers), torch.ones(2, 3, 8), layout="NT")
    bound = analysis.upper_bound()
    assert math.isinf(bound.structural)
    assert bound.to_rows()[1]["Structural"] == math.inf
    read = list(csv.DictReader(io.StringIO(bound.to_csv())))
    assert [row["Structural"] for row in read] == ["240", "unbounded"]
    saved = json.loads(bound.to_json())
    assert saved["structural"] == saved["totals"]["Structural"] == "unbounded"
    assert saved["rows"][1]["Events per step"] == "unbounded"
    (tmp_path / "bound.json").write_text(bound.to_json())
    loaded = fxsynops.load(tmp_path / "bound.json")
    assert loaded.rows == bound.report().rows
    assert loaded.rows[0]["Synapse"] == "unbounded"
    assert loaded.totals["Structural"] == math.inf
    for form in ("table", "markdown", "latex", "html"):
        assert loaded.to(form) == bound.report().to(form)
        assert "unbounded" in loaded.to(form)


def test_whole_numbers_have_no_point():
    bound = fxsynops.analyze(nn.Linear(8, 4), torch.ones(2, 3, 8), layout="NT").upper_bound()
    numbers = {name: value for name, value in bound.to_rows()[0].items() if type(value) is float}
    assert numbers == {"Share": 1.0}
    assert ".0" not in bound.to_csv().replace("1.0,", "")


def test_bounds_without_an_end_are_compared():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    analysis = fxsynops.analyze(model, torch.ones(2, 3, 8), layout="NT", spiking=nn.ReLU)
    endless, bounded = (analysis.upper_bound(max_spikes=cap) for cap in (None, 1))
    rows = {row["Layer"]: row for row in compare(endless.report(), bounded.report()).rows}
    assert rows["2"]["Before"] == math.inf
    assert rows["2"]["After"] == 8 * 3 * 2
    assert rows["2"]["Difference"] is rows["2"]["Change"] is None
    assert "unbounded" in str(compare(endless.report(), bounded.report()))
    back = {row["Layer"]: row for row in compare(bounded.report(), endless.report()).rows}
    assert back["2"]["Difference"] == back["2"]["Change"] == math.inf


def test_latex_has_the_columns_that_are_asked_for():
    """What is wider than a page is made smaller; quotes are a book's."""
    counts = results()["counts"]
    whole, some = counts.to_latex(), counts.to_latex(["Layer", "In", "SynOps"])
    assert whole.count(r"\resizebox{\textwidth}{!}{") == 1
    assert r"\end{tabular}}" in whole
    assert "resizebox" not in some
    header, *rows = (line for line in some.splitlines() if line.endswith(r" \\"))
    assert header == r"Layer & In (events) & SynOps \\"
    assert len(rows) == len(counts.rows) + 1
    assert "events=``value''" in some
    assert '"' not in some
    with pytest.raises(InputError, match=r"no columns \['Spikes'\]; there are Layer, "):
        counts.to_latex(["Spikes"])


def test_a_report_is_loaded_in_a_fresh_process(tmp_path):
    """Before anything else of the package has been used."""
    for name, result in results().items():
        (tmp_path / f"{name}.json").write_text(result.to_json())
    code = (
        "import sys, fxsynops\n"
        "for path in sys.argv[1:]:\n"
        "    print(fxsynops.load(path).kind, len(str(fxsynops.load(path))) > 100)"
    )
    files = sorted(map(str, tmp_path.glob("*.json")))
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("True") == len(files) > 3


def test_bars_without_room_are_named():
    console = Console(width=60, file=io.StringIO())
    console.print(results()["counts"])
    assert "Share." in console.file.getvalue()
