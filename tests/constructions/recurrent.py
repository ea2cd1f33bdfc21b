"""Recurrent networks, delays, memories and plastic weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.constructions.parts import LIF, Cell, construction, spike, spikes

T, B, I, H, O = 5, 2, 8, 6, 3  # noqa: E741
events = spikes(T, B, I)
sound = spikes(B, 4, 16)


@construction("recurrent: adaptive neurons with recurrent weights", events, layout="TN")
class AdaptiveRecurrent(nn.Module):
    """Input and recurrent weights in one layer, time constants per neuron, moving thresholds."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.out = nn.Linear(I + H, H), nn.Linear(H, O)
        self.tau_m, self.tau_adp = nn.Parameter(torch.randn(H)), nn.Parameter(torch.randn(H))

    def forward(self, x):
        mem = s = x.new_zeros(x.shape[1], H)
        b, outputs = torch.full_like(mem, 0.05), []
        for step in x:
            alpha, ro = torch.sigmoid(self.tau_m), torch.sigmoid(self.tau_adp)
            b = ro * b + (1 - ro) * s
            threshold = 0.05 + 0.5 * b
            mem = mem * alpha + (1 - alpha) * self.dense(torch.cat((step, s), 1)) - threshold * s
            s = spike(mem - threshold)
            outputs.append(self.out(s))
        return torch.stack(outputs).softmax(-1)


@construction("recurrent: eligibility traces of a recurrent network", events, layout="TN")
class Eligibility(nn.Module):
    """Weights as plain parameters, no self-connections, and traces for a local learning rule."""

    def __init__(self) -> None:
        super().__init__()
        self.w_in, self.w_out = nn.Parameter(torch.randn(H, I)), nn.Parameter(torch.randn(O, H))
        self.w_rec = nn.Parameter(torch.randn(H, H))

    def forward(self, x):
        w_rec = self.w_rec * (1 - torch.eye(H, device=x.device))
        v, z, y = x.new_zeros(T + 1, B, H), x.new_zeros(T + 1, B, H), x.new_zeros(T + 1, B, O)
        for t in range(T):
            v[t + 1] = 0.8 * v[t] + z[t] @ w_rec.t() + x[t] @ self.w_in.t() - z[t] * 0.6
            z[t + 1] = (v[t + 1] > 0.6).float()
            y[t + 1] = 0.9 * y[t] + torch.mm(z[t + 1], self.w_out.t())
        psi = (1 - ((v - 0.6) / 0.6).abs()).clamp(min=0) * 0.3
        kernel = 0.8 ** torch.arange(T - 1, -1, -1.0, device=x.device)
        trace = F.conv1d(F.pad(x.permute(1, 2, 0), (T - 1, 0)),
                         kernel.expand(I, 1, -1), groups=I)  # fmt: skip
        return y[1:], torch.einsum("tbr,bit->brit", psi[1:], trace)


@construction("recurrent: convolutional cell with a stacked state", spikes(T, B, 2, 6, 6),
              layout="TN")  # fmt: skip
class ConvolutionalCell(nn.Module):
    """States live in a list of the model, one tensor of membrane and spikes per layer."""

    class Layer(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.ff, self.rec = nn.Conv2d(i, o, 3, padding=1), nn.Conv2d(o, o, 3, padding=1)
            self.leak = nn.Parameter(torch.randn(o, 1, 1))

        def forward(self, x, state=None):
            ff = self.ff(x)
            if state is None:
                state = torch.zeros(2, *ff.shape, dtype=ff.dtype, device=ff.device)
            v, z = state
            leak = torch.sigmoid(self.leak)
            v = v * leak * (1 - z.detach()) + (1 - leak) * (ff + self.rec(z))
            z = spike(v - 0.05)
            return z, torch.stack([v, z])

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self.Layer(2, 4), self.Layer(4, 4)])
        self.pred, self.states = nn.Conv2d(4, 2, 1), [None] * 2

    def reset(self):
        self.states = [None] * 2

    def forward(self, x):
        flow = []
        for step in x:
            for i, layer in enumerate(self.layers):
                step, self.states[i] = layer(step, self.states[i])
            flow.append(self.pred(step))
        return {"flow": flow, "activity": step}


@construction("recurrent: gated unit whose gates are spikes", events, layout="TN")
class GatedUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wz, self.wi, self.out = nn.Linear(I + H, H), nn.Linear(I + H, H), nn.Linear(H, O)

    def forward(self, x):
        v = i = s = x.new_zeros(B, H)
        for step in x:
            both = torch.cat((step, s), -1)
            z = torch.sigmoid(self.wz(both) + v)
            i = 0.7 * i + self.wi(both)
            v = z * v + (1 - z) * i - 0.1 * s
            s = spike(v - 0.1)
        return self.out(s)


