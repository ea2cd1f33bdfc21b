"""Energy: what counts and bounds cost on a device, by its published figures."""

from __future__ import annotations

import json
import math

import pytest
import snntorch
import torch
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fxsynops
import fxsynops.nn as fnn
from fxsynops.energy import (
    DEVICES,
    Device,
    Workload,
    device,
    estimate,
    joules,
)
from fxsynops.errors import InputError
from fxsynops.neurons import Update
from tests.oracles import near

CHIP = Device("chip", per_synop=2e-12, per_update=3e-12, per_mac=5e-12)


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape) < 0.4).float()


def counted(model: nn.Module, x: torch.Tensor, layout: str = "NT", **options):
    counter = fxsynops.SynOpsCounter(model, x, layout=layout, **options)
    counter(x)
    return counter


def work_of(model: nn.Module, x: torch.Tensor, layout: str = "NT", **options) -> Workload:
    counter = counted(model, x, layout, **options)
    return counter.counts.workload


def events_of(neuron: nn.Module, current: torch.Tensor) -> float:
    """The events that a current causes, and a neuron as it was before them."""
    with torch.no_grad():
        events = float(neuron(current).sum())
    neuron.reset_states()
    return events


def operations(work: Workload) -> tuple[float, float, float, float]:
    return work.synops, work.macs, work.updates, work.dense_macs


# -- published figures ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "per_synop", "per_mac", "per_update", "who"),
    [
        ("45 nm CMOS", 0.9e-12, 4.6e-12, 0, "Horowitz"),
        ("Loihi", 27.1e-12, None, 81e-12, "Davies"),
        ("SpiNNaker", 13.3e-9, None, 26e-9, "Höppner"),
        ("SpiNNaker 2", 450e-12, None, 2.19e-9, "Höppner"),
    ],
)
def test_an_event_driven_device_costs_what_was_published(name, per_synop, per_mac, per_update, who):
    found = DEVICES[name]
    assert found.per_synop == near(per_synop)
    assert (found.per_mac, found.per_update, found.dense) == (per_mac, per_update, False)
    assert who in found.source


@pytest.mark.parametrize(("name", "each"), [("CPU", 8.6e-9), ("GPU", 0.3e-9), ("ARM", 0.9e-9)])
def test_a_dense_device_costs_what_was_published(name, each):
    found = DEVICES[name]
    assert (found.per_dense_mac, found.dense) == (each, True)
    assert "Degnan" in found.source


def test_these_are_all_devices():
    names = ["45 nm CMOS", "45 nm CMOS int32", "Loihi", "SpiNNaker", "SpiNNaker 2"]
    names += ["CPU", "GPU", "ARM"]
    assert list(DEVICES) == names
    assert [row.device.name for row in estimate(Workload(1, 1, 1, 1)).rows] == names


# -- operations of a sample -----------------------------------------------------------------------


def test_events_cost_their_fan_out_and_neurons_every_step():
    model = nn.Sequential(nn.Linear(6, 4), fnn.IAF(), nn.Linear(4, 3), fnn.IAF())
    x = spikes(5, 7, 6)
    inner = events_of(model[1], model[0](x))
    synops = float(x.sum() * 4 + inner * 3) / 5
    assert operations(work_of(model, x)) == (synops, 0, (4 + 3) * 7, 6 * 4 + 4 * 3)


def test_an_image_costs_multiply_accumulates_at_every_step():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), fnn.IAFSqueeze(batch_size=2), nn.Flatten(), nn.Linear(3 * 4 * 4, 5)
    )
    x = torch.rand(2 * 4, 2, 6, 6)  # 2 samples of 4 steps
    inner = events_of(model[1], model[0](x))
    work = work_of(model, x, "(NT)", timesteps=4, input_events=False)
    conv = 4 * 4 * 3 * 2 * 3 * 3
    assert operations(work) == (inner * 5 / 2, conv * 4, 48 * 4, conv + 48 * 5)


