"""Forms of code that published repositories use, each counted as it would be written plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxsynops
from tests.watched import watch


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return (v > 0).float()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Written(nn.Module):
    """A forward that is a function of the module, with parts by name."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x):
        return self.function(self, x)


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.5).float()


def randn(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(5)))


def counted(model: nn.Module, x: Tensor, **options) -> dict[str, float]:
    counter = fxsynops.SynOpsCounter(model, x, **options)
    counter(x)
    assert counter.analysis.audit.ok
    return {name: float(n.detach()) for name, n in counter.per_synapse.items()}


# -- a product and a sum ---------------------------------------------------------------------------


def unfolded(x: Tensor) -> Tensor:
    return F.unfold(x, 2).unsqueeze(1)


SUMS = {
    "dense": (lambda m, x: (x.unsqueeze(1) * m.w).sum(-1), randn(5, 8), spikes(3, 8), 5),
    "kept": (lambda m, x: (m.w * x[:, None]).sum(2, keepdim=True), randn(5, 8), spikes(3, 8), 5),
    "turned": (lambda m, x: (x.unsqueeze(-1) * m.w).sum(dim=1), randn(8, 5), spikes(3, 8), 5),
    "dendrites": (lambda m, x: (x.view(3, 2, 4) * m.w).sum(-1), randn(2, 4), spikes(3, 8), 1),
    "one number": (lambda m, x: torch.mul(x, m.w).sum(-1), randn(8), spikes(3, 8), 1),
    "a buffer": (lambda m, x: (x.unsqueeze(1) * m.w).sum(-1), randn(5, 8).data, spikes(3, 8), 5),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_product_and_its_sum_are_a_synapse(name):
    """``(z.unsqueeze(1) * W).sum(-1)``: every event is multiplied with ``fan-out`` weights."""
    function, weight, x, fanout = SUMS[name]
    model = Written(lambda m, x: m.fc(Step.apply(function(m, x)).reshape(len(x), -1)), w=weight)
    with torch.no_grad():
        fired = Step.apply(function(model, x)).reshape(len(x), -1)
    model.fc = nn.Linear(fired.shape[1], 2)
    assert counted(model, x) == {"w": float(x.sum()) * fanout, "fc": float(fired.sum()) * 2}


def test_a_locally_connected_layer():
    x = spikes(2, 3, 4, 4)
    model = Written(lambda m, x: Step.apply((unfolded(x) * m.w).sum(2)), w=randn(5, 12, 9))
    assert counted(model, x) == {"w": float(F.unfold(x, 2).sum()) * 5}


def test_only_weights_that_are_not_zero_are_synapses():
    x, mask = spikes(3, 8), torch.rand(5, 8) < 0.5
    model = Written(
        lambda m, x: Step.apply((x.unsqueeze(1) * (m.w * m.mask)).sum(-1)), w=randn(5, 8), mask=mask
    )
    assert counted(model, x, weights="nonzero") == {"sum": float((x @ mask.float().t()).sum())}


def test_analog_values_times_weights_are_macs():
    model = Written(lambda m, x: (torch.sigmoid(x).unsqueeze(1) * m.w).sum(-1), w=randn(5, 8))
    (row,) = fxsynops.analyze(model, spikes(3, 8)).dense
    assert row.macs == 40


def test_masks_and_weighted_averages_of_steps_move_events():
    x = spikes(3, 8)
    mask = torch.tensor([1.0, 1, 0, 0, 1, 1, 1, 0])
    model = Written(
        lambda m, x: m.fc((x * m.mask).sum(-1, keepdim=True)), mask=mask, fc=nn.Linear(1, 2)
    )
    assert counted(model, x) == {"fc": float((x * mask).sum()) * 2}
    x = spikes(4, 3, 8)
    model = Written(lambda m, x: m.fc((x * m.w).sum(0)), w=randn(4, 1, 1), fc=nn.Linear(8, 2))
    assert counted(model, x, layout="TN") == {"fc": float(x.sum()) * 2}


# -- states ----------------------------------------------------------------------------------------


class Stacked(nn.Module):
    """Membrane and spikes in one tensor, which the model keeps."""

    def __init__(self):
        super().__init__()
        self.a, self.back, self.b = nn.Linear(6, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 2)
        self.states = [None]

    def forward(self, x):
        v, z = torch.zeros(2, len(x), 4) if self.states[0] is None else self.states[0]
        v = v * 0.9 * (1 - z) + self.a(x) + self.back(z)
        z = Step.apply(v - 0.1)
        self.states[0] = torch.stack([v, z])
        return self.b(z)


def test_a_state_of_membrane_and_spikes():
    torch.manual_seed(0)
    model, x = Stacked(), spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    before = torch.zeros(())
    for _ in range(3):
        counter(x)
        z = model.states[0][1]
        expected = {"a": x.sum() * 4, "back": before.sum() * 4, "b": z.sum() * 2}
        found = {"back": 0.0} | {k: float(v.detach()) for k, v in counter.per_synapse.items()}
        assert found == {name: float(n.detach()) for name, n in expected.items()}
        before = z
    assert before.sum() > 0


class FiresFirst(nn.Module):
    """Neurons that fire before they integrate: at the first step, nothing has come to them."""

    def __init__(self, fire):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.level = nn.Parameter(torch.tensor(0.1))
        self.fire = fire

    def forward(self, x):
        v = w = torch.zeros(len(x), 4)
        out = 0
        for _ in range(3):
            z = self.fire(v - self.level)
            v = 0.9 * v + self.a(x) - self.level * z
            y = self.fire(w - self.level)
            w = 0.9 * w + self.b(z) - self.level * y
            out = out + self.c(y)
        return out


@pytest.mark.parametrize("fire", [Step.apply, lambda v: (v > 0).float()])
def test_neurons_that_fire_before_they_integrate(fire):
    torch.manual_seed(0)
    model, x = FiresFirst(fire), spikes(3, 6)
    _, synops, _ = watch(model, x)
    assert counted(model, x, timesteps=3) == synops
    assert synops["c"] > 0


def test_a_random_first_state_on_the_inputs_device():
    def forward(m, x):
        z = torch.rand(len(x), 4).to(x.device)
        z = Step.apply(m.a(x) - z)
        return m.b(z)

    torch.manual_seed(0)
    model, x = Written(forward, a=nn.Linear(6, 4), b=nn.Linear(4, 2)), spikes(3, 6)
    assert set(counted(model, x)) == {"a", "b"}


# -- straight-through sums -------------------------------------------------------------------------


def compared(u: Tensor) -> Tensor:
    return (u > 0).float()


def hard_minus_soft(u: Tensor) -> Tensor:
    return (compared(u) - torch.sigmoid(u)).detach() + torch.sigmoid(u)


def soft_plus_rest(u: Tensor) -> Tensor:
    return torch.sigmoid(u) + (torch.heaviside(u, torch.zeros(())) - torch.sigmoid(u)).detach()


def rounded(u: Tensor) -> Tensor:
    return u + (u.clamp(0, 3).round() - u).detach()


def injected(u: Tensor) -> Tensor:
    """The gradient of another function, by a product that is zero."""
    return compared(u) + (u - u.detach()) * torch.exp(-u.abs()).detach()


def computed_twice(u: Tensor) -> Tensor:
    g = torch.sigmoid(u)
    return u * g.detach() - (u * g.detach()).detach() + compared(u)


def beside_others(u: Tensor) -> Tensor:
    """Spikes with a gradient of their own, and some without."""
    return Step.apply(u - 1) + compared(u) + u - u.detach()


STRAIGHT = [hard_minus_soft, soft_plus_rest, rounded, injected, computed_twice, beside_others]


@pytest.mark.parametrize("fire", STRAIGHT)
def test_straight_through_sums_have_the_gradient_of_what_cancels(fire):
    torch.manual_seed(0)
    model = Written(lambda m, x: m.b(fire(3 * m.a(x))), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    x = spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    events = fire(3 * model.a(x))
    assert float(counter.per_synapse["b"].detach()) == float(events.detach().round().sum()) * 2
    (found,) = torch.autograd.grad(counter.per_synapse["b"], model.a.weight)
    (expected,) = torch.autograd.grad(events.sum() * 2, model.a.weight)
    assert torch.allclose(found, expected)
    assert found.any()


@pytest.mark.parametrize("k", [3, 0.1, -2.5])
def test_scaled_terms_that_cancel_count_once(k):
    def forward(m, x):
        z = Step.apply(m.a(x))
        return m.b(z.detach() + k * z - k * z.detach())

    torch.manual_seed(0)
    model, x = Written(forward, a=nn.Linear(6, 4), b=nn.Linear(4, 2)), spikes(3, 6)
    fired = float(compared(model.a(x)).sum())
    assert counted(model, x)["b"] == fired * 2


# -- code that Python's functions do not show ------------------------------------------------------


@torch.jit.script
def written_by_step(x: Tensor):
    out = torch.zeros_like(x)
    for t in range(x.shape[0]):
        out[t] = (x[t] >= 0.5).to(x)
    return out


@torch.jit.script
def written_through_a_view(x: Tensor):
    out = torch.zeros_like(x)
    out.flatten().add_((x >= 0.5).to(x).flatten())
    return out


@pytest.mark.parametrize("fire", [written_by_step, written_through_a_view])
def test_compiled_code_that_writes_into_a_view(fire):
    x = torch.rand(3, 2, 6)
    model = Written(lambda m, x: m.b(fire(x)), b=nn.Linear(6, 4))
    found = counted(model, x, input_events=False, layout="TN")
    assert found == {"b": float((x >= 0.5).sum()) * 4}


def test_a_comparison_with_none_reads_no_value():
    def forward(m, x):
        trace = m.a(x)
        if trace == None or (trace != None and not m.training):  # noqa: E711
            trace = trace * 2
        return m.b(Step.apply(trace))

    torch.manual_seed(0)
    model = Written(forward, a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    x = spikes(3, 6)
    assert not fxsynops.analyze(model, x).specialized
    assert counted(model, x)["b"] == float(compared(model.a(x)).sum()) * 2


class Flagged(Tensor):
    """A tensor with an attribute, as older releases of snntorch begin a state."""

    @staticmethod
    def __new__(cls, *args, flag=True):
        return super().__new__(cls, *args)

    def __init__(self, *args, flag=True):
        self.flag = flag


class Starts(nn.Module):
    def forward(self, x, state):
        state = torch.zeros_like(x) if hasattr(state, "flag") else state
        return Step.apply(x + state), x


@pytest.mark.parametrize("kept", [False, True])
def test_a_first_state_of_a_class_of_its_own(kept):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.fires, self.b = nn.Linear(6, 4), Starts(), nn.Linear(4, 2)
            self.first = Flagged()

        def forward(self, x):
            state = self.first if kept else Flagged()
            for _ in range(2):
                z, state = self.fires(self.a(x), state)
            return self.b(z)

    torch.manual_seed(0)
    model, x = Model(), spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x, spiking=[Starts])
    expected = model(x)
    assert torch.equal(counter(x), expected)
    assert float(counter.per_synapse["b"].detach()) == float(compared(2 * model.a(x)).sum()) * 2
    assert type(model.first) is Flagged
    assert model.first.flag


# -- neurons that users register -------------------------------------------------------------------


def test_a_neuron_by_the_name_of_its_class_with_an_amplitude_that_is_read():
    class RisesToItsHeight(nn.Module):
        def __init__(self):
            super().__init__()
            self.height = nn.Parameter(torch.tensor(0.7))

        def forward(self, v):
            return Step.apply(v) * self.height, v

    fxsynops.register_spiking(
        "RisesToItsHeight", max_spikes=1, amplitude=lambda module: module.height, signed=False
    )
    torch.manual_seed(0)
    model = Written(lambda m, x: m.b(m.n(m.a(x))[0]), a=nn.Linear(6, 4), n=RisesToItsHeight())
    model.b, x = nn.Linear(4, 2), spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    for height in (0.7, 0.9):
        model.n.height.data.fill_(height)
        counter(x)
        fired = float(compared(model.a(x)).sum())
        assert float(counter.per_synapse["b"].detach()) == fired * 2
    assert counter.analysis.upper_bound().structural == 6 * 4 + 4 * 2


def test_a_function_that_is_registered_is_one_call():
    @fxsynops.register_spiking
    def bursts(v, most=3):
        return 0.5 * v.clamp(0, most).round() * 2

    torch.manual_seed(0)
    model = Written(lambda m, x: m.b(bursts(9 * m.a(x))), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    x = spikes(3, 6)
    found = counted(model, x)
    assert found["b"] == float(bursts(9 * model.a(x)).detach().sum()) * 2
    (row,) = (c for c in fxsynops.analyze(model, x).connections if c.synapse == "b")
    assert row.source.endswith("bursts")


def test_amplitudes_are_read_from_modules_only():
    with pytest.raises(fxsynops.FxSynopsError, match="from modules only"):
        fxsynops.register_spiking(Step, amplitude=lambda module: 1.0)
    with pytest.raises(fxsynops.FxSynopsError, match="a class, its name, or a function"):
        fxsynops.register_spiking(nn.ReLU())


# -- sparse layouts --------------------------------------------------------------------------------


def sparse(layout: str) -> tuple[Tensor, Tensor]:
    """Weights of which a third is stored, and where."""
    kept = torch.rand((5, 6), generator=torch.Generator().manual_seed(6)) < 0.35
    weight = (randn(5, 6).data * kept).to_sparse()
    return (weight if layout == "coo" else weight.to_sparse_csr()), kept.float()


PRODUCTS = {
    "sparse.mm": lambda w, x: torch.sparse.mm(w, x.t()).t(),
    "@": lambda w, x: (w @ x.t()).t(),
    "mm": lambda w, x: torch.mm(w, x.t()).t(),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("product", PRODUCTS)
def test_the_stored_weights_of_a_sparse_layer_are_its_synapses(layout, product):
    weight, kept = sparse(layout)
    x = spikes(3, 6)
    model = Written(lambda m, x: m.b(Step.apply(PRODUCTS[product](m.w, x))), b=nn.Linear(5, 2))
    model.w = weight
    found = counted(model, x)
    assert found.pop("b") == float(Step.apply(weight.to_dense() @ x.t()).sum()) * 2
    assert list(found.values()) == [float((kept @ x.t()).sum())]
    analog = fxsynops.analyze(model, torch.rand(3, 6), input_events=False)
    assert analog.dense[0].macs == float(kept.sum())


def test_events_in_a_sparse_layout():
    model = Written(
        lambda m, x: m.b(Step.apply(torch.sparse.mm(x.to_sparse(), m.w))), w=randn(6, 5)
    )
    model.b, x = nn.Linear(5, 2), spikes(3, 6)
    assert float(x.sum()) * 5 in counted(model, x).values()


# -- custom functions with weights -----------------------------------------------------------------


class OwnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.sign(), bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight, grad.t() @ x, grad.sum(0)


class OwnConvolution(torch.autograd.Function):
    @staticmethod
    def forward(x, weight):
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return None, None


@pytest.mark.parametrize("events", [True, False])
def test_a_custom_function_with_weights_is_a_synapse(events):
    def forward(m, x):
        return m.b(Step.apply(OwnLinear.apply(x, m.w, m.bias)))

    torch.manual_seed(0)
    model = Written(forward, w=randn(5, 6), bias=randn(5), b=nn.Linear(5, 2))
    x = spikes(3, 6) if events else torch.rand(3, 6)
    fired = float(Step.apply(OwnLinear.apply(x, model.w, model.bias)).sum().detach())
    first = {"OwnLinear": float(x.sum()) * 5} if events else {}
    assert counted(model, x, input_events=events) == {"b": fired * 2} | first
    dense = fxsynops.analyze(model, x, input_events=events).dense
    assert [row.macs for row in dense] == ([] if events else [30])


def test_a_custom_convolution_in_both_forms_of_a_function():
    model = Written(lambda m, x: Step.apply(OwnConvolution.apply(x, m.w)), w=randn(3, 2, 3, 3))
    x = spikes(2, 2, 5, 5)
    expected = F.conv2d(x, torch.ones(3, 2, 3, 3), padding=1).sum()
    assert counted(model, x) == {"OwnConvolution": float(expected)}


class Copies(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        return y.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, 0.5 * grad


class Heights(torch.autograd.Function):
    """Spikes as high as a threshold."""

    @staticmethod
    def forward(ctx, v, threshold):
        return (v > 0.5 * threshold).float() * threshold

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Ladder(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, levels):
        return (v.unsqueeze(-1) > levels).float().sum(-1)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def test_a_function_that_hands_on_one_of_its_arguments():
    torch.manual_seed(0)
    model = Written(lambda m, x: m.b(Copies.apply(m.a(x), Step.apply(m.a(x)))), a=nn.Linear(6, 4))
    model.b, x = nn.Linear(4, 2), spikes(3, 6)
    assert counted(model, x)["b"] == float(compared(model.a(x)).sum()) * 2


@pytest.mark.parametrize("height", [0.7, 1.0, 6.0, [0.5, 0.6, 0.7, 0.8]])
def test_spikes_as_high_as_a_threshold_that_is_learned(height):
    torch.manual_seed(0)
    model = Written(lambda m, x: m.b(Heights.apply(5 * m.a(x), m.h)), a=nn.Linear(6, 4))
    model.h, model.b = nn.Parameter(torch.tensor(height)), nn.Linear(4, 2)
    x = spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    for _ in range(2):
        counter(x)
        fired = float((5 * model.a(x) > 0.5 * model.h).sum())
        assert float(counter.per_synapse["b"].detach()) == fired * 2 > 0
        model.h.data.mul_(0.9)


class PerStep(torch.autograd.Function):
    """Spikes of area one: as high as a step is short."""

    @staticmethod
    def forward(ctx, v, dt):
        return (v > 0).float() / dt

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@pytest.mark.parametrize("dt", [0.1, 0.001, 1.0])
def test_spikes_that_are_divided_by_a_step(dt):
    torch.manual_seed(0)
    model = Written(lambda m, x: m.b(PerStep.apply(m.a(x), dt)), a=nn.Linear(6, 4))
    model.b, x = nn.Linear(4, 2), spikes(3, 6)
    assert counted(model, x)["b"] == float(compared(model.a(x)).sum()) * 2


def test_levels_in_a_tensor_of_their_own():
    torch.manual_seed(0)
    model = Written(
        lambda m, x: m.b(Ladder.apply(m.a(x), m.levels)), levels=torch.tensor([0.1, 0.3, 0.6])
    )
    model.a, model.b, x = nn.Linear(6, 4), nn.Linear(4, 2), spikes(3, 6)
    climbed = Ladder.apply(model.a(x).detach(), model.levels)
    assert counted(model, x)["b"] == float(climbed.sum()) * 2


class Smooth(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_a_function_that_is_taken_for_analog_is_named():
    model = Written(lambda m, x: m.b(Smooth.apply(m.a(x))), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    analysis = fxsynops.analyze(model, spikes(3, 6))
    assert "'Smooth'" in str(analysis)
    assert "is taken for analog: what it puts out is neither whole numbers" in str(
        analysis
    ).replace("\n", " ")


# -- what is said of what is not counted -----------------------------------------------------------


def test_a_gate_on_events_beside_constants_is_refused():
    def forward(m, x):
        return m.b(m.drop(torch.cat((x, m.held), -1)))

    model = Written(forward, drop=nn.Dropout(0.3), b=nn.Linear(8, 2), held=torch.ones(3, 2))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="constants lie beside the events"):
        fxsynops.analyze(model, spikes(3, 6))
    assert counted(model.eval(), spikes(3, 6)) == {"b": float(spikes(3, 6).sum()) * 2}


def test_spectra_of_events_are_refused_and_distances_of_analog_values_are_no_synapses():
    model = Written(lambda m, x: m.b(Step.apply(torch.fft.rfft(x).abs())), b=nn.Linear(4, 2))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="rfft"):
        fxsynops.analyze(model, spikes(3, 6))
    near = Written(lambda m, x: m.b(x[torch.cdist(x, x).argmin(1)]), b=nn.Linear(6, 2))
    assert [d.synapse for d in fxsynops.analyze(near, torch.rand(3, 6), input_events=False).dense]


def test_a_rule_says_which_argument_it_does_not_know():
    model = Written(lambda m, x: m.b(torch.round(x, decimals=1)), b=nn.Linear(6, 2))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="does not know of decimals="):
        fxsynops.analyze(model, spikes(3, 6))


@pytest.mark.parametrize(
    "fire",
    [
        lambda v: (torch.sign(v) + 1) / 2,
        lambda v: v.sign() * 0.5 + 0.5,
        lambda v: 0.5 * (1 + torch.sign(v)),
    ],
)
def test_half_of_a_sign_plus_one_is_a_step(fire):
    torch.manual_seed(0)
    model = Written(lambda m, x: m.b(fire(m.a(x))), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    x = spikes(3, 6)
    assert counted(model, x)["b"] == float(compared(model.a(x)).sum()) * 2
    assert fxsynops.analyze(model, x).upper_bound().structural == 6 * 4 + 4 * 2


@torch.jit.script
def scripted_step(v: Tensor, current: Tensor):
    v = 0.5 * v + torch.sigmoid(current)
    return v * (1.0 - torch.tanh(v)), v


def test_scripted_code_that_has_been_optimized_keeps_its_gradients():
    def forward(m, x):
        v = torch.zeros(len(x), 4)
        for _ in range(2):
            out, v = scripted_step(v, m.a(x))
        return m.b(Step.apply(out - 0.3))

    torch.manual_seed(0)
    model, x = Written(forward, a=nn.Linear(6, 4), b=nn.Linear(4, 2)), spikes(3, 6)
    for _ in range(4):  # the executor profiles, and then optimizes
        model(x).sum().backward()
    expected = torch.autograd.grad(model(x).sum(), model.a.weight)[0]
    counter = fxsynops.SynOpsCounter(model, x)
    found = torch.autograd.grad(counter(x).sum(), model.a.weight)[0]
    assert torch.allclose(found, expected)
    assert found.any()


BETWEEN = {
    "view": lambda m, x: (x.unsqueeze(1) * m.w).view(len(x), 5, 2, 4).sum((2, 3)),
    "flatten": lambda m, x: (x.view(-1, 1, 2, 4) * m.w.view(5, 2, 4)).flatten(2).sum(-1),
    "a number": lambda m, x: (0.5 * (x.unsqueeze(1) * m.w)).sum(-1),
    "a copy": lambda m, x: (x.unsqueeze(1) * m.w).clone().unsqueeze(-1).sum((-1, -2)),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_a_product_and_its_sum_with_a_shape_between(name):
    model = Written(lambda m, x: Step.apply(BETWEEN[name](m, x)), w=randn(5, 8))
    x = spikes(3, 8)
    assert counted(model, x) == {"w": float(x.sum()) * 5}


@pytest.mark.parametrize(
    "between",
    [
        lambda y: torch.cat((y, torch.zeros(3, 5, 1)), -1).sum(-1),
        lambda y: y.permute(0, 2, 1).reshape(3, -1, 5).sum(1),
        lambda y: y.view(3, 5, 2, 4).sum(2).flatten(1),
        lambda y: (y - torch.sigmoid(y)).sum(-1),
        lambda y: y.flatten(1) + 0.1,
    ],
)
def test_a_product_that_spreads_events_over_weights_is_a_synapse_alone(between):
    model = Written(lambda m, x: Step.apply(between(x.unsqueeze(1) * m.w)), w=randn(5, 8))
    x = spikes(3, 8)
    assert counted(model, x) == {"w": float(x.sum()) * 5}


def test_weights_of_a_product_fold_into_the_next_synapse():
    def forward(m, x):
        return m.b((x.unsqueeze(1) * m.w).flatten(1))

    model = Written(forward, w=randn(5, 8), b=nn.Linear(40, 2))
    assert counted(model, x := spikes(3, 8)) == {"b": float(x.sum()) * 5 * 2}


@pytest.mark.parametrize("samples", [1, 3])
def test_levels_that_a_neuron_adds_up_are_no_synapse(samples):
    levels = torch.tensor([0.5, 0.25, 0.125])

    def forward(m, x):
        fired = Step.apply(m.a(x).unsqueeze(-1) - m.levels)
        return m.b((fired * m.levels).sum(-1))

    torch.manual_seed(0)
    model = Written(forward, a=nn.Linear(6, 4), b=nn.Linear(4, 2), levels=levels)
    x = spikes(samples, 6)
    fired = Step.apply(model.a(x).unsqueeze(-1) - levels).detach()
    assert counted(model, x)["b"] == float(fired.sum()) * 2


# -- operands that only lend their size, and numbers of NumPy's ------------------------------------

LENT = {
    "expand_as": lambda s, a: s * a.expand_as(s),
    "view": lambda s, a: s * a.view(1, -1, 1).expand_as(s),
    "view_as": lambda s, a: s * torch.ones(s.shape).view_as(s),
    "reshape_as": lambda s, a: s * a.expand(s.shape).reshape_as(s),
    "type_as": lambda s, a: s * a.type_as(s),
    "to": lambda s, a: s * a.to(s),
    "new_tensor": lambda s, a: s * s.new_tensor([0.5]),
    "broadcast": lambda s, a: s * torch.broadcast_tensors(s, a)[1],
    "both": lambda s, a: torch.mul(*torch.broadcast_tensors(s, a)),
    "divided": lambda s, a: s / a.expand_as(s),
    "in place": lambda s, a: s.clone().mul_(a.expand_as(s)),
    "a mask": lambda s, a: s * (a > 0).float().expand_as(s),
    "filled": lambda s, a: s.masked_fill((a > 9).expand_as(s), 0.0),
}


@pytest.mark.parametrize("name", LENT)
def test_what_only_lends_its_size_is_no_data(name):
    model = Written(lambda m, x: m.b(LENT[name](x, m.a)), a=nn.Parameter(torch.rand(1, 3, 1) + 0.5))
    model.b, x = nn.Conv1d(3, 4, 3), spikes(2, 3, 8)
    expected = F.conv1d(x, torch.ones(4, 3, 3)).sum()
    assert counted(model, x) == {"b": float(expected)}


def test_a_size_that_is_lent_steers_no_bound():
    def forward(m, x, index):
        h = m.a(x)
        summed = torch.zeros(4, 5).scatter_add(0, index.view(-1, 1).expand_as(h), h)
        return m.b(Step.apply(summed))

    model = Written(forward, a=nn.Linear(6, 5), b=nn.Linear(5, 3))
    model.forward = lambda x, index: forward(model, x, index)
    given = torch.randn(8, 6), torch.randint(0, 4, (8,))
    analysis = fxsynops.analyze(model, given, input_events=False, layout="")
    assert analysis.upper_bound(input_range=(-5, 5), max_spikes=1).structural == 4 * 5 * 3


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_numbers_of_numpy_are_numbers(kind):
    def forward(m, x):
        y = F.conv1d(x, m.w, padding=kind(1), stride=kind(1))
        y = F.avg_pool1d(Step.apply(y), kind(2)).transpose(kind(1), 2).reshape(kind(2), -1)
        return m.b(y.roll(kind(1), kind(1)) * np.float32(0.5))

    model = Written(forward, w=randn(4, 3, 3), b=nn.Linear(16, 2))
    x = spikes(2, 3, 8)
    fired = Step.apply(F.conv1d(x, model.w, padding=1)).detach()
    found = counted(model, x)
    assert found.pop("b") == float(fired.sum()) * 2
    assert list(found.values()) == [float(F.conv1d(x, torch.ones(4, 3, 3), padding=1).sum())]


def test_a_number_that_is_read_and_handed_to_numpy():
    model = Written(lambda m, x: m.a(x) * np.sqrt(x.sum().item()), a=nn.Linear(6, 3))
    x = torch.ones(2, 6)
    assert counted(model, x) == {"a": 36}


def test_analog_attention_of_spikes_in_heads():
    def forward(m, x):
        q, k, v = (part.view(2, 5, 2, 3).transpose(1, 2) for part in (m.q(x), m.k(x), m.v(x)))
        scores = torch.softmax(q @ k.transpose(-2, -1), -1)
        return scores @ Step.apply(v)

    torch.manual_seed(0)
    model = Written(forward, **{name: nn.Linear(6, 6) for name in "qkv"})
    x = spikes(2, 5, 6)
    found = counted(model, x)
    fired = float(Step.apply(model.v(x)).sum().detach())
    assert {n: v for n, v in found.items() if n not in "qkv"} == {"matmul#2": fired * 5}


class Level(nn.Parameter):
    """A parameter with a method and an attribute of its own."""

    def __new__(cls, data):
        return super().__new__(cls, data)

    def __init__(self, data):
        self.least = 0.1

    def value(self):
        return self.abs() + self.least


def test_a_parameter_of_a_class_of_its_own():
    model = Written(lambda m, x: m.b(Step.apply(x - m.level.value())), b=nn.Linear(6, 3))
    model.level, x = Level(torch.tensor(0.3)), torch.rand(4, 6)
    assert counted(model, x, input_events=False) == {"b": float((x > 0.4).sum()) * 3}
    assert type(model.level) is Level


class Draws(torch.autograd.Function):
    """Fires at random, and in one step of two."""

    @staticmethod
    def forward(ctx, x):
        return torch.floor(torch.relu(x) + torch.rand(x.shape)).sum(1)

    @staticmethod
    def backward(ctx, grad):
        return grad.unsqueeze(1).expand(-1, 2, -1)


def test_a_function_that_draws_and_makes_another_shape():
    def forward(m, x):
        return m.c(Draws.apply(m.b(Draws.apply(m.a(x)).unsqueeze(1).repeat(1, 2, 1))))

    for seed in range(5):
        torch.manual_seed(seed)
        model = Written(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 5), c=nn.Linear(5, 3))
        x = 6 * torch.rand(4, 2, 6)
        counter = fxsynops.SynOpsCounter(model, x, input_events=False)
        fired = []
        hook = model.c.register_forward_pre_hook(lambda m, args, f=fired: f.append(args[0]))
        counter(x)
        hook.remove()
        assert float(counter.per_synapse["c"].detach()) == float(fired[-1].sum().detach()) * 3


class Holds(nn.Module):
    """Scripted code in a static method, as spikingjelly has it."""

    @staticmethod
    @torch.jit.script
    def reset(v: Tensor, s: Tensor, threshold: float):
        v = v - s * threshold
        return v

    def forward(self, v):
        return self.reset(v, torch.tanh(v), 0.3)


def test_scripted_static_methods_keep_their_gradients():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 7), Holds(), nn.ReLU(), nn.Linear(7, 3)), spikes(2, 6)
    for _ in range(4):
        model(x).sum().backward()
    expected = torch.autograd.grad(model(x).sum(), model[0].weight)[0]
    found = torch.autograd.grad(fxsynops.SynOpsCounter(model, x)(x).sum(), model[0].weight)[0]
    assert torch.allclose(found, expected)


class Fused(torch.autograd.Function):
    """A step of a neuron in one function: its spikes, and its membrane."""

    @staticmethod
    def forward(ctx, x, v):
        v = 0.5 * v + x
        z = (v > 0.2).float()
        return z, v * (1 - z)

    @staticmethod
    def backward(ctx, grad_z, grad_v):
        return grad_z, grad_v


def test_a_function_that_returns_spikes_and_its_membrane():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            v, out = torch.zeros(len(x), 4), 0
            for _ in range(3):
                z, v = Fused.apply(self.a(x), v)
                out = out + self.b(z) + self.c(v)
            return out

    torch.manual_seed(0)
    model, x = Loop(), spikes(3, 6)
    _, synops, macs = watch(model, x)
    counter = fxsynops.SynOpsCounter(model, x, timesteps=3)
    counter(x)
    found = {name: float(n.detach()) for name, n in counter.per_synapse.items()}
    assert found == synops
    assert synops["b"] > 0
    assert {row.synapse: row.macs * 9 for row in counter.analysis.dense} == macs


def test_a_refusal_says_that_an_input_may_hold_indices():
    model = Written(lambda m, i: m.b(Step.apply(m.w[i])), w=randn(10, 4), b=nn.Linear(4, 2))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="'x' holds indices, input_events"):
        fxsynops.analyze(model, index := torch.tensor([1, 2, 3]), input_events=True)
    assert set(counted(model, index, input_events=False)) == {"b"}
    assert set(counted(model, index)) == {"b"}  # and nobody has to say so


# -- what a review found ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["N", "TN"])
@pytest.mark.parametrize(
    "weigh",
    [
        lambda z, w: (z * w[0]).sum(-1),
        lambda z, w: torch.stack([(z * row).sum(-1) for row in w], -1),
        lambda z, w: sum(z[..., i : i + 1] * w[:, i] for i in range(8)),
        lambda z, w: (z.unsqueeze(-2) * w).amax(-1),
        lambda z, w: (z.unsqueeze(-2).expand(*z.shape[:-1], 3, 8) * w).mean(-1),
    ],
)
def test_weights_that_reach_no_synapse_are_synapses_in_every_layout(weigh, layout):
    x = spikes(5, 4, 8) if layout == "TN" else spikes(4, 8)
    weight = randn(3, 8)
    outputs = weigh(x, weight)[(0,) * (x.dim() - 1)].numel()
    model = Written(lambda m, x: weigh(x, m.w), w=weight)
    assert sum(counted(model, x, layout=layout).values()) == float(x.sum()) * outputs


class Exceeds(torch.autograd.Function):
    """Lets pass what is above a level that may be out of sight."""

    @staticmethod
    def forward(ctx, x, level):
        return x * (x > (level or 20.0))

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Clips(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, most):
        return x.clamp(max=most)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@pytest.mark.parametrize("level", [10.0, None])
def test_levels_that_the_example_does_not_reach(level):
    model = Written(lambda m, x: m.b(Exceeds.apply(x, level)), b=nn.Linear(6, 3))
    analysis = fxsynops.analyze(model, torch.rand(4, 6), input_events=False)
    assert not analysis.connections
    assert "'Exceeds'" in str(analysis)


def test_a_cap_that_the_example_does_not_reach():
    model = Written(lambda m, x: m.b(Clips.apply(x, 50.0)), b=nn.Linear(6, 3))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="other values of events"):
        fxsynops.analyze(model, spikes(4, 6))


class Tracks(torch.autograd.Function):
    """Compares with a level that it moves."""

    @staticmethod
    def forward(ctx, x, level):
        level.mul_(0.9).add_(0.1 * x.abs().max())
        return (x > level).float()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def test_trials_leave_what_a_function_writes_to():
    def forward(m, x):
        return sum(m.b(Tracks.apply(3 * m.a(x), m.level)) for _ in range(2))

    torch.manual_seed(0)
    model = Written(forward, level=torch.tensor(0.1), a=nn.Linear(6, 4), b=nn.Linear(4, 3))
    x = spikes(3, 6)
    level, fired = model.level.clone(), 0.0
    for _ in range(2):
        fired += float(Tracks.apply(3 * model.a(x).detach(), level).sum())
    assert counted(model, x, timesteps=2)["b"] == fired * 3
    assert torch.equal(model.level, level)


class SaysOnly(torch.autograd.Function):
    """Has weights, and does what cannot be recorded."""

    @staticmethod
    def forward(ctx, x, weight):
        return torch.as_tensor((x @ weight.t()).detach().numpy() * 1)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def test_a_function_with_weights_that_cannot_be_followed_is_refused():
    model = Written(lambda m, x: m.b(Step.apply(SaysOnly.apply(x, m.w))), w=randn(5, 6))
    model.b = nn.Linear(5, 2)
    with pytest.raises(fxsynops.UnsupportedOperationError, match="SaysOnly"):
        fxsynops.analyze(model, spikes(3, 6))


def drawn_twice(u: Tensor) -> Tensor:
    return compared(u) + (F.dropout(u, 0.5) - F.dropout(u, 0.5))


def test_what_is_drawn_twice_does_not_cancel():
    torch.manual_seed(0)
    model = Written(lambda m, x: m.b(drawn_twice(m.a(x))), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    assert [row.synapse for row in fxsynops.analyze(model, spikes(3, 6)).dense] == ["b"]


@pytest.mark.parametrize("amplitude", [None, "a", 0, lambda m: m.missing, lambda m: "x"])
def test_amplitudes_that_make_no_sense(amplitude):
    class RisesSomehow(nn.Module):
        def forward(self, v):
            return Step.apply(v)

    def analyze():
        fxsynops.register_spiking(RisesSomehow, amplitude=amplitude)
        model = nn.Sequential(nn.Linear(6, 4), RisesSomehow(), nn.Linear(4, 2))
        return fxsynops.analyze(model, spikes(3, 6))

    with pytest.raises(fxsynops.FxSynopsError, match="amplitude"):
        analyze()


@pytest.mark.filterwarnings("ignore:Sparse")
def test_another_sparse_weight_has_other_synapses():
    model = Written(lambda m, x: Step.apply(torch.sparse.mm(m.w, x.t()).t()))
    model.w, x = sparse("coo")[0], spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    for weight in (model.w, torch.ones(5, 6).to_sparse(), torch.eye(5, 6).to_sparse()):
        model.w = weight
        counter(x)
        kept = (weight.to_dense() != 0).float()
        assert float(counter.synops) == float((kept @ x.t()).sum())
    assert counted(model, x, weights="nonzero") == {"w": float((kept @ x.t()).sum())}


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_sparse_weight_that_takes_the_place_of_a_freed_one():
    model = Written(lambda m, x: Step.apply(torch.sparse.mm(m.w, x.t()).t()))
    model.w, x = sparse("coo")[0], spikes(3, 6)
    counter = fxsynops.SynOpsCounter(model, x)
    for entries in range(1, 21):
        del model.w  # nothing else holds it, so the next one may be at the same address
        kept = (torch.arange(30).reshape(5, 6) < entries).float()
        model.w = kept.to_sparse()
        counter(x)
        assert float(counter.synops) == float((kept @ x.t()).sum())


def test_halves_of_events_are_said():
    model = Written(lambda m, x: m.b((torch.sign(x) + 1) / 2), b=nn.Linear(6, 3))
    counter = fxsynops.SynOpsCounter(model, torch.rand(4, 6) + 0.1, input_events=False)
    counter(torch.zeros(4, 6))
    assert not counter.counts.exact


class Quantizes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, levels):
        return torch.round(x.clamp(0, 1) * levels) / levels

    @staticmethod
    def backward(ctx, grad):
        return grad, None


@pytest.mark.parametrize("levels", [4, 4.0])
def test_levels_as_a_whole_number(levels):
    model = Written(lambda m, x: m.b(Quantizes.apply(x, levels)), b=nn.Linear(6, 3))
    x = torch.rand(4, 6)
    found = counted(model, x, input_events=False)
    assert found == {"b": float((Quantizes.apply(x, levels) * levels).sum()) * 3}


def test_a_comparison_that_fires_before_data_have_come():
    def forward(m, x):
        v, out = torch.zeros(len(x), 4), 0
        for _ in range(3):
            k = (v >= 0).float()
            out = out + m.b(k)
            v = 0.5 * v + m.a(x) - k
        return out

    torch.manual_seed(0)
    model = Written(forward, a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    x = spikes(3, 6)
    _, synops, _ = watch(model, x)
    assert counted(model, x, timesteps=3) == synops | {"a": float(x.sum()) * 4 * 3}


def test_bits_and_rests_of_whole_numbers_are_events():
    class Bits(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 2)

        def parts(self, x):
            whole = (x * 255).round().to(torch.uint8)
            bits = [(whole >> bit) & 1 for bit in range(8)]
            return [*bits, torch.bitwise_right_shift(whole, 3) % 3, 1 << (whole >> 6)]

        def forward(self, x):
            return sum(self.head(part.float()) for part in self.parts(x))

    model, x = Bits(), torch.rand(3, 8)
    counter = fxsynops.SynOpsCounter(model, x, input_events=False)
    counter(x)
    assert float(counter.synops.detach()) == 2 * sum(int(part.sum()) for part in model.parts(x))


@pytest.mark.parametrize("name", ["buffer", "parameter", "channels"])
def test_scaled_terms_of_tensors_cancel(name):
    factors = {
        "buffer": torch.tensor(2.0),
        "parameter": nn.Parameter(torch.tensor(2.0)),
        "channels": torch.full((5,), 2.0),
    }

    def forward(net, x):
        s = Step.apply(net.a(x))
        return net.b(s.detach() + net.k * s - net.k * s.detach())

    torch.manual_seed(0)
    model = Written(forward, a=nn.Linear(8, 5), b=nn.Linear(5, 3), k=factors[name])
    counter, x = (
        fxsynops.SynOpsCounter(model, torch.rand(4, 8), input_events=False),
        torch.rand(4, 8),
    )
    counter(x)
    assert float(counter.per_synapse["b"].detach()) == float((model.a(x) > 0).sum()) * 3 > 0
    counter.synops.backward()
    assert model.a.weight.grad.abs().sum() > 0


def kept(w, z):
    w = w.expand(3, *w.shape).clone()
    w[(z == 0)[:, None].expand(w.shape)] = 0.0
    return w.sum(-1)


CHOICES = {
    "where": lambda w, z: torch.where(z[:, None] > 0, w, 0.0).sum(-1),
    "where, as a dot product": lambda w, z: torch.where(z > 0, w[0], 0.0).sum(-1),
    "masked_fill": lambda w, z: w.expand(3, 4, 8).masked_fill(z[:, None] == 0, 0.0).mean(-1),
    "written": kept,
    "masked": lambda w, z: torch.masked.sum(
        w.expand(3, 4, 8), -1, mask=(z > 0)[:, None].expand(3, 4, 8)
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_weights_that_events_choose_and_that_are_summed_are_not_overlooked(name):
    def forward(net, x):
        return CHOICES[name](net.w, Step.apply(net.a(x)))

    model = Written(forward, a=nn.Linear(6, 8), w=nn.Parameter(torch.randn(4, 8)))
    with pytest.raises(fxsynops.UnsupportedOperationError, match="events choose among weights"):
        fxsynops.analyze(model, torch.rand(3, 6), input_events=False)


def test_thresholds_that_events_choose_are_no_weights():
    def forward(net, x):
        v = net.a(x)
        s = (v > net.threshold).float()
        v = v - torch.where(s > 0, net.threshold, 0.0)
        return net.b(s + (v > net.threshold).float())

    threshold = nn.Parameter(torch.linspace(0.1, 0.5, 8))
    model = Written(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 3), threshold=threshold)
    assert fxsynops.analyze(model, torch.rand(3, 6), input_events=False).unresolved == ()


def test_indices_that_are_computed_are_no_events():
    def forward(net, i):
        return net.g((net.table[(i * 7 + 1) % 20] + net.table[i // 2] > 0).float())

    torch.manual_seed(0)
    model = Written(forward, table=torch.randn(20, 5), g=nn.Linear(5, 3))
    i = torch.randint(0, 20, (4,))
    counter = fxsynops.SynOpsCounter(model, i, input_events=False)
    counter(i)
    events = (model.table[(i * 7 + 1) % 20] + model.table[i // 2] > 0).sum()
    assert {k: float(v.detach()) for k, v in counter.per_synapse.items()} == {"g": int(events) * 3}


def test_whole_numbers_without_a_sign_wrap():
    x = torch.tensor([[1.0, 0, 1, 0]])
    forms = {
        "negative": lambda x: -x.to(torch.uint8),
        "difference": lambda x: x.to(torch.uint8) - x.flip(1).to(torch.uint8),
    }
    for form in forms.values():
        model = Written(lambda net, x, form=form: net.b(form(x).float()), b=nn.Linear(4, 3))
        counter = fxsynops.SynOpsCounter(model, x)
        counter(x)
        assert float(counter.synops.detach()) == float(form(x).sum()) * 3


def test_places_of_events_as_a_tuple():
    def forward(net, x):
        found = torch.zeros_like(x)
        found[x.nonzero(as_tuple=True)] = 1.0
        return net.b(found)

    x = torch.tensor([[1.0, 0, 2, 0]])
    counter = fxsynops.SynOpsCounter(Written(forward, b=nn.Linear(4, 3)), x)
    counter(x)
    assert float(counter.synops.detach()) == 2 * 3


def test_a_transformer_layer_without_gradients():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(layer, nn.Linear(8, 3)).eval()
    with torch.no_grad():
        x = (torch.rand(2, 5, 8) < 0.5).float()
        counter = fxsynops.SynOpsCounter(model, x)
        assert torch.equal(counter(x), model(x))
    assert counter.analysis.audit.ok
    assert torch.backends.mha.get_fastpath_enabled()


def test_scales_that_torch_folds_into_another_product():
    def forward(net, x):
        return net.w @ (
            x.unsqueeze(2) * (1.5 - (torch.arange(4.0) - net.d[:, None]).abs()).clamp(0)
        )

    torch.manual_seed(0)
    weights = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.rand(6) * 2)
    model = Written(forward, w=weights[0], d=weights[1])
    x = (torch.rand(3, 6) < 0.5).float()
    counter = fxsynops.SynOpsCounter(model, x)
    counter(x)
    kernel = (1.5 - (torch.arange(4.0) - weights[1][:, None]).abs()).clamp(0)
    assert float(counter.synops.detach()) == float((x @ (kernel != 0).float()).sum()) * 5


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_bounds_behind_fixed_places_and_sparse_weights():
    def sampled(net, x):
        grid = torch.zeros(len(x), 1, 4, 2)
        places = F.grid_sample(x[:, None, None], grid, mode="nearest", align_corners=False)
        return net.b(net.neuron(net.a(places[:, 0, 0])))

    x = torch.ones(2, 4)
    neuron = fxsynops.nn.IAFSqueeze(batch_size=2)
    model = Written(sampled, a=nn.Linear(4, 4), neuron=neuron, b=nn.Linear(4, 3))
    assert fxsynops.analyze(model, x).upper_bound().rows[0].charge > 0
    for layout in (torch.sparse_coo, torch.sparse_csr):
        weight = torch.randn(3, 4).to_sparse(layout=layout)
        model = Written(
            lambda net, x: net.b(net.neuron((net.w @ x.T).T)),
            w=weight,
            neuron=fxsynops.nn.IAFSqueeze(batch_size=2),
            b=nn.Linear(3, 2),
        )
        counter = fxsynops.SynOpsCounter(model, x)
        counter(x)
        bound = counter.analysis.upper_bound()
        assert float(counter.synops.detach()) / 2 <= bound.charge < float("inf")