@construction("recurrent: long short-term memory of spikes", events, layout="TN")
class SpikingLSTM(nn.Module):
    """All four gates and the hidden state are spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.ih, self.hh, self.out = nn.Linear(I, 4 * H), nn.Linear(H, 4 * H), nn.Linear(H, O)

    def forward(self, x):
        h, c = x.new_zeros(B, H), x.new_zeros(B, H)
        for step in x:
            i, f, g, o = torch.split(self.ih(step) + self.hh(h), H, dim=1)
            i, f, g, o = spike(i), spike(f), spike(g - 0.1), spike(o)
            c = c * f + i * g
            h = o * spike(c - 0.5)
        return self.out(h)


@construction("recurrent: light unit of currents and linear recurrence", events, layout="TN")
class Light(nn.Module):
    """Adaptation with couplings per neuron, batch norm on all steps at once, dropout of spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Linear(I, H, bias=False), nn.Linear(H, H, bias=False)
        self.norm, self.drop, self.out = nn.BatchNorm1d(H), nn.Dropout(0.25), nn.Linear(H, O)
        self.alpha, self.beta, self.a, self.b = (nn.Parameter(torch.rand(H)) for _ in range(4))
        nn.init.orthogonal_(self.v.weight)
        self.eval()

    def forward(self, x):
        wx = self.norm(self.w(x).flatten(0, 1)).view(T, B, H) * 4
        v = self.v.weight.clone().fill_diagonal_(0)
        u, w, s, out = *(torch.zeros_like(wx[0]) for _ in range(3)), 0.0
        for t in range(T):
            alpha = torch.clamp(self.alpha, min=math.exp(-1 / 5), max=math.exp(-1 / 25))
            beta = torch.clamp(self.beta, min=math.exp(-1 / 30), max=math.exp(-1 / 120))
            w = beta * w + self.a * u + self.b * s
            u = alpha * (u - s) + (1 - alpha) * (wx[t] + torch.matmul(s, v) - w)
            s = spike(u - 0.1)
            out = out + F.softmax(self.out(self.drop(s)), dim=1)
        return out


@construction("recurrent: both directions", events, layout="TN")
class Directions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.lif, self.out = nn.Linear(I, H), LIF(threshold=0.05), nn.Linear(2 * H, O)

    def forward(self, x):
        both = torch.cat((x, x.flip(0)), dim=1)
        forth, back = self.lif(self.w(both)).chunk(2, dim=1)
        return self.out(torch.cat((forth, back.flip(0)), dim=-1))


@construction("recurrent: liquid of fixed sparse connections", events, layout="TN")
class Liquid(nn.Module):
    """Neither input nor recurrent weights learn; a fifth of the neurons inhibits."""

    def __init__(self) -> None:
        super().__init__()
        mask = (torch.rand(H, H) < 0.4).float()
        signs = torch.where(torch.arange(H) < 4, 1.0, -1.0)
        self.w_in = nn.Parameter(torch.rand(H, I), requires_grad=False)
        self.w_rec = nn.Parameter(torch.rand(H, H) * mask * signs, requires_grad=False)
        self.readout = nn.Linear(H, O)

    def forward(self, x):
        v = s = total = x.new_zeros(B, H)
        with torch.no_grad():
            for step in x:
                v = 0.7 * v * (1 - s) + F.linear(step, self.w_in) + F.linear(s, self.w_rec)
                s = (v >= 1.5).float()
                total = total + s
        return self.readout(total)


