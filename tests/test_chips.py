"""Whether networks fit chips: sinabs' own verdicts on Speck, and the published limits of others."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import sinabs.layers as sl
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import fxsynops
import fxsynops.nn as fnn
from fxsynops.chips import Chip, EventCosts, chip, chips
from fxsynops.errors import InputError
from tests.chip_cases import CASES, ChipCase
from tests.oracles import near

POOLS = {"sum": sl.SumPool2d, "avg": nn.AvgPool2d, "max": nn.MaxPool2d}


class Network(nn.Module):
    """A case's layers: weights, a norm, neurons, pools; each reads the one before, or others."""

    def __init__(self, case: ChipCase):
        super().__init__()
        self.case = case
        for i, one in enumerate(case.layers):
            self.add_module(f"w{i}", self._weights(one))
            after: list[nn.Module] = []
            if one.get("batch_norm"):
                width = (one.get("conv") or one["linear"])[1]
                after.append(nn.BatchNorm2d(width) if "conv" in one else nn.BatchNorm1d(width))
            if one.get("neuron") == "lif":
                after.append(sl.LIFSqueeze(tau_mem=10.0, batch_size=1))
            elif "neuron" not in one:
                after.append(sl.IAFSqueeze(batch_size=1))
            after += [POOLS[kind](*sizes) for kind, *sizes in one.get("pools", ())]
            self.add_module(f"after{i}", nn.Sequential(*after))

    @staticmethod
    def _weights(one: dict) -> nn.Module:
        bias = one.get("bias", False)
        if "linear" in one:
            return nn.Linear(*one["linear"], bias=bias)
        names = ("stride", "padding", "dilation", "groups")
        options = {name: one[name] for name in names if name in one}
        return nn.Conv2d(*one["conv"], one["kernel"], bias=bias, **options)

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for i, one in enumerate(self.case.layers):
            parts = [x if k == -1 else found[k] for k in one.get("inputs", [i - 1])]
            y = parts[0] if len(parts) == 1 else sum(parts[1:], parts[0])
            y = y.flatten(1) if "linear" in one else y
            found.append(getattr(self, f"after{i}")(getattr(self, f"w{i}")(y)))
        read = {k for i, one in enumerate(self.case.layers) for k in one.get("inputs", [i - 1])}
        return [y for i, y in enumerate(found) if i not in read]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_speck_fits_what_sinabs_deploys(case):
    x = torch.zeros(2, *case.input)
    analysis = fxsynops.analyze(
        Network(case).eval(), x, layout="(NT)", batch_size=1, input_events=True, audit=False
    )
    found = analysis.fits(case.chip)
    places = {place.shape.layer.name: place for place in found.places}
    ordered = [places[f"w{i}"] for i in range(len(case.layers))]
    if case.memory is not None:
        kinds = ("Kernel memory", "Neuron memory", "Bias memory")
        assert [[place.memory[kind] for place in ordered] for kind in kinds] == case.memory
    if case.cores is not None:
        assert [list(place.possible) for place in ordered] == case.cores
    assert found.ok == (case.accepted and not case.documented)
    if found.ok:
        cores = [core for taken in found.cores.values() for core in taken]
        assert len(set(cores)) == len(cores) == len(case.layers)
        assert all(place.cores[0] in place.possible for place in ordered)
    else:
        assert found.broken()


def test_the_cases_are_of_both_kinds():
    assert sum(case.accepted for case in CASES) >= 30
    assert sum(not case.accepted for case in CASES) >= 15
    assert sum(bool(case.documented) for case in CASES) >= 10


def fits(model: nn.Module, x: Tensor, name: str | Chip, layout: str = "NT", **options):
    return fxsynops.analyze(model, x, layout=layout, **options).fits(name)


def test_why_there_is_no_assignment():
    (case,) = (case for case in CASES if case.name == "four_big_neuron_layers")
    analysis = fxsynops.analyze(
        Network(case).eval(), torch.zeros(2, *case.input), layout="(NT)", batch_size=1, audit=False
    )
    found = analysis.fits("speck2f")
    text = str(found)
    assert "does not fit Speck 2f" in text.splitlines()[0]
    assert "No core is left for" in text
    assert "fit only on 0, 1, 2" in text