class Residual(nn.Module):
    """Two layers of neurons whose events are added up before the last weights."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)
        self.one, self.two, self.last = fnn.IAF(), fnn.IAF(), fnn.IAF()

    def forward(self, x):
        y = self.one(self.a(x))
        z = self.two(self.b(y))
        return self.last(self.out(y + z))


def test_neurons_that_feed_two_branches_are_updated_once_and_a_sum_is_one_input_of_the_ann():
    model, x = Residual(), spikes(2, 5, 4)
    with torch.no_grad():
        y = model.one(model.a(x))
    model.one.reset_states()
    z = events_of(model.two, model.b(y))
    synops = float(x.sum() * 6 + y.sum() * 6 + (y.sum() + z) * 3) / 2
    work = work_of(model, x)
    assert operations(work) == (synops, 0, (6 + 6 + 3) * 5, 4 * 6 + 6 * 6 + 6 * 3)


class Loop(nn.Module):
    """A loop over a static image, which the first weights see before it or in it."""

    def __init__(self, before: bool):
        super().__init__()
        self.before = before
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)
        self.neuron = snntorch.Leaky(beta=0.9)

    def forward(self, x):
        state, found = self.neuron.reset_mem(), 0.0
        if self.before:
            current = self.first(x)
        for _ in range(5):
            if not self.before:
                current = self.first(x)
            events, state = self.neuron(current, state)
            found = found + self.last(events)
        return found


@pytest.mark.parametrize(("before", "calls"), [(True, 1), (False, 5)])
def test_analog_weights_cost_what_they_do_and_the_ann_does_them_once(before, calls):
    work = work_of(Loop(before), torch.rand(4, 8), "N", timesteps=5, input_events=False)
    assert operations(work)[1:] == (calls * 8 * 6, 6 * 5, 8 * 6 + 6 * 3)


def test_neurons_that_are_read_twice_are_updated_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.a, self.b = snntorch.Leaky(beta=0.9), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            both = self.neuron(x)
            return self.a(both[0]) + self.b(both[0])

    assert work_of(Twice(), spikes(3, 4), "N").updates == 4


def test_weights_of_zero_cost_no_synops_but_are_in_the_dense_ann():
    model = nn.Sequential(nn.Linear(6, 4), fnn.IAF(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight[:2] = 0
    x = spikes(1, 7, 6)
    inner = events_of(model[1], model[0](x))
    work = work_of(model, x, weights="nonzero")
    assert work.synops == float(x.sum()) * 2 + inner * 3
    assert work.dense_macs == 6 * 4 + 4 * 3


class Convolutions(nn.Module):
    """A residual sum and two pools between convolutions without padding."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 2)
        self.fc = nn.Linear(6 * 2 * 2, 5)
        self.spike = nn.ModuleList(fnn.IAFSqueeze(batch_size=1) for _ in range(3))
        self.pool, self.sum = nn.AvgPool2d(2), fnn.SumPool2d(2)

    def forward(self, x):
        y = self.spike[0](self.a(x))
        y = y + self.spike[1](self.b(y))
        z = self.spike[2](self.c(self.pool(y)))
        return self.fc(self.sum(z).flatten(1))


def test_the_dense_ann_does_what_torchs_flop_counter_counts():
    model, x = Convolutions(), spikes(3, 2, 14, 14)  # one sample of three steps
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(x)
    for neuron in model.spike:
        neuron.reset_states()
    work = work_of(model, x, "(NT)", batch_size=1)
    assert work.dense_macs == flops.get_total_flops() / 2 / 3
    assert work.updates == 3 * (4 * 12 * 12 + 4 * 12 * 12 + 6 * 5 * 5)


def test_attention_is_a_product_in_the_dense_ann():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = fnn.NeuromorphicReLU(), fnn.NeuromorphicReLU()

        def forward(self, x):
            return self.q(x) @ self.k(x + 1).mT

    assert work_of(Attention(), spikes(2, 3, 5), "N").dense_macs == 3 * 5 * 3


def test_recurrent_weights_are_in_the_dense_ann_and_their_neurons_count_once():
    model = nn.Sequential(
        nn.Linear(5, 4), snntorch.RLeaky(beta=0.9, linear_features=4, init_hidden=True)
    )
    work = work_of(model, spikes(2, 5), "N")
    assert (work.updates, work.dense_macs) == (4, 5 * 4 + 4 * 4)


