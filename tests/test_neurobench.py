"""``counts.summary`` beside NeuroBench's own package, on the same networks and data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import snntorch
import torch
from snntorch import utils
from torch import Tensor, nn
from torch.nn.utils import prune

import fxsynops

static = pytest.importorskip("neurobench.metrics.static")
workload = pytest.importorskip("neurobench.metrics.workload")
models = pytest.importorskip("neurobench.models")

STEPS, SAMPLES = 6, 3


class OverTime(nn.Module):
    """A network of one step, as NeuroBench's wrapper calls it: samples, then steps."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self.net)
        return torch.stack([self.net(x[:, t])[0] for t in range(x.shape[1])], 1)


def leaky(**options) -> nn.Module:
    return snntorch.Leaky(beta=0.8, init_hidden=True, **options)


def pruned(net: nn.Sequential, share: float = 0.3) -> nn.Sequential:
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            prune.random_unstructured(module, "weight", share)
            prune.remove(module, "weight")
    return net


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 20), leaky(), nn.Linear(20, 5), leaky(output=True))


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        leaky(),
        nn.Conv2d(4, 6, 3, groups=2),
        leaky(),
        nn.Flatten(),
        nn.Linear(24, 5),
        leaky(output=True),
    )


def pooled() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        leaky(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), leaky()),
        nn.Linear(8, 5),
        leaky(output=True),
    )


def along_a_line() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(3, 4, 5, padding=2, dilation=1),
        nn.BatchNorm1d(4),
        leaky(),
        nn.Flatten(),
        nn.Linear(4 * 9, 5),
        leaky(output=True),
    )


NETS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "linear": (linear, (12,)),
    "linear, pruned": (lambda: pruned(linear()), (12,)),
    "convolutions": (convolutions, (2, 8, 8)),
    "convolutions, pruned": (lambda: pruned(convolutions()), (2, 8, 8)),
    "max pool and a nested part": (pooled, (2, 8, 8)),
    "1d, batch norm": (along_a_line, (3, 9)),
}


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape) < 0.4).float()


def signed(*shape: int) -> Tensor:
    return spikes(*shape) * (1 - 2 * spikes(*shape))


def values(*shape: int) -> Tensor:
    return torch.rand(shape) * spikes(*shape)


@pytest.mark.parametrize("made", [spikes, signed, values])
@pytest.mark.parametrize("name", NETS)
def test_the_summary_has_neurobenchs_figures(name: str, made: Callable[..., Tensor]):
    torch.manual_seed(len(name))
    make, shape = NETS[name]
    net = make().eval()
    for parameter in net.parameters():
        parameter.data.mul_(3)  # so that neurons fire
    x = made(SAMPLES, STEPS, *shape)
    theirs = by_neurobench(models.SNNTorchModel(net), x)
    options = {"events": "nonzero", "weights": "nonzero"}
    ours = fxsynops.count(OverTime(net), x, layout="NT", **options).summary
    assert ours["spikes"]
    compare(ours, theirs)
    assert ours["Neuron updates"] * SAMPLES == sum(hook.numel() for hook in theirs["activations"])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_summary_of_an_ann_has_neurobenchs_figures(share: float):
    torch.manual_seed(0)
    relu = partial(nn.Sequential, nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten())
    net = pruned(relu(nn.Linear(4 * 64, 8), nn.ReLU(), nn.Linear(8, 3)), share).eval()
    x = values(SAMPLES, 2, 8, 8)
    theirs = by_neurobench(models.TorchModel(net), x)
    options = {"events": "nonzero", "weights": "nonzero", "spiking": nn.ReLU}
    ours = fxsynops.count(net, x, layout="N", input_events=False, **options).summary
    assert theirs["Effective_ACs"] == ours["Effective ACs"] == 0
    compare(ours, theirs)


def by_neurobench(model, x: Tensor) -> dict[str, float]:
    """What its metrics say of one batch."""
    model.register_hooks()
    data = (x, torch.zeros(len(x)))
    output = model(x)
    found = dict(workload.SynapticOperations()(model, output, data))
    found["Activation sparsity"] = workload.ActivationSparsity()(model, output, data)
    found["activations"] = [a for hook in model.activation_hooks for a in hook.activation_outputs]
    found["Connection sparsity"] = static.ConnectionSparsity()(model)
    found["Parameters"] = static.ParameterCount()(model)
    model.cleanup_hooks()
    return {name: float(v) if isinstance(v, Tensor) else v for name, v in found.items()}


def compare(ours, theirs: dict[str, float]) -> None:
    for name in ("Effective MACs", "Effective ACs"):
        assert ours[name] * SAMPLES == pytest.approx(theirs[name.replace(" ", "_")] * SAMPLES, 1e-9)
    assert ours["Dense"] == theirs["Dense"] > 0
    assert ours["Activation sparsity"] == pytest.approx(theirs["Activation sparsity"])
    assert round(ours["Connection sparsity"], 4) == theirs["Connection sparsity"]
    assert ours["Parameters"] == theirs["Parameters"]