@construction("recurrent: reservoir that feeds its readout back", events, layout="TN")
class Feedback(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.r, self.back = nn.Linear(I, H), nn.Linear(H, H), nn.Linear(O, H)
        self.readout, self.cell, self.top = nn.Linear(H, O), Cell(), Cell(threshold=0.05)

    def forward(self, x):
        s, top, out = x.new_zeros(B, H), x.new_zeros(B, O), []
        for step in x:
            s = self.cell(self.w(step) + 0.9 * self.r(s) + self.back(top))
            top = self.top(self.readout(s))
            out.append(top)
        return torch.stack(out).mean(0)


@construction("recurrent: memory of Legendre polynomials", events, layout="TN")
class Legendre(nn.Module):
    """A fixed linear system keeps a window of what the encoder's spikes say."""

    def __init__(self, order: int = 4) -> None:
        super().__init__()
        q = torch.arange(order)
        r = (2 * q + 1)[:, None] / 8.0
        i, j = torch.meshgrid(q, q, indexing="ij")
        sign = torch.where(i < j, -1.0, (-1.0) ** (i - j + 1).float())
        system = torch.zeros(order + 1, order + 1)
        system[:order, :order], system[:order, order:] = sign * r, (-1.0) ** q[:, None] * r
        discrete = torch.linalg.matrix_exp(system)
        self.register_buffer("a", discrete[:order, :order])
        self.register_buffer("b", discrete[:order, order:])
        self.e_x, self.e_h, self.e_m = nn.Linear(I, 1), nn.Linear(H, 1), nn.Linear(order, 1)
        self.w_x, self.w_h, self.w_m = nn.Linear(I, H), nn.Linear(H, H), nn.Linear(order, H)
        self.u_lif, self.h_lif, self.m_lif = Cell(), Cell(), Cell(threshold=0.01)
        self.out = nn.Linear(H, O)

    def forward(self, x):
        h, m = x.new_zeros(B, H), x.new_zeros(B, 4)
        memory = x.new_zeros(B, 4)
        for step in x:
            u = self.u_lif(self.e_x(step) + self.e_h(h) + self.e_m(m) + 0.3)
            memory = memory @ self.a.T + u @ self.b.T
            m = self.m_lif(memory)
            h = self.h_lif(self.w_x(step) + self.w_h(h) + self.w_m(m))
        return self.out(h)


class Causal(nn.Module):
    """A dilated convolution over the past, and the past only."""

    def __init__(self, i: int, o: int, dilation: int) -> None:
        super().__init__()
        self.pad, self.conv = 2 * dilation, nn.Conv1d(i, o, 3, dilation=dilation, padding="valid")

    def forward(self, x):
        return self.conv(F.pad(x, (self.pad, 0)))


def over_time(lif: nn.Module, x: Tensor) -> Tensor:
    """A neuron on values with time last."""
    return lif(x.permute(2, 0, 1)).permute(1, 2, 0)


@construction("recurrent: dilated causal convolutions, gates and skips", sound, timesteps=16)
class Waves(nn.Module):
    """Blocks of two dilated branches, whose skips are summed for the readout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 4, 1)
        self.blocks = nn.ModuleList(
            nn.ModuleList([Causal(4, 4, d), nn.Conv1d(4, 4, 1), nn.Conv1d(4, 6, 1)])
            for d in (1, 2, 4)
        )
        self.lifs = nn.ModuleList(LIF(threshold=0.02) for _ in range(7))
        self.hidden, self.out = nn.Conv1d(6, 6, 1), nn.Conv1d(6, 3, 1)

    def forward(self, x):
        x, skips = over_time(self.lifs[0], self.first(x)), 0
        for i, (dilated, residual, skip) in enumerate(self.blocks):
            y = over_time(self.lifs[2 * i + 1], dilated(x))
            skips = skips + skip(y)
            x = x + over_time(self.lifs[2 * i + 2], residual(y) + 0.02)
        return self.out(over_time(self.lifs[0], self.hidden(over_time(self.lifs[0], skips))))


@construction("recurrent: temporal convolutions with a chomp", sound, timesteps=16)
class Temporal(nn.Module):
    """Padded on both sides, and cut at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(4, 4, 3, padding=2 * d, dilation=d) for d in (1, 1, 2, 2)
        )
        self.lifs, self.fc = nn.ModuleList(LIF(threshold=0.02) for _ in range(4)), nn.Linear(4, 3)

    def forward(self, x):
        for i in (0, 2):
            y = x
            for j in (i, i + 1):
                cut = self.convs[j].padding[0]
                y = over_time(self.lifs[j], self.convs[j](y)[:, :, :-cut].contiguous() + 0.05)
            x = x + y
        return self.fc(x.transpose(1, 2)).max(1).values