def test_what_is_left_and_where_it_is_from():
    (case,) = (case for case in CASES if case.name == "docs_basics")
    analysis = fxsynops.analyze(
        Network(case).eval(), torch.zeros(2, *case.input), layout="(NT)", batch_size=1, audit=False
    )
    found = analysis.fits("speck2f")
    content = json.loads(found.to_json())
    assert content["ok"] is True
    (kernel,) = (
        row
        for row in content["limits"]
        if (row["Layer"], row["Constraint"]) == ("w1", "Kernel memory")
    )
    assert (kernel["Value"], kernel["Limit"], kernel["Left"]) == (20480, 65536, 45056)
    assert "4 of 9 cores are left" in str(found)
    assert "sinabs 3.1.3" in str(found)


def test_what_speck_cannot_run_is_named():
    image = nn.Sequential(nn.Conv2d(1, 2, 3), fnn.IAFSqueeze(batch_size=1))
    found = fits(image, torch.rand(4, 1, 8, 8), "speck2f", "(NT)", batch_size=1, input_events=False)
    assert [str(check) for check in found.broken()] == ["input analog values, not events"]

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4)
            self.fire = nn.ModuleList(neuron.IFNode(step_mode="m") for _ in range(3))

        def forward(self, x):
            q, k = self.fire[0](self.q(x)), self.fire[1](self.k(x))
            return self.fire[2](q @ k.transpose(-2, -1))

    found = fits(Attention(), torch.ones(3, 1, 4, 4), "speck2f", "TN")
    assert not found.ok
    assert any(check.constraint == "operation" for check in found.broken())


# -- cores that are alike -------------------------------------------------------------------------


def dense(*widths: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), fnn.IAF()]
    return nn.Sequential(*parts)


def test_loihi_takes_as_many_cores_as_neurons_synapses_and_axons_need():
    found = fits(dense(100, 3000, 10), torch.ones(1, 2, 100), "loihi")
    # 3,000 neurons: 3 cores of 1,024; 300,000 synapses of 8 bits: 3 of 1,048,576 bits
    assert {name: len(cores) for name, cores in found.cores.items()} == {"0": 3, "2": 1}
    assert found.ok
    assert "4 of 128 cores" in str(found)
    wide = fits(dense(1000, 1000, 10), torch.ones(1, 2, 1000), "loihi")
    assert len(wide.cores["0"]) == 8  # 8,000,000 bits
    axons = fits(dense(5000, 4, 10), torch.ones(1, 2, 5000), "loihi")
    # no core can listen to 5,000 neurons, however few neurons it has
    assert [str(check) for check in axons.broken()] == ["axons into a core 5,000, at most 4,096"]


def test_spinnaker_takes_cores_of_256_neurons():
    found = fits(dense(10, 600, 300), torch.ones(1, 2, 10), "spinnaker")
    assert {name: len(cores) for name, cores in found.cores.items()} == {"0": 3, "2": 2}
    too_many = fits(dense(10, 17 * 256, 300), torch.ones(1, 2, 10), "spinnaker")
    assert [str(check) for check in too_many.broken()] == ["cores 19, at most 17"]
    assert "on 2 chips" in str(too_many)


def test_a_loop_is_one_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = (nn.Linear(*sizes, bias=False) for sizes in ((16, 100), (100, 8)))
            self.fire = snntorch.RLeaky(beta=0.9, linear_features=100)
            self.fire.recurrent.bias = None
            self.last = snntorch.Leaky(beta=0.9)

        def forward(self, x):
            spikes, state = self.fire.init_rleaky()
            other, found = self.last.init_leaky(), []
            for step in x:
                spikes, state = self.fire(self.fc(step), spikes, state)
                out, other = self.last(self.out(spikes), other)
                found.append(out)
            return torch.stack(found)

    x = torch.ones(5, 1, 16)
    found = fits(Net(), x, "loihi", "TN")
    assert {name: len(cores) for name, cores in found.cores.items()} == {"fc": 1, "out": 1}
    xylo = fits(Net(), x, "xylo_audio3", "TN")
    limits = {check.constraint: check.value for check in xylo.rows if check.layer == "network"}
    assert limits["inputs"] == 16
    assert limits["hidden neurons"] == 100
    assert limits["output neurons"] == 8
    assert limits["synapses between hidden neurons"] == 100 * 100
    assert xylo.ok
    narrow = fits(Net(), x, "xylo_audio2", "TN")  # a neuron reaches 64 others at most
    assert {check.constraint for check in narrow.broken()} == {"fan-out to hidden neurons"}