def test_a_bound_has_the_operations_of_its_window():
    model = nn.Sequential(nn.Linear(4, 3), fnn.IAF(max_spikes_per_step=1), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.zero_()
    analysis = fxsynops.analyze(model, spikes(2, 5, 4), layout="NT")
    work = analysis.upper_bound(timesteps=8).workload
    assert operations(work) == (8 * (4 * 3 + 3 * 2), 0, 8 * 3, 4 * 3 + 3 * 2)
    assert work.bound
    assert "at most 144 SynOps" in str(estimate(work))
    assert not analysis.upper_bound(rate=0.1).workload.bound


def test_what_is_unbounded_costs_an_unbounded_energy_but_dense_and_free_devices():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 3), fnn.IAF(), nn.Linear(3, 2))
    analysis = fxsynops.analyze(model, torch.ones(1, 5, 4, device="meta"), layout="NT")
    work = analysis.upper_bound().workload
    energy = estimate(work, ["loihi", "cpu", Device("free", 0)])
    assert [row.total for row in energy.rows] == [math.inf, 18 * 8.6e-9, 0]
    assert "unbounded" in str(energy)
    assert json.loads(energy.to_json())["rows"][0]["Total (J/sample)"] == "unbounded"


def test_another_number_of_samples_and_steps_is_scaled_to_one_sample():
    model = nn.Sequential(nn.Linear(4, 3), fnn.IAF())
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 2, 4), layout="NT")
    counter(torch.ones(6, 10, 4))
    work = counter.counts.workload
    assert operations(work) == (10 * 4 * 3, 0, 10 * 3, 12)
    assert work.timesteps == 10


def test_nothing_counted_has_no_energy():
    counter = fxsynops.SynOpsCounter(nn.Linear(4, 3), torch.ones(1, 4))
    with pytest.raises(InputError, match="nothing has been counted yet"):
        _ = counter.counts.workload


# -- joules ---------------------------------------------------------------------------------------


def test_sums_alone_are_of_one_step_and_leave_nothing_out():
    work = Workload(10, 5, 6, 4)
    whole = work.whole
    assert (whole.synops, whole.macs, whole.neurons, whole.dense_macs) == (10, 5, 6, 4)
    text = str(estimate(work))
    assert "1 step" in text
    assert "nresolved" not in text


WORK = Workload(synops=1000, macs=200, updates=30, dense_macs=500, model="Net", timesteps=4)


def test_energy_is_the_sum_of_operations_times_their_cost():
    (row,) = estimate(WORK, CHIP).rows
    assert row.synops_energy == near(1000 * 2e-12)
    assert row.macs_energy == near(200 * 5e-12)
    assert row.updates_energy == near(30 * 3e-12)
    assert row.total == near(2000e-12 + 1000e-12 + 90e-12)
    assert row.dense == near(500 * 5e-12)


@pytest.mark.parametrize(
    ("name", "picojoules", "dense"),
    [
        ("45 nm CMOS", 1000 * 0.9 + 200 * 4.6, 500 * 4.6),
        ("Loihi", 1200 * 27.1 + 30 * 81, None),  # no figure for a MAC: it costs a SynOp
        ("SpiNNaker", 1200 * 13_300 + 30 * 26_000, None),
        ("SpiNNaker 2", 1200 * 450 + 30 * 2_190, None),
        ("CPU", 500 * 8_600, 500 * 8_600),
        ("GPU", 500 * 300, 500 * 300),
        ("ARM", 500 * 900, 500 * 900),
    ],
)
def test_the_energy_on_every_device_is_right_by_hand(name, picojoules, dense):
    (row,) = estimate(WORK, name).rows
    assert row.total == near(picojoules * 1e-12)
    assert row.total == row.synops_energy + row.macs_energy + row.updates_energy
    assert row.dense == (None if dense is None else near(dense * 1e-12))