@construction("recurrent: delays per synapse, from a history", events, layout="TN")
class Delays(nn.Module):
    """Every synapse reads the step that its delay says, from a ring of past steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, H, I))
        delays = torch.randint(0, 3, (H, I))
        self.register_buffer("which", F.one_hot(delays, 3).permute(2, 0, 1).float())
        self.out, self.cell = nn.Linear(H, O), Cell(threshold=0.3)

    def forward(self, x):
        ring, outputs = [torch.zeros_like(x[0])] * 3, []
        for step in x:
            ring = [step, *ring[:-1]]
            past = torch.stack(ring)
            current = torch.einsum("dbi,doi->bo", past, self.weight * self.which)
            outputs.append(self.out(self.cell(current)))
        return torch.stack(outputs)


@construction("recurrent: delays per axon, in a buffer that rolls", events, layout="TN")
class Axons(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.cell = nn.Linear(I, H), nn.Linear(H, O), Cell(threshold=0.1)
        self.register_buffer("delay", torch.randint(0, 3, (1, 1, H)))

    def forward(self, x):
        past, out = x.new_zeros(3, B, H), []
        for step in x:
            past = torch.roll(past, 1, 0)
            past[0] = self.cell(self.fc1(step))
            delayed = past.gather(0, self.delay.expand(1, B, -1)).squeeze(0)
            out.append(self.fc2(delayed))
        return torch.stack(out)


@construction("recurrent: learned delays, kernels with a Gaussian bump", sound, timesteps=16)
class LearnedDelays(nn.Module):
    """A position for every synapse builds a temporal kernel, rounded in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.p = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.rand(6, 4) * 5)
        self.lif, self.out = LIF(threshold=0.3), nn.Linear(6, O)

    def forward(self, x):
        taps = torch.arange(6.0, device=x.device)
        bump = torch.exp(-0.5 * ((taps - self.p.unsqueeze(-1)) / 0.5) ** 2)
        kernel = self.weight.unsqueeze(-1) * bump / (bump.sum(-1, keepdim=True) + 1e-7)
        current = F.conv1d(F.pad(x, (5, 0)), kernel.flip(-1))
        return self.out(over_time(self.lif, current).sum(-1))


@construction("recurrent: delays of channels by shifts, stacked", sound, timesteps=16)
class ChannelShifts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif, self.out = nn.Conv1d(12, 6, 1), LIF(threshold=0.05), nn.Linear(6, O)

    def forward(self, x):
        late = [F.pad(x, (d, 0))[..., : x.shape[-1]] for d in (0, 1, 3)]
        s = over_time(self.lif, self.conv(torch.stack(late, 1).flatten(1, 2)))
        return self.out(s.mT).mean(1)


@construction("recurrent: plastic weights of the forward itself", events, layout="TN")
class Plastic(nn.Module):
    """Fast weights grow where inputs and neurons fire together, and decay."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.alpha = nn.Linear(I, H), nn.Parameter(torch.rand(H, I))
        self.cell, self.out = Cell(threshold=0.1), nn.Linear(H, O)

    def forward(self, x):
        hebb, out = torch.full((B, H, I), 0.01, device=x.device), []
        for step in x:
            fast = torch.bmm(self.alpha * hebb, step.unsqueeze(2)).squeeze(2)
            s = self.cell(self.slow(step) + fast)
            hebb = 0.9 * hebb + 0.1 * torch.bmm(s.unsqueeze(2), step.unsqueeze(1))
            out.append(self.out(s))
        return torch.stack(out)


@construction("recurrent: weights that spikes change by their traces", events, layout="TN")
class TimingDependent(nn.Module):
    """Traces before and behind a layer; the layer's weights move while samples run."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.cell, self.out = nn.Linear(I, H, bias=False), Cell(0.5, 0.1), nn.Linear(H, O)

    def forward(self, x):
        w, pre, post = self.fc.weight, x.new_zeros(B, I), x.new_zeros(B, H)
        for step in x:
            s = self.cell(F.linear(step, w))
            pre, post = 0.8 * pre + step, 0.8 * post + s
            grow = (s.unsqueeze(2) * pre.unsqueeze(1)).mean(0)
            shrink = (post.unsqueeze(2) * step.unsqueeze(1)).mean(0)
            w = (w + 0.01 * (grow - shrink)).clamp(-1, 1)
        return self.out(s)


@construction("recurrent: winners inhibit each other", events, layout="TN")
class Winners(nn.Module):
    """Excitatory neurons drive inhibitory ones, one to one, which inhibit all the others."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.exc, self.inh = nn.Linear(I, H), Cell(0.9, 0.1), Cell(0.5, 0.5)
        self.one_to_one = nn.Parameter(torch.eye(H), requires_grad=False)
        self.lateral = nn.Parameter(torch.eye(H) - 1.0, requires_grad=False)

    def forward(self, x):
        inhibition, out = x.new_zeros(B, H), []
        for step in x:
            s = self.exc(self.fc(step) + F.linear(inhibition, self.lateral))
            inhibition = self.inh(F.linear(s, self.one_to_one))
            out.append(s)
        return torch.stack(out).sum(0)


@construction("recurrent: predictive coding, errors of both signs", events, layout="TN")
class Predictive(nn.Module):
    """What a layer above predicts is taken from the spikes below; errors fire up and down."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.cell = nn.Linear(2 * I, H), nn.Linear(H, I), Cell(0.8, 0.1)

    def forward(self, x):
        s, errors = x.new_zeros(B, H), []
        for step in x:
            difference = step - torch.sigmoid(self.down(s))
            error = torch.cat((spike(difference - 0.5), spike(-difference - 0.5)), dim=1)
            s = self.cell(self.up(error))
            errors.append(error.sum())
        return s, torch.stack(errors)