# -- chips of one's own ---------------------------------------------------------------------------


def test_a_chip_from_a_file(tmp_path):
    path = tmp_path / "chips.toml"
    path.write_text(
        '[mine]\ntitle = "Ours"\nsource = "data sheet"\nsame_as = "speck2f"\nkernel = 3\n\n'
        "[small]\ncores = 2\nneurons_per_core = 4\n[small.cost]\nneuron_ns = 1\nsynapse_ns = 2\n"
        "barrier_ns = [[1, 10.0]]\n"
    )
    mine, small = Chip.load(path)
    assert (mine.kernel, mine.strides, mine.source) == (3, (1, 2, 4, 8), "data sheet")
    costs = {"neuron_ns": 1, "synapse_ns": 2, "barrier_ns": ((1, 10.0),)}
    assert small.cost == EventCosts("no source given", **costs)
    found = fits(dense(3, 9, 2), torch.ones(1, 2, 3), small)
    assert [str(check) for check in found.broken()] == ["cores 4, at most 2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]\nkernal = 3", r"'kernal'.*Do you mean kernel"),
        ("[a]\nkernel = -1", "kernel of 'a' must be of whole numbers"),
        ("[a]\nkernel = 2.5", "kernel of 'a' must be of whole numbers"),
        (
            "[a]\nkernel_memory = [1, 2]\nneuron_memory = [1]\nbias_memory = [1]",
            "one number per core",
        ),
        ('[a]\nsame_as = "b"', "same as 'b', which there is not"),
        ("kernel = 3", "stands outside of a chip"),
        ("", "holds no chip"),
        ("[a.cost]\nneuron = 3", r"cost of 'a'.*\['neuron'\]"),
        ('[a]\nsame_as = "b"\n[b]\nsame_as = "a"', "leads nowhere"),
        ('[a]\nsame_as = ["b"]', "leads nowhere"),
        ("[a]\ncores = 0", "cores of 'a' must be of whole numbers and at least 1"),
        ("[a]\nstrides = 1", "strides of 'a' is a list of whole numbers"),
        ("[a]\nkernel = [3]", "kernel of 'a' is one whole number"),
        ("[a]\nkernel_memory = 4096", "kernel_memory of 'a' is a list"),
        ('[a]\nkernel = 3\nsquare = "no"', "square of 'a' is true or false"),
        ("[a]\nkernel = 3\ncost = 3", "the cost of 'a'.*is a table"),
        ("[a]\nkernel = 3\n[a.cost]\nspike_ns = -1", "spike_ns must be a number and not negative"),
        ("[a]\nkernel = 3\n[a.cost]\nbarrier_ns = [1, 600]", "barrier_ns is a list of pairs"),
        ("[a]\nkernel = 3\n[a.cost]\ncores_per_tile = 0", "cores_per_tile is a whole number"),
        ('[a]\ntitle = "A"', "has no limit"),
    ],
)
def test_what_makes_no_sense_in_a_file_is_an_error(tmp_path, text, says):
    path = tmp_path / "chips.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        Chip.load(path)


