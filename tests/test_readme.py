"""The README's code runs and prints what the README says."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re

import matplotlib as mpl

from fxsynops.neurons.registry import _registered
from fxsynops.operations import operations

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_the_code_in_the_readme_runs_and_prints_what_it_shows():
    mpl.use("Agg")
    text = README.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    shown = re.search(r"```text\n(.*?)```", text, re.S)
    assert len(blocks) == 18
    scope: dict[str, object] = {"__name__": "readme"}
    known, targets = dict(_registered), dict(operations.by_target)
    try:
        for i, block in enumerate(blocks):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block, f"README block {i}", "exec"), scope)
            if i == 0:
                assert printed.getvalue().strip("\n") == shown.group(1).strip("\n")
        assert scope["Resonator"] in _registered
    finally:
        _registered.clear()
        _registered.update(known)
        operations.by_target.clear()
        operations.by_target.update(targets)


def test_what_users_register_is_counted():
    import torch
    from torch import nn

    import fxsynops

    class Odd(nn.Module):
        def forward(self, current, state=None):
            state = current if state is None else 0.9 * state.roll(1, -1) + current
            return torch.special.expit((state - 0.1) * 1e4).round() * 0.5, state

    class Interleave(nn.Module):
        def forward(self, a, b):
            return torch.special.round(torch.stack((a, b), -1).flatten(-2))

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 10))

        def forward(self, x):
            return torch.addmm(torch.zeros(10), x, self.weight)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.odd = nn.Linear(8, 8), Odd()
            self.interleave, self.sparse = Interleave(), Sparse()

        def forward(self, x):
            spikes, _ = self.odd(self.fc(x))
            return self.sparse(self.interleave(spikes, spikes.flip(-1)))

    model, x = Model(), torch.ones(4, 8)
    known, targets = dict(_registered), dict(operations.by_target)
    try:
        fxsynops.register_spiking(Odd, max_spikes=1, amplitude=0.5)
        fxsynops.register_routing(Interleave, lambda a, b: torch.stack((a, b), -1).flatten(-2))
        fxsynops.register_synapse(Sparse, lambda x: x.mm(torch.ones(16, 10, dtype=x.dtype)))
        counter = fxsynops.SynOpsCounter(model, x)
        assert torch.equal(counter(x), model(x))
        spikes = int((model.odd(model.fc(x))[0] != 0).sum())
        assert spikes > 0
        assert int(counter.per_synapse["sparse"].detach()) == spikes * 2 * 10
        assert counter.counts.rows[1].events == spikes
        assert counter.analysis.upper_bound().rows[1].structural == 8 * 2 * 10
    finally:
        _registered.clear()
        _registered.update(known)
        operations.by_target.clear()
        operations.by_target.update(targets)