def test_on_a_dense_device_events_and_steps_do_not_count():
    (row,) = estimate(WORK, Device("array", per_synop=7e-12, per_update=2e-12, dense=True)).rows
    assert row.synops_energy == 0
    assert row.dense == row.macs_energy == near(500 * 7e-12)
    assert row.updates_energy == near(30 / 4 * 2e-12)  # once for each neuron
    assert row.total == near(row.macs_energy + row.updates_energy)


def test_devices_stand_in_the_order_they_were_asked_for():
    rows = estimate(WORK, ["gpu", CHIP, "SpiNNaker2"]).to_rows()
    assert [row["Device"] for row in rows] == ["GPU", "chip", "SpiNNaker 2"]


# -- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 J"),
        (4.6e-12, "4.60 pJ"),
        (0.9e-12, "0.9 pJ"),
        (2e-16, "0.0002 pJ"),
        (1e-12, "1.00 pJ"),
        (27.1e-12, "27.1 pJ"),
        (999.4e-12, "999 pJ"),
        (999.6e-12, "1.00 nJ"),
        (1e-9, "1.00 nJ"),
        (123.4e-9, "123 nJ"),
        (1e-6, "1.00 µJ"),
        (56.78e-6, "56.8 µJ"),
        (0.001, "1.00 mJ"),
        (0.5, "500 mJ"),
        (12.0, "12.0 J"),
        (12345.0, "12,300 J"),
        (math.inf, "unbounded"),
        (math.nan, "nan"),
        (None, "–"),
    ],
)
def test_energies_have_three_digits_and_a_unit(value, shown):
    assert joules(value) == shown


def test_rows_have_units_and_plain_numbers():
    (row,) = estimate(WORK, "loihi").to_rows()
    assert list(row) == [
        "Device",
        "SynOps (J)",
        "MACs (J)",
        "Neuron updates (J)",
        "Total (J/sample)",
        "Dense ANN (J/sample)",
        "Source",
    ]
    assert row["Total (J/sample)"] == near(1200 * 27.1e-12 + 30 * 81e-12)
    assert row["Dense ANN (J/sample)"] is None


def test_a_table_shows_devices_side_by_side_and_the_ann_beside():
    lines = str(estimate(WORK)).splitlines()
    assert lines[0] == "Energy of Net (estimate)"
    cells = {line.split("  ")[0].strip(): line.split() for line in lines[2:12]}
    assert cells["Loihi"][1:] == "27.1 nJ 5.42 nJ 2.43 nJ 35.0 nJ –".split()
    assert cells["45 nm CMOS"][3:] == "900 pJ 920 pJ 0 J 1.82 nJ 2.30 nJ".split()
    assert cells["CPU"][-4:] == "4.30 µJ 4.30 µJ".split()


def test_a_table_says_what_it_is_made_of_and_leaves_out():
    text = str(estimate(WORK))
    for said in (
        "An estimate for one sample of 4 steps: 1,000 SynOps, 200 MACs",
        "30 neuron updates",
        "Total = SynOps × J/SynOp + MACs × J/MAC + neuron updates × J/update",
        "Left out: memory, routing and static power",
        "count once, and neither events nor steps: CPU, GPU, ARM",
        "which cost as much as SynOps here: Loihi, SpiNNaker, SpiNNaker 2",
        "neuron updates, which cost nothing here: 45 nm CMOS",
        "45 nm CMOS 0.9 pJ/SynOp, 4.60 pJ/MAC; 45 nm CMOS int32 0.1 pJ/SynOp",
        "Loihi 27.1 pJ/SynOp, 81.0 pJ/update: Davies",
        "Höppner",
        "Degnan",
    ):
        assert said in text


def test_only_the_devices_that_were_asked_for_are_cited():
    text = str(estimate(WORK, CHIP))
    assert "Horowitz" not in text
    assert "chip 2.00 pJ/SynOp, 5.00 pJ/MAC, 3.00 pJ/update: no source given" in text
    assert "published" not in text


def test_a_narrow_terminal_keeps_device_total_and_ann():
    console = Console(width=60, color_system=None)
    with console.capture() as captured:
        console.print(estimate(WORK))
    assert "Total/sample   Dense ANN/sample" in captured.get()


def test_what_is_not_resolved_is_told():
    assert "Incomplete: 2 unresolved operations" in str(
        estimate(Workload(1, 0, 0, 1, "Net", 1, False, 2))
    )


