"""Dense and effective figures of NeuroBench 2.3.0: its leaderboard, examples and tests.

Theirs (``SynapticOperations``): every connection layer runs again with all of its weights one and
its biases zero; "dense" on inputs of all ones, "effective" on inputs and weights with ones where
they are not zero. Padding adds zeros, so its taps do not count. Per sample; over all of its steps.
Inputs that are 0, 1 or −1 throughout make ACs, others MACs. Cells add the products of their gates,
one per unit. Ours: the structural bound, where each neuron and input has an event in each step, and
dense MACs.
"""

from itertools import pairwise

import snntorch
import torch
from torch import Tensor, nn

import fxsynops
from benchmarks.figures.rows import Row

BOARD = "NeuroBench, leaderboard.rst, {}"
EXAMPLE = "NeuroBench, examples/{}"
TEST = "NeuroBench, tests/test_metrics.py, test_synaptic_ops, {}"

RESERVOIRS = (
    966,
    913,
    836,
    656,
    547,
    661,
    577,
    694,
    831,
    522,
    952,
    838,
    728,
    577,
)  # of tau = 17 … 30


def leaky() -> nn.Module:
    return snntorch.Leaky(0.9, init_hidden=True)


def gesture() -> nn.Module:
    parts = []
    for a, b in ((2, 16), (16, 32), (32, 64)):
        parts += [nn.Conv2d(a, b, 5, padding="same"), nn.MaxPool2d(2), leaky()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(1024, 11), nn.Dropout(), leaky())


def commands() -> nn.Module:
    widths = (20, 256, 256, 256, 35)
    return nn.Sequential(
        *(part for a, b in pairwise(widths) for part in (nn.Linear(a, b), leaky()))
    )


def m5(inputs: int, width: int, outputs: int, kernel: int, stride: int, pool: int) -> nn.Module:
    parts = []
    for a, b, k, step in (
        (inputs, width, kernel, stride),
        (width, width, 3, 1),
        (width, 2 * width, 3, 1),
        (2 * width, 2 * width, 3, 1),
    ):
        parts += [nn.Conv1d(a, b, k, step), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(pool)]
    return nn.Sequential(
        *parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2 * width, outputs)
    )


def recurrent(a: int, b: int) -> list[nn.Module]:
    return [
        nn.Linear(a, b, bias=False),
        snntorch.RSynaptic(0.9, 0.9, linear_features=b, init_hidden=True, reset_mechanism="zero"),
    ]


class Decoder(nn.Module):
    """One step of a recurrent layer with several readouts."""

    def __init__(self, electrodes: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*recurrent(electrodes, hidden))
        self.out = nn.ModuleList(nn.Linear(hidden, 2, bias=False) for _ in range(heads))

    def forward(self, x: Tensor) -> list[Tensor]:
        spikes = self.hidden(x)
        return [out(spikes) for out in self.out]


