"""A network in NIR of any release: written to a file, read again, counted by hand."""

from __future__ import annotations

from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

import fxsynops


def test_a_file_is_counted(tmp_path):
    """Two inputs drive three neurons, each with one spike, which drive two outputs."""
    ones = np.ones(3, dtype=np.float32)
    given = {"tau": 2 * ones, "r": 2 * ones, "v_leak": 0 * ones, "v_threshold": ones}
    nodes = {
        "input": nir.Input(np.array([2])),
        "into": nir.Linear(np.ones((3, 2), dtype=np.float32)),
        "fire": nir.LIF(**given),
        "out": nir.Linear(np.ones((2, 3), dtype=np.float32)),
        "output": nir.Output(np.array([2])),
    }
    order = list(nodes)
    file = tmp_path / "net.nir"
    nir.write(file, nir.NIRGraph(nodes, list(pairwise(order))))
    model, x = fxsynops.from_nir(file), torch.ones(1, 1, 2)
    counter = fxsynops.SynOpsCounter(model, x, layout="NT")
    counter(x)
    found = {name: float(synops.detach()) for name, synops in counter.per_synapse.items()}
    assert found == {"into": 2 * 3, "out": 3 * 2}


def test_a_file_of_sinabs_is_counted_as_the_network(tmp_path):
    sinabs = pytest.importorskip("sinabs.nir")
    from sinabs.layers import IAF

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 6), IAF(), torch.nn.Linear(6, 2))
    file = tmp_path / "sinabs.nir"
    x = (torch.rand(3, 5, 4) < 0.5).float()
    try:
        nir.write(file, sinabs.to_nir(network, x))
    except TypeError as error:
        pytest.skip(f"this sinabs does not go with this nir: {error}")
    network[1].reset_states()
    totals = []
    for model in (network, fxsynops.from_nir(file, reset="subtract")):
        counter = fxsynops.SynOpsCounter(model, x, layout="NT")
        counter(x)
        totals.append(counter.counts.total)
    assert totals[0] == totals[1] > 0