def test_json_holds_the_workload_and_the_rows():
    content = json.loads(estimate(WORK, ["cpu", "gpu"]).to_json())
    assert (content["kind"], content["synops"], content["dense_macs"]) == ("energy", 1000, 500)
    assert [row["Device"] for row in content["rows"]] == ["CPU", "GPU"]


# -- devices of one's own -------------------------------------------------------------------------


def test_devices_are_read_from_toml(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text(
        """
        [chip]
        per_synop = 2e-12
        per_update = 3e-12
        per_mac = 5e-12
        source = "data sheet"

        ["my accelerator"]
        per_synop = 1e-12
        dense = true
        """
    )
    assert Device.load(path) == (
        Device("chip", 2e-12, 3e-12, 5e-12, source="data sheet"),
        Device("my accelerator", 1e-12, dense=True),
    )
    assert [row.device.name for row in estimate(WORK, Device.load(path)).rows] == [
        "chip",
        "my accelerator",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[chip]\nper_synop = 1e-12\nper_updte = 1",
            r"'chip'.*'per_updte'.*Do you mean per_update",
        ),
        ("[chip]\nper_update = 1e-12", "'chip'.*needs per_synop"),
        ("[chip]\nper_synop = -1e-12", "per_synop of device 'chip'.*not negative: -1e-12"),
        ('[chip]\nper_synop = "2 pJ"', "per_synop of device 'chip' must be a number of joules"),
        ("[chip]\nper_synop = inf", "per_synop of device 'chip' must be a number"),
        ("[chip]\nper_synop = nan", "per_synop of device 'chip' must be a number"),
        ("[chip]\nper_synop = true", "per_synop of device 'chip' must be a number"),
        ('[chip]\nper_synop = 1\ndense = "yes"', "dense of device 'chip' is true or false"),
        ("[chip]\nper_synop = 1\nsource = 3", "the source of a device is a text, not 3"),
        ("per_synop = 1e-12", r"'per_synop' in .* outside of a device.*\[name\]"),
        ("[chip.v2]\nper_synop = 1", r'quoted: \["chip\.v2"\]'),
        ("", "holds no device"),
        ("[chip\n", "no TOML file"),
    ],
)
def test_a_file_that_holds_something_else_is_an_error_that_names_it(tmp_path, text, said):
    path = tmp_path / "devices.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        Device.load(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml' cannot be read: No such file"):
        Device.load(tmp_path / "none.toml")


@pytest.mark.parametrize("key", ["per_synop", "per_update", "per_mac"])
def test_a_negative_cost_is_an_error(key):
    with pytest.raises(InputError, match=f"{key} of device 'chip'.*not negative: -1"):
        Device(**{"name": "chip", "per_synop": 1e-12, key: -1})


def test_a_device_needs_a_name():
    with pytest.raises(InputError, match="the name of a device is a text, not ''"):
        Device("", 1e-12)


@pytest.mark.parametrize("name", ["loihi", "LOIHI", "Loihi"])
def test_a_name_is_found_whatever_its_case(name):
    assert device(name) is DEVICES["Loihi"]


def test_a_device_of_ones_own_is_itself():
    assert device(CHIP) is CHIP


def test_an_unknown_device_is_an_error_with_the_known_ones_and_the_cure():
    with pytest.raises(InputError) as error:
        estimate(WORK, ["loihi", "spinaker"])
    message = str(error.value)
    assert "there is no device 'spinaker'" in message
    assert "Do you mean 'SpiNNaker'?" in message
    for name in DEVICES:
        assert f"'{name}'" in message
    assert "Device.load(path)" in message


@pytest.mark.parametrize(("devices", "said"), [([], "no device to estimate"), (3, "not 3")])
def test_no_device_is_an_error(devices, said):
    with pytest.raises(InputError, match=said):
        estimate(WORK, devices)


def test_none_in_place_of_a_device_is_an_error():
    with pytest.raises(InputError, match="there is no device None"):
        estimate(WORK, [None])


# -- layer by layer -------------------------------------------------------------------------------


