"""Both recipes of the sinabs how-to, trained on real digits for fewer SynOps."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import pytest
import torch

import fxsynops
from benchmarks import train_digits as recipes

EPOCHS = {"ann": 20, "snn": 15}
POINT = 0.01  # one percentage point of accuracy


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small layers gain nothing by more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> recipes.Digits:
    return recipes.load_split()


@dataclass
class Trained:
    """Accuracy and SynOps per test image before and after, and the target between them."""

    counter: fxsynops.SynOpsCounter
    before: tuple[float, float]
    after: tuple[float, float]
    target: float


def halved(recipe: str, data: recipes.Digits) -> Trained:
    """Trained for accuracy, and then to half of what that costs on the training data."""
    torch.manual_seed(0)
    ann = recipes.make_ann()
    counter = recipes.count(ann if recipe == "ann" else recipes.to_snn(ann))
    recipes.train(counter, data, EPOCHS[recipe])
    initial = recipes.evaluate(counter, data.train_images, data.train_labels)[1]
    before = recipes.evaluate(counter, data.test_images, data.test_labels)
    recipes.train(counter, data, EPOCHS[recipe], initial, 1 / 2)
    after = recipes.evaluate(counter, data.test_images, data.test_labels)
    return Trained(counter, before, after, initial / 2)


@pytest.fixture(scope="module")
def ann(data) -> Trained:
    return halved("ann", data)


@pytest.fixture(scope="module")
def snn(data) -> Trained:
    return halved("snn", data)


def per_layer(counter: fxsynops.SynOpsCounter) -> list[float]:
    """SynOps in the order of the layers, whose names differ by one from ANN to SNN."""
    return [row.synops for row in counter.counts.rows]


# -- training to half ------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", EPOCHS)
def test_half_of_the_initial_synops_is_reached_and_the_accuracy_stays(recipe, request):
    trained = request.getfixturevalue(recipe)
    (accuracy, synops), (kept, reached) = trained.before, trained.after
    assert accuracy > 0.97
    assert synops == pytest.approx(2 * trained.target, rel=0.02)  # test as training images
    assert reached == pytest.approx(trained.target, rel=0.05)
    assert kept >= accuracy - POINT


@pytest.mark.parametrize("recipe", EPOCHS)
def test_what_the_image_costs_is_no_part_of_the_synops(recipe, request):
    counter = request.getfixturevalue(recipe).counter
    first, *others = [n for n, m in counter.model.named_modules() if hasattr(m, "weight")]
    assert [row.synapse for row in counter.analysis.dense] == [first]
    assert list(counter.per_synapse) == others


# -- from ANN to SNN -------------------------------------------------------------------------------


def test_an_image_as_a_current_adds_up_to_the_image(data):
    currents = recipes.currents(data.test_images)
    assert currents.shape[1] == recipes.STEPS
    assert torch.equal(currents.sum(1), data.test_images)


def test_the_snn_holds_copies_of_the_weights(ann):
    snn = recipes.to_snn(ann.counter.model)
    pairs = list(zip(ann.counter.model.parameters(), snn.parameters(), strict=True))
    assert len(pairs) == 4
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


def test_the_anns_synops_predict_the_snns(ann, data):
    recipes.evaluate(ann.counter, data.test_images, data.test_labels)
    counter = recipes.count(recipes.to_snn(ann.counter.model))
    accuracy, synops = recipes.evaluate(counter, data.test_images, data.test_labels)
    assert accuracy == pytest.approx(ann.after[0], abs=POINT / 2)
    # Measured: 0.005 % in all. The first layer's current is constant, so it must emit the same
    # spikes. Behind it, a neuron may emit one before what inhibits it arrives: 0.03 and 0.05 %.
    assert synops == pytest.approx(ann.after[1], rel=2e-4)
    ours, theirs = per_layer(counter), per_layer(ann.counter)
    assert ours[0] == theirs[0]
    assert ours[1:] == pytest.approx(theirs[1:], rel=2e-3)
    assert ours != theirs  # two networks have been measured


# -- what the benchmark shows ----------------------------------------------------------------------


def test_the_split_is_fixed_and_stratified_and_shares_no_image(data):
    again = recipes.load_split()
    assert all(torch.equal(a, b) for a, b in zip(data, again, strict=True))
    assert (len(data.train_images), len(data.test_images)) == (1347, 450)
    shares = data.test_labels.bincount() / (
        data.test_labels.bincount() + data.train_labels.bincount()
    )
    assert shares.min() > 0.24
    assert shares.max() < 0.26


def test_an_evaluation_starts_anew_and_is_per_image(ann, snn, data):
    for trained in (ann, snn):
        assert (
            recipes.evaluate(trained.counter, data.test_images, data.test_labels) == trained.after
        )
        parts = [
            recipes.evaluate(trained.counter, data.test_images[i], data.test_labels[i])
            for i in torch.arange(450).split(150)
        ]
        mean = torch.tensor(parts, dtype=torch.float64).mean(0).tolist()
        assert mean == pytest.approx(trained.after)


def test_tables_and_curves_show_the_seeds(tmp_path):
    points = []
    for seed, initial in enumerate((1000.0, 3000.0)):
        shares = {"baseline": 1.0, "no target": 0.9, **recipes.FRACTIONS}
        points += [
            recipes.Point("snn", seed, name, initial, 0.9 + 0.01 * seed, initial * share)
            for name, share in shares.items()
        ]
    table = recipes.tabulate("snn", points)
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["SynOps per sample"][0] == "2,000 ± 1,414"
    assert cells["Test accuracy (%)"][0] == "90.50 ± 0.71"
    assert cells["Reduction"][2:] == [f"{n}.00 ± 0.00×" for n in (2, 4, 8, 16)]
    recipes.draw(points, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
@pytest.mark.parametrize(("recipe", "training", "fold"), [("ann", "1/16", 15), ("snn", "1/4", 3.9)])
def test_synops_shrink_manifold_at_less_than_a_point_of_accuracy(recipe, training, fold, data):
    points = [p for seed in range(3) for p in recipes.run(recipe, seed, 80, data)]
    for network in {p.network for p in points}:

        def mean(name, attribute, network=network):
            found = [p for p in points if (p.network, p.training) == (network, name)]
            assert len(found) == 3
            return statistics.mean(getattr(p, attribute) for p in found)

        assert mean("baseline", "accuracy") - mean(training, "accuracy") <= POINT
        assert mean("baseline", "synops") / mean(training, "synops") >= fold
