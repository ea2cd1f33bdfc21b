"""What counting costs, as ratios to the plain pass in one process, beside the peers.

    python -m benchmarks.overhead [--quick] [--json FILE] [PART …]

Parts: inference, training, reduction, analysis, stream, compile, gpu; all of them if none is named.
Plain and counted passes alternate (A B A B …); a figure is the median of the pairwise ratios, with
its quartiles. At least 40 pairs; of small models as many as fit into ten seconds, since single
pairs differ by ten per cent. Two threads. ``--quick`` takes a fifth of that and leaves out the
largest models; it finishes in about a minute.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import without_torchvision

without_torchvision.stand_in()  # spikingjelly's zoo imports torchvision
import snntorch  # noqa: E402
from spikingjelly.activation_based import functional, neuron  # noqa: E402
from spikingjelly.activation_based.model import sew_resnet, spikformer  # noqa: E402

import fxsynops  # noqa: E402
from fxsynops.counting.exact_sums import Reading, sum_events  # noqa: E402
from tests import howto  # noqa: E402

Run = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """A model with its input, the options of its analysis, and how its neurons are reset."""

    name: str
    model: nn.Module
    x: Tensor
    options: dict[str, Any]
    reset: Callable[[nn.Module], object]


class DVSGesture(nn.Module):
    """NeuroBench's DVS-gesture network, in snntorch, over (batch, time, 2, 32, 32)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((2, 16), (16, 32), (32, 64))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 5, padding="same") for a, b in sizes)
        self.lifs = nn.ModuleList(snntorch.Leaky(0.9, init_hidden=True) for _ in range(4))
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(1024, 11)

    def forward(self, x: Tensor) -> Tensor:
        """The output spikes."""
        out = []
        for t in range(x.shape[1]):
            y = x[:, t]
            for conv, lif in zip(self.convs, self.lifs, strict=False):
                y = lif(self.pool(conv(y)))
            out.append(self.lifs[-1](self.fc(y.flatten(1))))
        return torch.stack(out, 1)


def spikes(*shape: int) -> Tensor:
    """Ones with probability 0.3."""
    return (torch.rand(*shape) < 0.3).float()


def lenet() -> Setting:
    """The how-to's SNN in sinabs' layers, five samples of ten steps."""
    import sinabs.layers

    model = howto.amplify(howto.snn(sinabs.layers), 2.0)
    return Setting("LeNet SNN", model, spikes(5, 10, 1, 28, 28), {"layout": "NT"}, howto.reset)


def sew(depth: int = 18, batch: int = 2) -> Setting:
    """SEW-ResNet (ADD), T = 4, 64 × 64."""
    make = getattr(sew_resnet, f"sew_resnet{depth}")
    model = make(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=10)
    functional.set_step_mode(model, "m")
    options = {"layout": "TN", "input_events": False}
    x = torch.rand(4, batch, 3, 64, 64)
    return Setting(f"SEW-ResNet-{depth}", model, x, options, functional.reset_net)


def dvs() -> Setting:
    """Ten steps, batch 4."""

    def reset(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, snntorch.Leaky):
                module.reset_mem()

    x = spikes(4, 10, 2, 32, 32)
    return Setting("DVS-gesture", DVSGesture(), x, {"layout": "NT"}, reset)


def transformer() -> Setting:
    """spikformer_cifar10, T = 4, batch 2."""
    model = spikformer.spikformer_cifar10(T=4, num_classes=10)
    functional.set_step_mode(model, "m")
    options = {"layout": "TN", "input_events": False}
    x = torch.rand(4, 2, 3, 32, 32)
    return Setting("Spikformer", model, x, options, functional.reset_net)


# -- timing ----------------------------------------------------------------------------------------