def test_layers_add_up_to_the_whole_on_every_device():
    torch.manual_seed(3)
    counts = counted(Residual(), spikes(2, 5, 4)).counts
    energy = counts.energy()
    for row in energy.rows:
        layers = [layer for layer in energy.layers if layer.device is row.device]
        for part in ("synops_energy", "macs_energy", "updates_energy", "total"):
            summed = math.fsum(getattr(layer, part) for layer in layers)
            assert summed == pytest.approx(getattr(row, part))
    shares = [row["Share"] for row in energy.by_layer().to_rows() if row["Device"] == "Loihi"]
    assert math.fsum(shares) == pytest.approx(1)


def test_a_row_per_connection_and_per_layer_of_neurons():
    torch.manual_seed(3)
    counts = counted(Residual(), spikes(2, 5, 4)).counts
    rows = counts.energy(CHIP).by_layer().to_rows()
    each = {(row["Layer"], row["Source"]): row for row in rows}
    assert list(each) == [
        ("a", "x"),
        ("one", ""),
        ("b", "one"),
        ("two", ""),
        ("out", "one"),
        ("out", "two"),
        ("last", ""),
    ]
    for row in counts.rows:
        cost = each[row.connection.synapse, row.connection.source]["SynOps (J)"]
        assert cost == near(row.synops / 2 * 2e-12)
    assert each["two", ""]["Neuron updates (J)"] == near(6 * 5 * 3e-12)
    table = str(counts.energy(CHIP)).splitlines()
    (line,) = [line.split() for line in table if line.startswith(" Total")]
    assert " ".join(line[1:3]) == joules(counts.energy(CHIP).rows[0].total)


def test_an_update_costs_what_its_type_does():
    model = nn.Sequential(nn.Linear(4, 3), snntorch.Leaky(beta=0.9, init_hidden=True))
    plain = nn.Sequential(nn.Linear(4, 3), snntorch.Lapicque(beta=0.9, init_hidden=True))
    rich = nn.Sequential(nn.Linear(4, 3), snntorch.Synaptic(alpha=0.9, beta=0.8, init_hidden=True))
    chip = Device("chip", 0.0, per_addition=1.0, per_multiply=100.0, per_comparison=10_000.0)
    found = [
        estimate(work_of(one, spikes(1, 4), "N"), chip).rows[0].updates_energy
        for one in (model, plain, rich)
    ]
    assert found == [3 * 10_100, 3 * 10_100, 3 * 10_201]


def test_users_say_what_an_update_costs():
    class Odd(nn.Module):
        def forward(self, x):
            return (x > 0).float()

    model = nn.Sequential(nn.Linear(4, 3), Odd(), nn.Linear(3, 2))
    chip = Device("chip", 0.0, per_multiply=1.0)
    options = {"spiking": Odd, "layout": "N"}
    guessed = counted(model, spikes(1, 4), **options).counts.energy(chip)
    assert guessed.rows[0].updates_energy == 3  # a leak
    assert "No figures for the updates of 1, which are taken for a leak" in str(guessed)
    fxsynops.register_spiking(Odd, update=Update(multiplies=7))
    known = counted(model, spikes(1, 4), layout="N").counts.energy(chip)
    assert known.rows[0].updates_energy == 21
    assert "No figures for the updates" not in str(known)


def test_bounds_have_layers_too():
    model = nn.Sequential(nn.Linear(4, 3), snntorch.Leaky(beta=0.9, init_hidden=True))
    bound = fxsynops.analyze(model, spikes(1, 4), layout="N").upper_bound()
    (first, updates) = bound.energy(CHIP).by_layer().to_rows()
    assert first["SynOps (J)"] == near(12 * 2e-12)
    assert updates["Neuron updates (J)"] == near(3 * 3e-12)


def test_integers_cost_what_was_published():
    found = DEVICES["45 nm CMOS int32"]
    costs = (found.per_synop, found.per_mac, found.per_addition, found.per_multiply)
    assert costs == near((0.1e-12, 3.2e-12, 0.1e-12, 3.1e-12))
    assert found.per_comparison == near(0.1e-12)
    assert "Horowitz" in found.source
