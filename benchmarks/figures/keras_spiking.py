"""keras-spiking's ``ModelEnergy`` example,
https://www.nengo.ai/keras-spiking/v0.3.0/examples/model-energy.html.

Theirs: per layer, connections × (rate · dt, or 1 on a device that does not spike) × J/synop × steps
+ neurons × J/neuron × steps (one step on a device that does not spike); no padding is involved.
Rates are means of the layers' inputs. The released pages (v0.2.0, v0.3.0) show a model whose two
filters happened to be negative, so that only the input has a rate; the page of the development
version (2023-02-08) prints 5, 1.4 and 1 Hz, and 9.5e-08 J for the second layer in 20 steps, so that
1.4 is 1.407 to 1.415.
"""

import torch
from torch import nn

import fxsynops
from benchmarks.figures.rows import Row
from fxsynops.energy import DEVICES, Device, estimate

PAGE = "keras-spiking v0.3.0, docs/examples/model-energy.html"
DEVELOPMENT = "keras-spiking docs of 2023-02-08, examples/model-energy.html"
CLASS = "keras-spiking v0.3.0, docstring of ModelEnergy"
DT = 0.001  # seconds: keras_spiking.default.dt


def rows() -> list[Row]:
    """The published figures beside ours."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 7),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(968, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    return [*spiking(model), *dense(model), *docstring()]


def spiking(model: nn.Module) -> list[Row]:
    analysis = fxsynops.analyze(
        model, torch.ones(1, 1, 28, 28), layout="N", spiking=nn.ReLU, input_events=True
    )
    loihi = DEVICES["Loihi"]
    found = []
    for name, hertz, dt, steps, theirs, source in (
        ("5 Hz, 1 ms, 1 step", (5, 0, 0), DT, 1, "9.52e-08", PAGE),
        ("5 Hz, 2 ms, 1 step", (5, 0, 0), 2 * DT, 1, "1.02e-07", PAGE),
        ("5 Hz, 1 ms, 10 steps", (5, 0, 0), DT, 10, "9.52e-07", PAGE),
        ("5 Hz, 1 ms, 20 steps", (5, 0, 0), DT, 20, "1.90e-06", PAGE),
        ("1 Hz, 1 ms, 10 steps", (1, 0, 0), DT, 10, "9.01e-07", PAGE),
        ("5, 1.41, 1 Hz, 1 ms, 1 step", (5, 1.41, 1), DT, 1, "1.00e-07", DEVELOPMENT),
        ("5, 1.41, 1 Hz, 1 ms, 10 steps", (5, 1.41, 1), DT, 10, "1.00e-06", DEVELOPMENT),
        ("5, 1.41, 1 Hz, 2 ms, 1 step", (5, 1.41, 1), 2 * DT, 1, "1.11e-07", DEVELOPMENT),
    ):
        rate = dict(
            zip((row.source for row in analysis.connections), (f * dt for f in hertz), strict=True)
        )
        # one forward is one step, which is repeated
        work = analysis.upper_bound(rate=rate).workload
        joules = steps * estimate(work, loihi).rows[0].total
        found.append(Row(f"Loihi, {name} (J)", theirs, joules, source, form=".2e"))
    return found


def dense(model: nn.Module) -> list[Row]:
    analysis = fxsynops.analyze(
        model, torch.rand(1, 1, 28, 28), layout="N", spiking=nn.ReLU, input_events=False
    )
    return on_dense_devices(
        analysis,
        (
            ("CPU", 8.6e-9, 8.6e-9, "1.49e-03", PAGE),
            ("GPU", 0.3e-9, 0.3e-9, "5.21e-05", PAGE),
            ("my-gpu", 1e-9, 2e-9, "1.75e-04", PAGE),
        ),
    )


def docstring() -> list[Row]:
    analysis = fxsynops.analyze(
        nn.Sequential(nn.Linear(784, 128), nn.ReLU()),
        torch.rand(1, 784),
        layout="N",
        spiking=nn.ReLU,
        input_events=False,
    )
    return on_dense_devices(
        analysis,
        (
            ("CPU, one layer", 8.6e-9, 8.6e-9, "8.64e-04", CLASS),
            ("my-cpu, one layer", 1e-10, 2e-9, "1.03e-05", CLASS),
        ),
    )


def on_dense_devices(analysis, devices) -> list[Row]:
    """Each connection and each neuron counts once."""
    work = analysis.upper_bound(rate=0.0).workload
    found = []
    for name, synop, update, theirs, source in devices:
        (row,) = estimate(work, Device(name, synop, update, dense=True)).rows
        found.append(Row(f"{name} (J)", theirs, row.total, source, form=".2e"))
    return found