@construction("recurrent: policy of populations of neurons", lambda: (torch.randn(B, 3),),
              timesteps=T, input_events=False, units={"decoder": 1 / T})  # fmt: skip
class Policy(nn.Module):
    """Gaussian receptive fields fire; actions are decoded from populations' rates."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.linspace(-2, 2, 4).expand(1, 3, 4).clone())
        self.std = nn.Parameter(torch.full((1, 3, 4), 0.7))
        self.layers = nn.ModuleList([nn.Linear(12, 8), nn.Linear(8, 6)])
        self.decoder = nn.Conv1d(2, 2, 3, groups=2)
        self.log_std = nn.Parameter(torch.zeros(2))

    def neuron(self, layer, pre, state):
        current, volt, s = state
        current = current * 0.5 + layer(pre)
        volt = volt * 0.75 * (1.0 - s) + current
        return current, volt, spike(volt - 0.2)

    def forward(self, obs):
        fields = torch.exp(-0.5 * (obs.unsqueeze(-1) - self.mean).pow(2) / self.std.pow(2))
        fields, v, act = fields.view(-1, 12), 0.0, 0.0
        states = [tuple(torch.zeros(B, n) for _ in range(3)) for n in (8, 6)]
        for _ in range(T):
            v = v + fields
            pop = spike(v - 0.999)
            v = v - pop * 0.999
            states[0] = self.neuron(self.layers[0], pop, states[0])
            states[1] = self.neuron(self.layers[1], states[0][2], states[1])
            act = act + states[1][2]
        mu = torch.tanh(self.decoder((act / T).view(-1, 2, 3)).squeeze(-1))
        return mu, self.log_std.exp().expand_as(mu)


class LikeSpikes(nn.Module):
    """A network of two layers; the second has recurrent weights."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.rec = nn.Linear(I, H), nn.Linear(H, H), nn.Linear(H, H)
        self.lif, self.cell, self.out = LIF(threshold=0.05), Cell(threshold=0.05), nn.Linear(H, O)

    def first(self, s):
        return torch.zeros(s.shape[1:])

    def forward(self, x):
        s = self.lif(self.fc1(x))
        z, out = self.first(s), []
        for step in s:
            z = self.cell(self.fc2(step) + self.rec(z))
            out.append(self.out(z))
        return torch.stack(out)


construction("recurrent: first state of zeros", events, layout="TN")(LikeSpikes)


@construction("recurrent: first state of zeros like the spikes", events, layout="TN")
class LikeSpikesThemselves(LikeSpikes):
    def first(self, s):
        return torch.zeros_like(s[0])


@construction("recurrent: keywords, spectra into spikes by deltas",
              lambda: (torch.rand(B, 8, 10),), timesteps=9, input_events=False)  # fmt: skip
class Keywords(nn.Module):
    """Changes of a spectrogram beyond a step are spikes up or down."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(16, 6, 3, padding=1), nn.Linear(6, O)
        self.lif = LIF(threshold=0.05)

    def forward(self, x):
        d = x.diff(dim=-1)
        up, down = (d > 0.2).to(x.dtype), (d < -0.2).to(x.dtype)
        return self.fc(over_time(self.lif, self.conv(torch.cat((up, down), 1))).mean(-1) * 9)


@construction("recurrent: variable lengths, masked steps",
              lambda: (*events(), torch.tensor([3, 5])),
              layout="TN", input_events=[True, False])  # fmt: skip
class Lengths(nn.Module):
    """Steps past the end of a sample count for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.lif = nn.Linear(I, H), nn.Linear(H, O), LIF(threshold=0.05)

    def forward(self, x, lengths):
        mask = (torch.arange(T, device=x.device)[:, None] < lengths).to(x.dtype).unsqueeze(-1)
        return self.fc2(self.lif(self.fc1(x)) * mask).sum(0) / lengths.unsqueeze(-1)