def seconds(run: Run) -> float:
    """One call, timed."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratios(plain: Run, other: Run, pairs: int, least: float = 0.0) -> dict[str, float]:
    """Other / plain, alternating, after a warm-up: median and quartiles.

    Args:
        plain, other: what is compared.
        pairs: how many times, at least.
        least: for how many seconds, at least.
    """
    for _ in range(3):
        plain(), other()
    gc.collect()
    found: list[float] = []
    start = time.perf_counter()
    while len(found) < pairs or time.perf_counter() - start < least:
        if len(found) % 2:
            b, a = seconds(other), seconds(plain)
        else:
            a, b = seconds(plain), seconds(other)
        found.append(b / a)
    low, median, high = statistics.quantiles(found, n=4)
    return {"ratio": median, "low": low, "high": high, "pairs": len(found)}


# -- the peers -------------------------------------------------------------------------------------


def with_sinabs(model: nn.Module, x: Tensor) -> Run:
    """Its hooks, on Sequential."""
    import sinabs.hooks

    if not isinstance(model, nn.Sequential):
        raise TypeError(model)
    sinabs.hooks.register_synops_hooks(model)
    return lambda: model(x)


def with_spikingjelly(model: nn.Module, x: Tensor) -> Run:
    """Its counter of dispatched operations."""
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

    def run() -> None:
        with DispatchCounterMode([SynOpCounter()]):
            model(x)

    return run


def with_neurobench(model: nn.Module, x: Tensor) -> Run:
    """Its hooks and its metric."""
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    wrapped = TorchModel(model)
    wrapped.register_hooks()

    def run() -> None:
        for hook in wrapped.activation_hooks + wrapped.connection_hooks:
            hook.reset()
        wrapped.net(x)
        SynapticOperations()(wrapped, None, (x,))

    return run


PEERS = {
    "sinabs' hooks": with_sinabs,
    "spikingjelly": with_spikingjelly,
    "NeuroBench": with_neurobench,
}


# -- parts -----------------------------------------------------------------------------------------


def inference(pairs: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Counted / plain, without gradients."""
    settings = [lenet, sew, dvs] if quick else [lenet, sew, dvs, transformer]
    for make in settings:
        torch.manual_seed(0)
        setting = make()
        setting.model.eval()
        counter = fxsynops.SynOpsCounter(setting.model, setting.x, **setting.options)
        runs = {"fxsynops": lambda c=counter, s=setting: c(s.x)}
        for name, peer in PEERS.items():
            torch.manual_seed(0)
            other = make()
            other.model.eval()
            try:
                run = peer(other.model, other.x)
                with torch.no_grad():
                    run()
            except Exception as error:
                yield {"model": setting.name, "by": name, "note": type(error).__name__}
                continue

            def counted(run: Run = run, other: Setting = other) -> None:
                other.reset(other.model)
                run()

            runs[name] = counted
        for name, run in runs.items():

            def plain(s: Setting = setting) -> None:
                s.reset(s.model)
                s.model(s.x)

            def own(s: Setting = setting, run: Run = run) -> None:
                s.reset(s.model)
                run()

            with torch.no_grad():
                fewer = pairs if name == "fxsynops" else max(pairs // 3, 4)
                found = ratios(plain, own if name == "fxsynops" else run, fewer, fewer / 4)
            yield {"model": setting.name, "by": name, **found}


def training(pairs: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Forward and backward with a SynOps loss / the same without."""
    for make in [lenet, dvs] if quick else [lenet, sew, dvs, transformer]:
        torch.manual_seed(0)
        s = make()
        counter = fxsynops.SynOpsCounter(s.model, s.x, **s.options)

        def step(run: Callable[[Tensor], Tensor], count: bool, s: Setting, c: Any) -> None:
            s.reset(s.model)
            s.model.zero_grad(set_to_none=True)
            loss = run(s.x).square().mean()
            if count:
                loss = loss + ((1e6 - c.synops) / 1e6).square()
            loss.backward()

        found = ratios(
            lambda s=s, c=counter: step(s.model, False, s, c),
            lambda s=s, c=counter: step(c, True, s, c),
            pairs,
            pairs / 4,
        )
        yield {"model": s.name, "by": "fxsynops", **found}


def reduction(pairs: int, quick: bool) -> Iterator[dict[str, Any]]:
    """The reduction of one source / ``tensor.sum()`` of the same tensor."""
    cases = {
        "constant fan-out": ((), False, False, torch.float32),
        "map": ((2, 3), False, False, torch.float32),
        "signed": ((), True, False, torch.float32),
        "nonzero": ((), False, True, torch.float32),
        "float16": ((), False, False, torch.float16),
        "bool": ((), False, False, torch.bool),
    }
    for shape in (
        [(50, 16, 24, 24)] if quick else [(50, 16, 24, 24), (8, 64, 32, 32), (8, 512, 8, 8)]
    ):
        for name, (kept, signed, graded, dtype) in cases.items():
            x = (torch.rand(shape) < 0.2).to(dtype)
            plain = x.float() if dtype != torch.float32 else x
            reading = Reading(shape, kept, signed=signed, graded=graded)
            with torch.no_grad():
                found = ratios(
                    lambda x=plain: [x.sum() for _ in range(20)],
                    lambda x=x, r=reading: [r.together(sum_events(x, 1.0, r)) for _ in range(20)],
                    pairs,
                )
            yield {"model": f"{name} {shape}", "by": "fxsynops", **found}


class Unrolled(nn.Module):
    """A loop over time steps, 10 nodes each."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the outputs."""
        mem = torch.zeros(x.shape[0], 8)
        out = torch.zeros(x.shape[0], 2)
        for t in range(x.shape[1]):
            mem = mem * 0.9 + self.fc1(x[:, t])
            spiked = (mem > 0.5).float()
            mem = mem - spiked * 0.5
            out = out + self.fc2(spiked)
        return out


def analysis(pairs: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Cost per node of a growing loop; of a deep network, in plain passes; maps in memory."""
    for steps in (20, 200, 2000) if not quick else (20, 200):
        x = spikes(2, steps, 8)
        found = []
        for _ in range(3):
            start = time.perf_counter()
            trace = fxsynops.analyze(Unrolled(), x, layout="NT").trace
            found.append(time.perf_counter() - start)
        nodes = len(trace.graph.nodes)
        note = f"{statistics.median(found) / nodes * 1e6:.0f} µs per node"
        yield {"model": f"loop of {nodes:,} nodes", "by": "fxsynops", "note": note}
    s = sew(18, 2) if quick else sew(50, 8)
    s.model.eval()
    with torch.no_grad():
        s.model(s.x)
        plain = statistics.median(seconds(lambda: s.model(s.x)) for _ in range(5))
        taken = []
        for _ in range(3):
            s.reset(s.model)
            taken.append(seconds(lambda: fxsynops.analyze(s.model, s.x, **s.options)))
        found = fxsynops.analyze(s.model, s.x, **s.options)
    maps = {id(t.map): t.map.numel() * 8 for c in found.connections for t in c.taps}
    values = [n.meta["spec"].shape.numel() for n in found.trace.graph.nodes if "spec" in n.meta]
    note = (
        f"{statistics.median(taken):.2f} s, {statistics.median(taken) / plain:.1f} plain passes; "
        f"all maps {sum(maps.values()) / 2**20:.2f} MiB, activations of one sample "
        f"{sum(values) * 4 / found.window.samples / 2**20:.0f} MiB"
    )
    yield {"model": f"{s.name}, analysis", "by": "fxsynops", "note": note}
    for s in (lenet(), dvs(), transformer(), sew(18 if quick else 50)):
        s.model.eval()
        yield {"model": f"{s.name}, audit", "by": "fxsynops", "note": _audited(s)}


def _audited(s: Setting) -> str:
    """How much longer an analysis takes that proves itself."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(4):
        for audit, found in taken.items():
            s.reset(s.model)
            run = partial(fxsynops.analyze, s.model, s.x, audit=audit, **s.options)
            found.append(seconds(run))
    plain, audited = (statistics.median(found[1:]) for found in taken.values())
    return f"{audited / plain:.2f} times the analysis alone ({plain:.2f} s)"


def resident() -> float:
    """The memory of this process that is not swapped out, in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def stream(pairs: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Resident memory over a long stream in chunks: after the first tenth, and at the end."""
    streams = {
        "10,000 steps in 100 chunks": (nn.Linear(64, 64), spikes(1, 100, 64), "NT"),
        "500,000 samples, 5,000 at a time": (
            nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 64)),
            spikes(5000, 1, 8, 8),
            "N",
        ),
    }
    for name, (first, chunk, layout) in streams.items():
        neuron = fxsynops.nn.IAF() if layout == "NT" else fxsynops.nn.NeuromorphicReLU()
        model = nn.Sequential(first, neuron, nn.Linear(64, 10)).eval()
        counter = fxsynops.SynOpsCounter(model, chunk, layout=layout)
        sizes = []
        with torch.no_grad():
            for i in range(100):
                counter(chunk)
                if i in (9, 99):
                    gc.collect()
                    sizes.append(resident())
        grown = sizes[1] - sizes[0]
        note = f"{counter.counts.total:,} SynOps; memory grew by {grown:.1f} MiB"
        yield {"model": name, "by": "fxsynops", "note": note}


def compiled(pairs: int, quick: bool) -> Iterator[dict[str, Any]]:
    """``torch.compile(counter)`` / ``torch.compile(model)``, inference."""
    for make in [lenet] if quick else [lenet, dvs, sew]:
        torch.manual_seed(0)
        s = make()
        s.model.eval()
        counter = fxsynops.SynOpsCounter(s.model, s.x, **s.options)
        plain, own = torch.compile(s.model), torch.compile(counter)

        def run(compiled: Callable[[Tensor], object], s: Setting = s) -> None:
            s.reset(s.model)
            compiled(s.x)

        name = f"{s.name}, compiled"
        try:
            with torch.no_grad():
                found = ratios(partial(run, plain), partial(run, own), pairs, pairs / 4)
            yield {"model": name, "by": "fxsynops", **found}
        except Exception as error:  # there may be no compiler on the machine
            note = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
            yield {"model": name, "by": "fxsynops", "note": note}


def gpu(pairs: int, quick: bool) -> Iterator[dict[str, Any]]:
    """SEW-ResNet-18 at batch 32; nothing on the counting path may wait for the device."""
    if not torch.cuda.is_available():
        yield {"model": "GPU", "by": "fxsynops", "note": "there is none"}
        return
    s = sew(18, 32)
    model, x = s.model.eval().cuda(), s.x.cuda()
    counter = fxsynops.SynOpsCounter(model, x, **s.options)

    def timed(run: Callable[[Tensor], object]) -> None:
        s.reset(model)
        run(x)
        torch.cuda.synchronize()

    with torch.no_grad():
        found = ratios(lambda: timed(model), lambda: timed(counter), pairs)
        torch.cuda.set_sync_debug_mode("error")
        counter(x)
        torch.cuda.set_sync_debug_mode("default")
    yield {"model": f"{s.name}, GPU", "by": "fxsynops", **found, "note": "no synchronization"}


PARTS: dict[str, Callable[[int, bool], Iterator[dict[str, Any]]]] = {
    "inference": inference,
    "training": training,
    "reduction": reduction,
    "analysis": analysis,
    "stream": stream,
    "compile": compiled,
    "gpu": gpu,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    pairs = options.pairs or (8 if options.quick else 40)
    console = Console(width=110)
    results: dict[str, list[dict[str, Any]]] = {}
    for name in options.parts or PARTS:
        part = PARTS[name]
        columns = ("", "by", "ratio", "quartiles", "pairs", "")
        table = Table(*columns, title=part.__doc__, title_justify="left")
        results[name] = []
        with console.status(name) if console.is_terminal else nullcontext():
            for row in part(pairs, options.quick):
                results[name].append(row)
                ratio = f"{row['ratio']:.3f}" if "ratio" in row else "–"
                spread = f"{row['low']:.3f} to {row['high']:.3f}" if "ratio" in row else ""
                many = str(row.get("pairs", ""))
                table.add_row(row["model"], row["by"], ratio, spread, many, row.get("note", ""))
        console.print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
