"""lava-dl's PilotNet table (sigma-delta network),
tutorials/lava/lib/dl/slayer/pilotnet/train.ipynb.

Theirs (``compare_ops`` in utils.py beside it, "ignoring padding"): convolution: events of the layer
before × out_channels × kernel / stride; dense: events × out_features; MACs of the ANN: the same
with every activation for events. Events are means per sample and step over the test set.
"""

import torch
from torch import nn

import fxsynops
from benchmarks.figures.rows import Row

SOURCE = "lava-dl, tutorials/lava/lib/dl/slayer/pilotnet/train.ipynb, 'Event and Synops comparison'"
EVENTS = (2475.93, 239.46, 422.39, 558.71, 29.90, 4.80, 1.35, 0.16)  # what drives each layer
ROUNDED = 0.005  # events are printed with two digits
SYNOPS = (
    "133,700.12",
    "19,395.86",
    "121,649.28",
    "321,818.47",
    "2,989.97",
    "240.00",
    "13.46",
    "0.16",
)
MACS = ("534,600", "1,524,096", "1,741,824", "3,244,032", "256,000", "5,000", "500", "10")


def pilotnet() -> nn.Sequential:
    """Of images of 3 × 33 × 100. A ReLU stands where a sigma-delta neuron puts out its events."""
    convolutions = (
        nn.Conv2d(3, 24, 3, 2),
        nn.Conv2d(24, 36, 3, 2),
        nn.Conv2d(36, 64, 3, (2, 1), (1, 0)),
        nn.Conv2d(64, 64, 3),
    )
    dense = (nn.Linear(2560, 100), nn.Linear(100, 50), nn.Linear(50, 10))
    layers = [part for layer in convolutions for part in (layer, nn.ReLU())]
    layers += [
        nn.Flatten(),
        *(part for layer in dense for part in (layer, nn.ReLU())),
        nn.Linear(10, 1),
    ]
    return nn.Sequential(*layers)


def rows() -> list[Row]:
    """The published figures beside ours."""
    with torch.device("meta"):
        analysis = fxsynops.analyze(
            pilotnet(), torch.ones(1, 3, 33, 100), layout="N", spiking=nn.ReLU, input_events=True
        )
    connections = analysis.connections
    rates = [n / row.neurons for n, row in zip(EVENTS, connections, strict=True)]
    exact = analysis.upper_bound(
        rate={row.source: rate for row, rate in zip(connections, rates, strict=True)}
    )
    synops = [n * row.fanout.nominal for n, row in zip(EVENTS, connections, strict=True)]
    macs = [row.neurons * row.fanout.nominal for row in connections]
    found = []
    for i, row in enumerate(connections):
        found.append(
            Row(
                f"PilotNet SDNN, layer-{i + 1}: SynOps",
                SYNOPS[i],
                synops[i],
                SOURCE,
                EVENTS[i] * row.fanout.mean,
                why=f"mean fan-out {row.fanout.mean:.2f}, nominal {row.fanout.nominal:g}",
                form=",.2f",
                within=ROUNDED * row.fanout.nominal + ROUNDED,
            )
        )
        found.append(
            Row(
                f"PilotNet ANN, layer-{i + 1}: MACs",
                MACS[i],
                macs[i],
                SOURCE,
                row.fanout.total,
                why=f"{macs[i] - row.fanout.total:,.0f} taps that no input reaches",
            )
        )
    found.append(
        Row(
            "PilotNet SDNN: SynOps",
            "599,807",
            sum(synops),
            SOURCE,
            exact.total,
            why="nominal fan-out, which no border or stride cuts",
            within=ROUNDED * sum(row.fanout.nominal for row in connections),
        )
    )
    total = sum(row.fanout.total for row in connections)
    found.append(
        Row(
            "PilotNet ANN: MACs",
            "7,306,062",
            sum(macs),
            SOURCE,
            total,
            why=f"{sum(macs) - total:,.0f} taps that no input reaches",
        )
    )
    return found