class Binned(nn.Module):
    """Seven steps of normed bins."""

    def __init__(self, electrodes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([7, electrodes])
        self.layers = nn.ModuleList(
            (nn.Linear(electrodes, 32), nn.Linear(32, 48), nn.Linear(48, 2))
        )
        self.neurons = nn.ModuleList(snntorch.Leaky(0.5, threshold=0.5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        states = [neurons.reset_mem() for neurons in self.neurons]
        for y in self.norm(x).unbind(1):
            for i, (synapse, neurons) in enumerate(zip(self.layers, self.neurons, strict=True)):
                y, states[i] = neurons(synapse(y), states[i])
        return states[-1]


class Reservoir(nn.Module):
    """A step of an echo state network, whose weights are drawn as the example draws them."""

    def __init__(self, size: int, connect: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        torch.rand(size, 2, dtype=torch.float64)
        mask = torch.rand(size, size, dtype=torch.float64) <= connect
        self.into, self.recur = nn.Linear(2, size, bias=False), nn.Linear(size, size, bias=False)
        self.out = nn.Linear(size + 2, 1, bias=False)
        self.recur.weight.data[~mask] = 0

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        state = torch.tanh(self.recur(state) + self.into(x))
        return self.out(torch.cat((x, state), -1))


def dense(model: nn.Module, example: object, **options: object) -> float:
    """Operations of one sample if everything is active."""
    analysis = fxsynops.analyze(model, example, **options)
    structural = analysis.upper_bound().structural if analysis.connections else 0.0
    return structural + analysis.upper_bound(rate=0.0).workload.macs


def macs_of(model: nn.Module, x: Tensor) -> float:
    """Of the layers whose input is analog."""
    return (
        fxsynops.analyze(model, x, layout="NT", input_events=False)
        .upper_bound(rate=0.0)
        .workload.macs
    )


def by_step(model: nn.Module, *shape: int) -> float:
    """Of one step."""
    return dense(model, torch.ones(1, *shape), layout="step", input_events=True)


def analog(model: nn.Module, *examples: Tensor) -> float:
    return dense(model, examples, layout="N", input_events=False)


def rows() -> list[Row]:
    """The published figures beside ours."""
    return [*leaderboard(), *reservoir(), *tests()]


def leaderboard() -> list[Row]:
    gsc, source = by_step(commands(), 20), EXAMPLE.format("gsc/benchmark_snn.py")
    keywords = by_step(
        nn.Sequential(*recurrent(20, 1024), *recurrent(1024, 1024), nn.Linear(1024, 200)), 20
    )
    found = [
        Row(
            "DVS gesture, 150 steps: dense",
            "891,206,400",
            150 * by_step(gesture(), 2, 32, 32),
            EXAMPLE.format("dvs_gesture/benchmark_snn.py"),
        ),
        Row("Speech commands SNN, 200 steps: dense", "29,030,400", 200 * gsc, source),
        Row(
            "Speech commands SNN, tutorial: dense",
            "29,336,955",
            201 * (gsc + 803),
            EXAMPLE.format("gsc/GSC_tutorial.ipynb"),
            200 * gsc,
            "of 2024-01, when 803 biases and a 201st step, of zeros, counted",
        ),
        Row(
            "Speech commands M5: dense",
            "1,880,256",
            analog(m5(1, 32, 35, 80, 16, 4), torch.rand(1, 1, 8000)),
            EXAMPLE.format("gsc/benchmark_ann.py"),
        ),
        Row(
            "Keywords (FSCIL), M5: dense",
            "2.59e+07",
            analog(m5(20, 256, 200, 4, 2, 2), torch.rand(1, 20, 201)),
            BOARD.format("keyword FSCIL"),
            form=".2e",
        ),
        Row(
            "Keywords (FSCIL), SNN: dense",
            "3.39e+06",
            keywords * 201 / 200,
            BOARD.format("keyword FSCIL"),
            keywords,
            "per step; theirs has 201 steps in a second of 200",
            ".2e",
        ),
    ]
    for name, electrodes, snn2, snn3, macs, ann2d, ann3d in (
        ("Indy", 96, "4,900", "32,928", "21,504", "4,704", "23,136"),
        ("Loco", 192, "9,700", "54,432", "43,008", "7,776", "44,640"),
    ):
        # the input of SNN_3 is normed, and so analog
        plain = nn.Sequential(
            nn.Linear(electrodes, 50, bias=False), leaky(), nn.Linear(50, 2, bias=False), leaky()
        )
        binned = dense(
            Binned(electrodes), torch.rand(1, 7, electrodes), layout="NT", input_events=False
        )
        mlp = nn.Sequential(
            nn.Linear(electrodes, 32), nn.ReLU(), nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 2)
        )
        bins = nn.Sequential(nn.Linear(7 * electrodes, 32), *mlp[1:])
        file = EXAMPLE.format("primate_reaching/benchmark_{}.py")
        found += [
            Row(
                f"Primate reaching, SNN2, {name}: dense",
                snn2,
                by_step(plain, electrodes),
                file.format("SNN2"),
            ),
            Row(f"Primate reaching, SNN3, {name}: dense", snn3, binned, file.format("snn_3")),
            Row(
                f"Primate reaching, SNN3, {name}: effective MACs",
                macs,
                macs_of(Binned(electrodes), torch.rand(1, 7, electrodes)),
                file.format("snn_3"),
            ),
            Row(
                f"Primate reaching, ANN2D, {name}: dense",
                ann2d,
                analog(mlp, torch.rand(1, electrodes)),
                BOARD.format("baseline ANN"),
            ),
            Row(
                f"Primate reaching, ANN3D, {name}: dense",
                ann3d,
                analog(bins, torch.rand(1, 7 * electrodes)),
                file.format("3d_ann"),
            ),
        ]
    for name, hidden, heads, theirs in (
        ("tinyRSNN", 64, 1, ("10,368", "16,512", "13,440")),
        ("bigRSNN", 1024, 5, ("1,157,120", "1,255,424", "1,206,272")),
    ):
        ours = [by_step(Decoder(electrodes, hidden, heads), electrodes) for electrodes in (96, 192)]
        source = "fmi-basel/neural-decoding-RSNN, README.md, table 2 (arXiv:2409.01762)"
        found += [
            Row(f"{name}, Indy: dense", theirs[0], ours[0], source),
            Row(f"{name}, Loco: dense", theirs[1], ours[1], source),
            Row(f"{name}, mean: dense", theirs[2], sum(ours) / 2, BOARD.format("primate reaching")),
        ]
    return found


def reservoir() -> list[Row]:
    """The effective figure needs no data: no state, and no input, is zero."""
    x = torch.tensor([[1.0, 0.5]])
    counter = fxsynops.SynOpsCounter(
        Reservoir(966, 0.97),
        (x, torch.rand(1, 966)),
        layout="N",
        events="nonzero",
        weights="nonzero",
        spiking=torch.tanh,
        input_events=True,
    )
    with torch.no_grad():
        counter(x, torch.rand(1, 966))
    sizes = [analog(Reservoir(n, 1.0), x, torch.rand(1, n)) for n in RESERVOIRS]
    source = EXAMPLE.format("mackey_glass/MG_tutorial.ipynb (tau = 17)")
    return [
        Row("Echo state network: dense", "936,056", sizes[0], source),
        Row("Echo state network: effective", "908,294", counter.counts.total, source),
        Row(
            "Echo state networks, mean of 14: dense",
            "565,148.5714",
            sum(sizes) / len(sizes),
            EXAMPLE.format("mackey_glass/esn_benchmark.py"),
            form=",.4f",
        ),
    ]


def tests() -> list[Row]:
    def linears(*widths: int) -> nn.Module:
        return nn.Sequential(
            *(
                part
                for a, b in pairwise(widths)
                for part in (nn.Linear(a, b, bias=False), nn.Sigmoid())
            )
        )

    x, state = torch.rand(1, 25), torch.rand(1, 5)
    gates = "3 products of gates in each of 5 units"
    return [
        Row(
            "Test: two linear layers",
            "1,125",
            analog(linears(20, 25, 25), torch.rand(1, 20)),
            TEST.format("net_relu_0_2"),
        ),
        Row(
            "Test: four linear layers",
            "2,150",
            analog(linears(20, 20, 25, 25, 25), torch.rand(1, 20)),
            TEST.format("net_relu_50_2"),
        ),
        Row(
            "Test: convolution, 3 × 3",
            "9",
            analog(nn.Conv2d(1, 1, 3), torch.rand(1, 1, 3, 3)),
            TEST.format("net_conv_2d"),
        ),
        Row(
            "Test: convolution, 12 × 12",
            "900",
            analog(nn.Conv2d(1, 1, 3), torch.rand(1, 1, 12, 12)),
            TEST.format("net_conv_2d"),
        ),
        Row(
            "Test: convolution, 1d",
            "150",
            analog(nn.Conv1d(5, 1, 5), torch.rand(1, 5, 10)),
            TEST.format("net_conv_1d"),
        ),
        Row(
            "Test: SNN, 10 steps",
            "1,000",
            10 * by_step(nn.Sequential(nn.Linear(20, 5, bias=False), leaky()), 20),
            TEST.format("net_snn"),
        ),
        Row("Test: RNNCell", "150", analog(nn.RNNCell(25, 5), x, state), TEST.format("simple_RNN")),
        *(
            Row(f"Test: {name}", theirs, ours + 15, TEST.format(f"simple_{name[:-4]}"), ours, gates)
            for name, theirs, ours in (
                ("LSTMCell", "615", analog(Cell(), x, state)),
                ("GRUCell", "465", analog(nn.GRUCell(25, 5), x, state)),
            )
        ),
    ]


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(25, 5)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.cell(x, (h, h))[0]