def test_what_a_chip_does_not_limit_fits_it():
    front = nn.Conv2d(2, 4, (1, 3), stride=(1, 3), padding=(0, 2), dilation=(1, 2), groups=2)
    model = nn.Sequential(front, sl.LIFSqueeze(tau_mem=10.0, batch_size=1), sl.SumPool2d((1, 2)))
    model.extend([nn.Conv2d(4, 2, 1, bias=False), sl.IAFSqueeze(batch_size=1)])
    for limits in ({"channels": 4}, {"padding": 2}, {"cores": 1000}, {"outputs": 1000}):
        found = fits(model, torch.ones(3, 2, 5, 9), Chip("own", **limits), "(NT)", batch_size=1)
        assert (found.broken(), found.ok) == ((), True)
    closed = {"kernel": 2, "square": True, "strides": (1,), "pools": (1,), "padding": 0}
    closed |= {"groups": 1, "dilation": 1, "channels": 3, "no_leak": True, "no_bias": True}
    for limit, value in closed.items():
        chip = Chip("own", **{limit: value})
        assert not fits(model, torch.ones(3, 2, 5, 9), chip, "(NT)", batch_size=1).ok, limit


@pytest.mark.parametrize("limit", ["padding", "max_fan_out", "hidden_weights"])
def test_some_limits_may_be_zero(limit):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.r, self.b = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.fire = snntorch.Leaky(0.9)

        def forward(self, x):
            s = state = torch.zeros(len(x), 4)
            total = 0
            for t in range(x.shape[1]):
                s, state = self.fire(self.a(x[:, t]) + self.r(s), state)
                total = total + self.b(s)
            return total

    chip = Chip("own", cores=1000, **{limit: 0})
    assert fits(Recurrent(), torch.ones(1, 5, 3), chip).ok == (limit == "padding")
    with pytest.raises(InputError, match="at least 1, not 0"):
        Chip("own", kernel=0)


def test_names_are_forgiving_and_wrong_ones_are_not():
    assert chip("Speck 2F") is chips()["speck2f"]
    assert chip("xylo-audio2").hidden == 1000
    with pytest.raises(InputError, match=r"there is no chip 'spek2f'.*Do you mean 'speck2f'"):
        chip("spek2f")
    assert all(one.source != "no source given" for one in chips().values())


def test_lists_do_and_costs_are_completed(tmp_path):
    mine = Chip("mine", kernel_memory=[8], neuron_memory=[8], bias_memory=[8], strides=[1])
    assert (mine.kernel_memory, mine.strides) == ((8,), (1,))
    path = tmp_path / "chips.toml"
    path.write_text('[a]\nsame_as = "Loihi"\n[a.cost]\nspike_ns = 1\n')
    (other,) = Chip.load(path)
    assert (other.cost.spike_ns, other.cost.synapse_ns) == (1, 3.8)
    alone = fits(dense(3, 9, 2), torch.ones(1, 2, 3), Chip("x", in_axons_per_core=2))
    assert {check.constraint for check in alone.broken()} == {"axons into a core"}


# -- time -----------------------------------------------------------------------------------------


