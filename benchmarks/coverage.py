"""What the zoo of published models counts, beside an oracle and what the peers report.

    python -m benchmarks.coverage [--json FILE] [PART OF A NAME …]

For one pass of every model of ``tests/zoo.py`` and ``tests/constructions``: nodes of its graph,
connections, operations left unresolved, analog synapses, SynOps, whether they are what
``tests/watched.py`` recomputes, and the reports of spikingjelly's ``SynOpCounter``, sinabs' hooks
(``Sequential`` only) and NeuroBench's ``SynapticOperations`` for the same pass. A dash: the peer
raises.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import without_torchvision

without_torchvision.stand_in()  # spikingjelly's zoo imports torchvision
from tests.constructions import CONSTRUCTIONS  # noqa: E402
from tests.outcome import Case, count  # noqa: E402
from tests.zoo import ZOO  # noqa: E402


def spikingjelly(model: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Its ``SynOpCounter``: all operations of the pass."""
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

    counter = SynOpCounter()
    with DispatchCounterMode([counter]):
        model(*inputs)
    return float(counter.get_total())


def sinabs(model: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Its hooks: a mean per row of the input, here times the rows."""
    from sinabs.hooks import register_synops_hooks

    if not isinstance(model, nn.Sequential):
        raise TypeError(model)
    register_synops_hooks(model)
    model(*inputs)
    (x,) = inputs
    found = [getattr(module, "hook_data", {}).get("synops_per_timestep") for module in model]
    return sum(round(float(n) * len(x)) for n in found if isinstance(n, Tensor))


def neurobench(model: nn.Module, inputs: tuple[Any, ...]) -> float:
    """Its effective accumulates: every nonzero activation by nonzero weights."""
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    class Mode(TorchModel):
        """As it is: the wrapper would set eval mode."""

        def __init__(self, net: nn.Module) -> None:
            training = {module: module.training for module in net.modules()}
            super().__init__(net)
            for module, flag in training.items():
                module.training = flag

    wrapped = Mode(model)
    wrapped.register_hooks()
    wrapped.net(*inputs)
    metric = SynapticOperations()
    metric(wrapped, None, (torch.zeros(1),))
    return float(metric.AC)


PEERS: dict[str, Callable[[nn.Module, tuple[Any, ...]], float]] = {
    "spikingjelly": spikingjelly,
    "sinabs": sinabs,
    "NeuroBench": neurobench,
}


def reported(peer: Callable[..., float], case: Case) -> float | None:
    """What a peer says of the pass that was counted; None if it fails."""
    torch.manual_seed(0)
    model, inputs = case.build(), case.inputs()
    case.reset(model)
    torch.manual_seed(1)
    try:
        with torch.no_grad():
            return peer(model, copy.deepcopy(inputs))
    except Exception:
        return None


def row(name: str, case: Case) -> dict[str, Any]:
    """One model's line."""
    outcome = count(case)
    analysis = outcome.counter.analysis
    agrees = outcome.synops == outcome.expected_synops and outcome.macs == outcome.expected_macs
    return {
        "Model": name,
        "Nodes": len(analysis.trace.graph.nodes),
        "Connections": len(analysis.connections),
        "Analog": len(analysis.dense),
        "Unresolved": len(analysis.unresolved),
        "SynOps": sum(outcome.synops.values()),
        "= oracle": agrees and outcome.same_output,
        **{peer: reported(function, case) for peer, function in PEERS.items()},
    }


def cell(value: Any) -> str:
    """A number with thousands separated."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,.0f}" if isinstance(value, float | int | Tensor) else str(value)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only models whose name contains one of these")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = {
        name: case
        for name, case in (ZOO | CONSTRUCTIONS).items()
        if not arguments.names or any(part in name for part in arguments.names)
    }
    console = Console()
    rows = [row(name, case) for name, case in track(chosen.items(), console=Console(stderr=True))]
    console.width = max(console.width, 140)
    table = Table(title="One pass of each model", box=None)
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "Model" else "right")
    for line in rows:
        table.add_row(*map(cell, line.values()))
    console.print(table)
    agree = sum(line["= oracle"] for line in rows)
    console.print(f"{agree} of {len(rows)} agree with the oracle, output and count.")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