def test_time_and_energy_of_a_step_by_hand():
    """4 neurons that all fire, one core each way: 10 neurons behind, all to all, in one step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4, bias=False), fnn.IAF(), nn.Linear(4, 10), fnn.IAF())
    nn.init.constant_(model[0].weight, 1.0)
    nn.init.constant_(model[2].weight, 0.0)
    nn.init.constant_(model[2].bias, 0.0)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 1, 1), layout="NT")
    model[1].reset_states()
    counter(torch.ones(1, 1, 1))
    found = counter.counts.latency("loihi")
    first, last = found.rows
    # sending: every neuron 6.0 + 3.7 ns, a spike 30 ns and a message of 5.1 ns
    assert first.sending == near(4 * (9.7 + 30 + 5.1) * 1e-9)
    assert last.receiving == near((4 * 16 + 40 * 3.8) * 1e-9)
    assert last.sending == near(10 * 9.7e-9)
    assert found.barrier == near(0.6e-6)
    assert found.step == near(0.816e-6)  # as SANA-FE 2.2.9 has it
    assert found.latency == found.step
    assert found.throughput == pytest.approx(1 / 0.816e-6)
    of_last = 10 * 72.8 + 4 * 111 + 40 * 35.5
    assert last.energy == near(of_last * 1e-12)
    assert "816 ns per step" in str(found)
    assert "every neuron is active" in str(found)


@pytest.mark.parametrize(
    ("figure", "sending", "receiving", "energy"),
    [
        (None, (0, 0), (0, 0), 0),
        ("neuron_ns", (4, 10), (0, 0), 0),
        ("update_ns", (4, 10), (0, 0), 0),
        ("spike_ns", (4, 0), (0, 0), 0),
        ("message_out_ns", (4, 0), (0, 0), 0),
        ("message_in_ns", (0, 0), (1, 4), 0),
        ("synapse_ns", (0, 0), (4, 40), 0),
        ("neuron_pj", (0, 0), (0, 0), 14),
        ("update_pj", (0, 0), (0, 0), 14),
        ("spike_pj", (0, 0), (0, 0), 4),
        ("message_pj", (0, 0), (0, 0), 1 + 4),
        ("synapse_pj", (0, 0), (0, 0), 4 + 40),
    ],
)
def test_each_figure_costs_what_it_is_of_and_what_is_not_given_is_free(
    figure, sending, receiving, energy
):
    """One event comes to 4 neurons, which all fire, on their way to 10 that do not."""
    model = nn.Sequential(nn.Linear(1, 4, bias=False), fnn.IAF(), nn.Linear(4, 10, bias=False))
    model.append(fnn.IAF())
    nn.init.constant_(model[0].weight, 1.0)
    nn.init.constant_(model[2].weight, 0.0)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 1, 1), layout="NT")
    model[1].reset_states()
    counter(torch.ones(1, 1, 1))
    cost = EventCosts("by hand", **({figure: 7.0} if figure else {}))
    found = counter.counts.latency(Chip("own", neurons_per_core=10, cost=cost))
    assert [row.sending for row in found.rows] == near([7e-9 * n for n in sending])
    assert [row.receiving for row in found.rows] == near([7e-9 * n for n in receiving])
    assert found.energy == near(7e-12 * energy)
    assert found.step == near(7e-9 * max(*sending, *receiving))


def test_no_figures_no_latency():
    model = dense(3, 2)
    counter = fxsynops.SynOpsCounter(model, torch.ones(1, 2, 3), layout="NT")
    counter(torch.ones(1, 2, 3))
    with pytest.raises(InputError, match="no figures are known for how long events take on Speck"):
        counter.counts.latency("speck2f")


def test_unresolved_operations_are_no_verdict():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.fire, self.fc = neuron.IFNode(step_mode="m"), layer.Linear(4, 2, step_mode="m")

        def forward(self, x):
            return self.fc(torch.linalg.matrix_exp(self.fire(x)))

    model = Odd()
    functional.reset_net(model)
    analysis = fxsynops.analyze(model, torch.ones(2, 1, 4, 4), layout="TN", strict=False)
    if not analysis.unresolved:
        pytest.skip("this operation is understood")
    with pytest.raises(InputError, match="does not say whether it fits"):
        analysis.fits("loihi")


# -- what lies between layers ---------------------------------------------------------------------


def conv(a: int, b: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(a, b, kernel, bias=False, **{"padding": kernel // 2} | options)


class Act(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


class Both(nn.Module):
    """Two layers behind one, joined."""

    def __init__(self, join, a=None, b=None):
        super().__init__()
        self.first, self.one, self.two = (
            nn.Sequential(conv(2 if i == 0 else 4, 4), iaf()) for i in range(3)
        )
        self.a, self.b = a or nn.Identity(), b or nn.Identity()
        self.join, self.last = join, nn.Sequential(conv(4, 4), iaf())

    def forward(self, x):
        y = self.first(x)
        return self.last(self.join(self.a(self.one(y)), self.b(self.two(y))))


def iaf() -> nn.Module:
    return sl.IAFSqueeze(batch_size=1)


REFUSED = {
    "pool before the neurons": (nn.Sequential(conv(2, 4), nn.AvgPool2d(2), iaf()), "avg_pool2d"),
    "max pool before them": (nn.Sequential(conv(2, 4), nn.MaxPool2d(2), iaf()), "max_pool2d"),
    "relu before them": (nn.Sequential(conv(2, 4), nn.ReLU(), iaf()), "relu"),
    "layer norm before them": (
        nn.Sequential(conv(2, 4), nn.LayerNorm([4, 16, 16]), iaf()),
        "behind it",
    ),
    "a leaky integrator before them": (
        nn.Sequential(conv(2, 4), sl.ExpLeakSqueeze(tau_mem=9.0, batch_size=1), iaf()),
        "ExpLeak",
    ),
    "mean over a map": (
        nn.Sequential(conv(2, 4), iaf(), Act(lambda x: x.mean((2, 3))), nn.Linear(4, 3), iaf()),
        "mean",
    ),
    "every second pixel": (
        nn.Sequential(conv(2, 4), iaf(), Act(lambda x: x[:, :, ::2, ::2]), conv(4, 4), iaf()),
        "getitem",
    ),
    "padded pool": (
        nn.Sequential(conv(2, 4), iaf(), nn.AvgPool2d(2, 2, 1), conv(4, 4), iaf()),
        "avg_pool2d",
    ),
    "adaptive pool": (
        nn.Sequential(conv(2, 4), iaf(), nn.AdaptiveAvgPool2d(1), conv(4, 4, 1), iaf()),
        "adaptive_avg_pool2d",
    ),
    "upsampling": (
        nn.Sequential(conv(2, 4), iaf(), nn.Upsample(scale_factor=2), conv(4, 4), iaf()),
        "",
    ),
    "shuffled channels": (
        nn.Sequential(conv(2, 4), iaf(), nn.ChannelShuffle(2), conv(4, 4), iaf()),
        "channel_shuffle",
    ),
    "reflected borders": (nn.Sequential(conv(2, 4, padding_mode="reflect"), iaf()), "pad"),
    "asymmetric padding": (nn.Sequential(conv(2, 4, 4, padding="same"), iaf()), "asymmetric"),
    "norm in front of weights": (
        nn.Sequential(conv(2, 4), iaf(), nn.BatchNorm2d(4), conv(4, 4), iaf()),
        "in front of it",
    ),
    "neurons behind neurons": (nn.Sequential(conv(2, 4), iaf(), iaf()), "no synapse, not one"),
    "neurons first": (nn.Sequential(iaf(), conv(2, 4), iaf()), "no synapse, not one"),
    "one axis of several": (
        nn.Sequential(conv(2, 4), iaf(), nn.Linear(16, 10), iaf()),
        "one of several axes",
    ),
    "difference": (Both(lambda a, b: a - b), "sub"),
    "product": (Both(lambda a, b: a * b), "mul"),
    "max pools in branches": (
        Both(lambda a, b: a + b, nn.MaxPool2d(2), nn.MaxPool2d(2)),
        "max_pool2d",
    ),
    "large pools in branches": (
        Both(lambda a, b: a + b, nn.AvgPool2d(8), nn.AvgPool2d(8)),
        "pool in front 8, not 1, 2, 4",
    ),
    "no weights": (nn.Sequential(iaf(), nn.AvgPool2d(2)), "layers 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_core_of_speck_cannot_do_is_refused_by_its_name(name):
    model, says = REFUSED[name]
    found = fits(model.eval(), torch.ones(2, 2, 16, 16), "speck2f", "(NT)", batch_size=1)
    assert any(says in str(check) for check in found.broken()), list(map(str, found.broken()))


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), iaf(), nn.AvgPool2d(2), conv(4, 4), iaf()),
        nn.Sequential(
            conv(2, 4), iaf(), sl.SumPool2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(256, 3), iaf()
        ),
        Both(lambda a, b: a + b),
        Both(lambda a, b: a + b, nn.AvgPool2d(2), nn.AvgPool2d(2)),
    ],
)
def test_what_it_can_do_is_not(model):
    found = fits(model.eval(), torch.ones(2, 2, 16, 16), "speck2f", "(NT)", batch_size=1)
    assert [str(check) for check in found.broken()] == []


def test_a_linear_layer_behind_a_sum_of_flattened_maps_has_their_size():
    model = Both(lambda a, b: a.flatten(1) + b.flatten(1))
    model.last = nn.Sequential(nn.Linear(4 * 256, 3, bias=False), iaf())
    found = fits(model.eval(), torch.ones(2, 2, 16, 16), "speck2f", "(NT)", batch_size=1)
    (place,) = (place for place in found.places if place.shape.layer.name.startswith("last"))
    assert (place.shape.inputs, place.shape.kernel) == ((4, 16, 16), (16, 16))


def test_analog_networks_fit_no_spiking_chip():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    analysis = fxsynops.analyze(model, torch.rand(1, 4), layout="N", input_events=False)
    for name in ("loihi", "spinnaker", "xylo_audio3", "speck2f"):
        assert any("analog values" in str(check) for check in analysis.fits(name).broken())


def test_convolutions_on_loihi_lie_in_tiles():
    model = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), fnn.IAFSqueeze(batch_size=1))
    found = fits(model, torch.ones(1, 16, 64, 64), "loihi", "(NT)", batch_size=1)
    (cores,) = found.cores.values()
    assert 128 <= len(cores) < 200  # 32 × 64 × 64 neurons are 128 times 1,024
    (axons,) = (check for check in found.rows if check.constraint == "axons into a core")
    assert axons.ok


def test_two_inputs_and_fan_out_to_two_layers_on_xylo():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = ((10, 30), (10, 30), (30, 40), (30, 40), (40, 4), (40, 4))
            self.fc = nn.ModuleList(nn.Linear(*size, bias=False) for size in sizes)
            self.fire = nn.ModuleList(fnn.IAF() for _ in range(4))

        def forward(self, x, y):
            first = self.fire[0](self.fc[0](x) + self.fc[1](y))
            a, b = (self.fire[i](self.fc[i + 1](first)) for i in (1, 2))
            return self.fire[3](self.fc[4](a) + self.fc[5](b))

    x = torch.ones(1, 3, 10)
    found = fits(Two(), (x, x), "xylo_audio2")
    values = {(check.layer, check.constraint): check.value for check in found.rows}
    assert values["network", "inputs"] == 20
    assert values["network", "hidden neurons"] == 30 + 40 + 40
    reach = [v for (_, constraint), v in values.items() if constraint.startswith("fan-out")]
    assert reach == [80]
    small = fits(Two(), (x, x), "xylo_audio3")
    values = {(check.layer, check.constraint): check.value for check in small.rows}
    assert values["network", "hidden neurons that inputs reach"] == 30
    assert values["network", "hidden neurons that outputs read"] == 80


def test_xylo_has_no_biases_and_a_layer_without_neurons_is_no_layer():
    found = fits(dense(8, 10, 4), torch.ones(1, 3, 8), "xylo_audio3")
    assert [str(check) for check in found.broken("0")] == ["bias biased, not none"]
    model = nn.Sequential(nn.Linear(8, 10, bias=False), fnn.IAF(), nn.Linear(10, 4, bias=False))
    readout = fits(model, torch.ones(1, 3, 8), "xylo_audio3")
    assert [str(check) for check in readout.broken("2")] == ["what it drives none, not neurons"]


def test_a_convolution_with_two_destinations_is_the_most_on_speck():
    (case,) = (case for case in CASES if case.name == "three_destinations")
    analysis = fxsynops.analyze(
        Network(case).eval(), torch.zeros(2, *case.input), layout="(NT)", batch_size=1, audit=False
    )
    values = [c for c in analysis.fits("speck2f").rows if c.constraint == "destinations"]
    assert max(check.value for check in values) == 3
    assert [check.ok for check in values if check.value == 3] == [False]
    assert all(check.ok for check in values if check.value <= 2)


def test_pools_must_be_square_where_kernels_must_whatever_their_sizes():
    for size, square in (((1, 2), False), ((2, 2), True)):
        model = nn.Sequential(
            nn.Conv2d(1, 1, 1, bias=False),
            fnn.IAFSqueeze(batch_size=1),
            nn.AvgPool2d(size),
            nn.Conv2d(1, 1, 1, bias=False),
            fnn.IAFSqueeze(batch_size=1),
        )
        analysis = fxsynops.analyze(model, torch.ones(3, 1, 4, 4), layout="(NT)", batch_size=1)
        assert analysis.fits(Chip("own", square=True)).ok is square
        assert analysis.fits(Chip("own", square=True, pools=(1, 2))).ok is square
