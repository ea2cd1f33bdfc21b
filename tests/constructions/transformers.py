"""Spiking transformers: attention of many kinds, tokens that come and go, state spaces."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.constructions.parts import LIF, Cell, Folded, construction, conv, dense, images, spikes

T, B, N, C = 2, 2, 4, 8
tokens = spikes(T, B, N, C)
picture = images(B, 3, 8, 8)


def heads(x, n: int = 2):
    """(T, B, N, C) -> (T, B, heads, N, C / heads)."""
    return x.unflatten(-1, (n, -1)).transpose(2, 3)


class QKV(nn.Module):
    """Queries, keys and values that are spikes."""

    def __init__(self) -> None:
        super().__init__()
        for name in "qkv":
            setattr(self, f"{name}_linear", dense(C, C))
            setattr(self, f"{name}_lif", LIF())
        self.proj, self.attn_lif = dense(C, C), LIF(threshold=0.1)

    def qkv(self, x):
        return [heads(getattr(self, f"{n}_lif")(getattr(self, f"{n}_linear")(x))) for n in "qkv"]

    def out(self, x):
        return self.proj(self.attn_lif(x.transpose(2, 3).flatten(3)))


@construction("transformer: spiking self-attention", tokens, layout="TN")
class SelfAttention(QKV):
    def forward(self, x):
        q, k, v = self.qkv(x)
        return self.out((q @ k.transpose(-2, -1)) @ v * 0.125)


@construction("transformer: spiking self-attention, keys by values first", tokens, layout="TN")
class LinearAttention(QKV):
    def forward(self, x):
        q, k, v = self.qkv(x)
        return self.out(q @ (k.mT @ v) * 0.25)


@construction("transformer: self-attention on merged steps", spikes(T * B, N, C),
              layout="(TN)", timesteps=T)  # fmt: skip
class Merged(nn.Module):
    """(T·B, N, C), unfolded at the neurons only."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.bn = nn.Linear(C, 3 * C, bias=False), nn.BatchNorm1d(3 * C)
        self.lif, self.attn_lif, self.proj = LIF(), LIF(), nn.Linear(C, C)

    def neuron(self, lif, x):
        return lif(x.reshape(T, -1, *x.shape[1:])).flatten(0, 1)

    def forward(self, x):
        y = self.bn(self.qkv(x).transpose(1, 2)).transpose(1, 2).contiguous()
        q, k, v = self.neuron(self.lif, y).chunk(3, dim=-1)
        return self.proj(self.neuron(self.attn_lif, (q @ k.transpose(1, 2)) @ v * 0.125))


@construction("transformer: spike-driven attention, mask and sum", tokens, layout="TN")
class SpikeDriven(QKV):
    """Keys times values, summed over tokens, fire into a mask of the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.talking_heads = LIF(threshold=0.5)

    def forward(self, x):
        q, k, v = self.qkv(x)
        kv = self.talking_heads(k.mul(v).sum(dim=-2, keepdim=True))
        return self.proj(q.mul(kv).transpose(2, 3).flatten(3)) + x


@construction("transformer: spike-driven attention, mask only", tokens, layout="TN")
class SpikeMask(QKV):
    def __init__(self) -> None:
        super().__init__()
        self.lif = LIF(threshold=0.5)

    def forward(self, x):
        q, k, _ = self.qkv(x)
        return self.proj((k * self.lif(q.sum(-2, keepdim=True))).transpose(2, 3).flatten(3))


class ThroughConvolutions(nn.Module):
    """Attention of feature maps: re-parameterized convolutions make queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head_lif = conv(3, C), LIF()
        self.q_conv, self.k_conv, self.v_conv = (conv(C, C, 1) for _ in "qkv")
        self.q_lif, self.k_lif, self.v_lif = LIF(), LIF(), LIF()
        self.lif, self.proj = LIF(), conv(C, C, 1)

    def spiking(self, image):
        x = self.stem(image.repeat(T, 1, 1, 1, 1))
        s = self.head_lif(x)
        q, k, v = (
            lif(layer(s)).flatten(3)
            for lif, layer in (
                (self.q_lif, self.q_conv), (self.k_lif, self.k_conv), (self.v_lif, self.v_conv)
            )
        )  # fmt: skip
        return x, q, k, v


@construction("transformer: meta-former attention block", picture, timesteps=T, input_events=False)
class MetaFormer(ThroughConvolutions):
    """Membrane shortcut around attention, then an MLP of 1x1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.lif1, self.lif2 = conv(C, 16, 1), conv(16, C, 1), LIF(), LIF()
        self.head = nn.Linear(C, 5)

    def forward(self, image):
        x, q, k, v = self.spiking(image)
        q, k, v = (y.unflatten(2, (2, -1)) for y in (q, k, v))  # (T, B, heads, C / heads, N)
        y = (k @ v.mT) @ q * 0.125
        x = x + self.proj(self.lif(y).flatten(2, 3).unflatten(-1, x.shape[-2:]))
        x = x + self.fc2(self.lif2(self.fc1(self.lif1(x))))
        return self.head(self.lif(x).flatten(3).mean(3)).mean(0)


@construction("transformer: token attention of queries and keys", picture, timesteps=T,
              input_events=False)  # fmt: skip
class TokenQK(ThroughConvolutions):
    def __init__(self) -> None:
        super().__init__()
        self.attn_lif = LIF(threshold=0.5)

    def forward(self, image):
        x, q, k, _ = self.spiking(image)
        q = torch.sum(q.unflatten(2, (2, -1)), dim=3, keepdim=True)
        y = torch.mul(self.attn_lif(q), k.unflatten(2, (2, -1)))
        return self.proj(y.flatten(2, 3).reshape(x.shape)).mean(0)


@construction("transformer: channel attention of queries and keys", picture, timesteps=T,
              input_events=False)  # fmt: skip
class ChannelQK(ThroughConvolutions):
    def __init__(self) -> None:
        super().__init__()
        self.attn_lif = LIF(threshold=0.5)

    def forward(self, image):
        x, q, k, _ = self.spiking(image)
        return self.proj((self.attn_lif(q.sum(-1, keepdim=True)) * k).reshape(x.shape)).mean(0)


@construction("transformer: attention over windows of time", spikes(4, B, N, C), layout="TN")
class TimeWindows(QKV):
    """Tokens of two steps at a time attend to each other."""

    def forward(self, x):
        q, k, v = (y.unflatten(0, (2, 2)).permute(0, 2, 3, 1, 4, 5).flatten(3, 4)
                   for y in self.qkv(x))  # fmt: skip
        y = (q @ k.mT @ v * 0.125).unflatten(3, (2, N)).permute(0, 3, 1, 2, 4, 5)
        return self.out(y.flatten(0, 1))


@construction("transformer: temporal interaction of queries", spikes(4, B, N, C), layout="TN")
class TemporalInteraction(QKV):
    """Queries are mixed with what a convolution makes of those a step before."""

    def __init__(self) -> None:
        super().__init__()
        self.interactor = nn.Conv1d(C, C, 5, padding=2, bias=True)
        self.in_lif, self.out_lif, self.alpha = LIF(threshold=0.1), LIF(threshold=0.05), 0.5

    def forward(self, x):
        q, k, v = self.qkv(x)
        merged, mixed = q.transpose(2, 3).flatten(3), []
        for t in range(merged.shape[0]):
            if t == 0:
                mixed.append(merged[0])
                continue
            past = self.in_lif(self.interactor(mixed[-1].mT).mT[None])[0]
            mixed.append(self.out_lif((past * self.alpha + merged[t] * (1 - self.alpha))[None])[0])
        q = heads(torch.stack(mixed))
        return self.out(q @ k.mT @ v * 0.125)


@construction("transformer: patch embedding with max pools", images(B, 3, 16, 16), timesteps=T,
              input_events=False)  # fmt: skip
class PatchSplitting(nn.Module):
    """Convolutions, neurons and pools, and a relative position by a last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1, self.conv2 = conv(3, 4), conv(4, 6), conv(6, C)
        self.lif0, self.lif1, self.lif2 = LIF(), LIF(), LIF()
        self.pool = Folded(nn.MaxPool2d(3, 2, 1))
        self.rpe_conv, self.rpe_lif, self.head = conv(C, C), LIF(), nn.Linear(C, 5)

    def forward(self, x):
        x = (x.unsqueeze(0)).repeat(T, 1, 1, 1, 1)
        x = self.lif0(self.conv0(x))
        x = self.pool(self.lif1(self.conv1(x)))
        x = self.pool(self.lif2(self.conv2(x)))
        x = x + self.rpe_lif(self.rpe_conv(x))
        return self.head(x.flatten(-2).transpose(-1, -2)).mean(0)


@construction("transformer: embedding that downsamples, with a shortcut", spikes(T, B, 4, 8, 8),
              layout="TN")  # fmt: skip
class EmbeddingWithShortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.res = conv(4, C), conv(4, C, 1, stride=2, padding=0)
        self.lif1, self.lif2, self.out = LIF(), LIF(), conv(C, 4, 1)
        self.pool = Folded(nn.MaxPool2d(3, 2, 1))

    def forward(self, x):
        return self.out(self.lif1(self.pool(self.proj(x))) + self.lif2(self.res(x)))


@construction("transformer: causal decoder", tokens, layout="TN")
class Decoder(QKV):
    """A triangle of zeros keeps the future out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tril(torch.ones(N, N)).view(1, 1, 1, N, N))

    def forward(self, x):
        q, k, v = self.qkv(x)
        n = q.shape[-2]
        attn = (q @ k.transpose(-2, -1)) * self.mask[..., :n, :n]
        return self.out(attn @ v * 0.125)


@construction("transformer: causal decoder, masked_fill", tokens, layout="TN")
class FilledDecoder(QKV):
    def forward(self, x):
        q, k, v = self.qkv(x)
        future = torch.triu(torch.ones(N, N, dtype=torch.bool, device=x.device), diagonal=1)
        return self.out((q @ k.mT).masked_fill(future, 0.0) @ v * 0.125)


@construction("transformer: a cache of keys and values in a loop", spikes(N, B, C), layout="TN")
class Cache(nn.Module):
    """One token a step, which attends to all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(C, C) for _ in range(4))
        self.lif_q, self.lif_k, self.lif_v, self.lif_o = (Cell(threshold=0.05) for _ in range(4))

    def forward(self, x):
        keys = values = None
        out = []
        for token in x:
            q, k, v = (
                lif(layer(token)).unsqueeze(1)
                for lif, layer in ((self.lif_q, self.q), (self.lif_k, self.k), (self.lif_v, self.v))
            )
            keys = k if keys is None else torch.cat((keys, k), dim=1)
            values = v if values is None else torch.cat((values, v), dim=1)
            y = torch.bmm(torch.bmm(q, keys.transpose(1, 2)), values) * 0.25
            out.append(self.o(self.lif_o(y.squeeze(1))))
        return torch.stack(out)


@construction("transformer: softmax of scores, values that are spikes", tokens, layout="TN")
class Softmaxed(QKV):
    def forward(self, x):
        q, k, v = self.qkv(x)
        attn = F.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        return self.out(attn @ v)


@construction("transformer: token shift and gates of a linear recurrence", spikes(N, B, C),
              layout="TN")  # fmt: skip
class TokenShift(nn.Module):
    """Receptance, keys and values of a mix with the token before; a decaying weighted mean."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.mix = nn.Parameter(torch.rand(C))
        self.decay, self.first = nn.Parameter(torch.rand(C)), nn.Parameter(torch.rand(C))
        self.key, self.value, self.receptance = (nn.Linear(C, C, bias=False) for _ in range(3))
        self.output, self.lif = nn.Linear(C, C, bias=False), LIF(threshold=0.01)
        self.norm = nn.LayerNorm(C)

    def forward(self, x):
        y = self.norm(x.transpose(0, 1))
        y = y * self.mix + self.shift(y) * (1 - self.mix)
        k, v, r = self.key(y).exp(), self.value(y), torch.sigmoid(self.receptance(y))
        a, b, out = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), []
        for t in range(y.shape[1]):
            now = k[:, t] * self.first.exp()
            out.append((a + now * v[:, t]) / (b + now))
            w = torch.exp(-self.decay.exp())
            a, b = a * w + k[:, t] * v[:, t], b * w + k[:, t]
        wkv = torch.stack(out)
        return self.output(self.lif(r.transpose(0, 1) * wkv)) + x


@construction("transformer: gated channel mix of squared activations", tokens, layout="TN")
class ChannelMix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.key, self.value, self.receptance = (nn.Linear(C, C, bias=False) for _ in range(3))
        self.lif = LIF(threshold=0.02)

    def forward(self, x):
        k = torch.square(torch.relu(self.key(x)))
        return torch.sigmoid(self.receptance(x)) * self.value(self.lif(k))


# Counts 932 at the sum of h times c: 4 for every event at every step that reads it. To be decided;
# the oracle does not see sums of products.
@construction("transformer: diagonal state space with spikes", spikes(8, B, C), layout="TN",
              still_open=True)  # fmt: skip
class StateSpace(nn.Module):
    """A diagonal linear recurrence, run as a loop; its output fires."""

    def __init__(self) -> None:
        super().__init__()
        self.log_dt, self.log_a = nn.Parameter(torch.rand(C, 4)), nn.Parameter(torch.rand(C, 4))
        self.b, self.c = nn.Parameter(torch.randn(C, 4)), nn.Parameter(torch.randn(C, 4))
        self.d, self.lif, self.mix = nn.Parameter(torch.ones(C)), LIF(), nn.Linear(C, C)

    def forward(self, u):
        a = torch.exp(-torch.exp(self.log_a) * self.log_dt.exp())
        h, y = u.new_zeros(u.shape[1], C, 4), []
        for step in u:
            h = a * h + self.b * step.unsqueeze(-1)
            y.append((h * self.c).sum(-1) + self.d * step)
        return self.mix(self.lif(torch.stack(y)))


# The product of spectra is a convolution of spikes; the module can be registered as a synapse.
@construction("transformer: state space as a convolution by spectra", spikes(8, B, C), layout="TN",
              refused="fft_rfft")  # fmt: skip
class SpectralStateSpace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.lif, self.mix = nn.Parameter(torch.randn(C, 8)), LIF(), nn.Linear(C, C)

    def forward(self, u):
        u = u.permute(1, 2, 0)
        spectrum = torch.fft.rfft(self.kernel, n=16) * torch.fft.rfft(u, n=16)
        y = torch.fft.irfft(spectrum, n=16)[..., :8].permute(2, 0, 1)
        return self.mix(self.lif(y))


@construction("transformer: selective state space with spikes", spikes(6, B, C), layout="TN")
class Selective(nn.Module):
    """Steps, input and output of the recurrence depend on the spikes themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj, self.x_proj = nn.Linear(C, 2 * C), nn.Linear(C, 1 + 4 + 4)
        self.dt_proj, self.out_proj = nn.Linear(1, C), nn.Linear(C, C)
        self.conv1d = nn.Conv1d(C, C, 3, groups=C, padding=2)
        self.a_log, self.lif, self.last = nn.Parameter(torch.rand(C, 4)), LIF(0.0 + 2), LIF()

    def forward(self, x):
        x, z = self.in_proj(x).chunk(2, -1)
        x = self.conv1d(x.permute(1, 2, 0))[..., : x.shape[0]].permute(2, 0, 1)
        s = self.lif(x + 0.2)
        dt, b, c = self.x_proj(s).split((1, 4, 4), dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        h, out = 0.0, []
        for t in range(s.shape[0]):
            a = torch.exp(dt[t].unsqueeze(-1) * -self.a_log.exp())
            h = a * h + (dt[t] * s[t]).unsqueeze(-1) * b[t].unsqueeze(1)
            out.append((h * c[t].unsqueeze(1)).sum(-1))
        return self.out_proj(self.last(torch.stack(out) * F.silu(z) + 0.2))


class Scored(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lif, self.score = nn.Linear(C, C), LIF(threshold=0.05), nn.Linear(C, 1)
        self.mlp, self.fc = nn.Linear(C, C), nn.Linear(C, 3)

    def kept(self, s):
        """The two best of the tokens of every sample, of firing rates over time."""
        return self.score(s.mean(0)).squeeze(-1).topk(2, dim=1).indices.sort(-1).values


@construction("transformer: token pruning, gather", tokens, layout="TN")
class Pruned(Scored):
    def forward(self, x):
        s = self.lif(self.embed(x))
        index = self.kept(s)[None, :, :, None].expand(T, -1, -1, C)
        return self.fc(self.lif(self.mlp(torch.gather(s, 2, index)) + 0.1))


@construction("transformer: token pruning, scatter back", tokens, layout="TN")
class Scattered(Scored):
    def forward(self, x):
        s = self.lif(self.embed(x))
        index = self.kept(s)[None, :, :, None].expand(T, -1, -1, C)
        y = self.lif(self.mlp(torch.gather(s, 2, index)) + 0.1)
        return self.fc(torch.zeros_like(s).scatter(2, index, y))


@construction("transformer: token pruning, mask", tokens, layout="TN")
class MaskedTokens(Scored):
    def forward(self, x):
        s = self.lif(self.embed(x))
        mask = torch.zeros(s.shape[1:3]).scatter_(1, self.kept(s), 1.0)
        return self.fc(self.lif(self.mlp(s * mask[None, :, :, None]) + 0.1))


@construction("transformer: halting of tokens by an accumulated score", tokens, layout="TN")
class Halting(Scored):
    """Tokens whose score has come to one take no part in later blocks."""

    def forward(self, x):
        s, total = self.lif(self.embed(x)), 0.0
        for _ in range(2):
            total = total + torch.sigmoid(self.score(s.mean(0)))
            alive = (total < 1.1).to(s.dtype)
            s = self.lif(self.mlp(s * alive) + 0.1)
        return self.fc(s.mean(2))


@construction("transformer: deformable attention", spikes(T * B, C, 4, 4), layout="(TN)",
              timesteps=T, refused="grid_sample")  # fmt: skip
class Deformable(nn.Module):
    """Spikes are read between the pixels, where an offset says."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.value, self.proj = (
            nn.Conv2d(C, 2, 3, padding=1), nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1)
        )  # fmt: skip
        self.lif = LIF(threshold=0.02)

    def forward(self, x):
        grid = torch.tanh(self.offset(x)).permute(0, 2, 3, 1)
        v = self.lif(self.value(x).unflatten(0, (T, -1))).flatten(0, 1)
        return self.proj(F.grid_sample(v, grid, align_corners=False))


@construction("transformer: shifted windows", spikes(T, B, 4, 4, C), layout="TN")
class ShiftedWindows(QKV):
    def forward(self, x):
        x = torch.roll(x, shifts=(-1, -1), dims=(2, 3))
        x = x.view(T, B, 2, 2, 2, 2, C).permute(0, 1, 2, 4, 3, 5, 6).reshape(T, B * 4, 4, C)
        q, k, v = self.qkv(x)
        y = self.attn_lif((q @ k.mT @ v * 0.25).transpose(2, 3).flatten(3))
        y = y.view(T, B, 2, 2, 2, 2, C).permute(0, 1, 2, 4, 3, 5, 6).reshape(T, B, 4, 4, C)
        return self.proj(torch.roll(y, shifts=(1, 1), dims=(2, 3)))


@construction("transformer: language model with embeddings and neurons",
              lambda: (torch.randint(0, 12, (B, N)),), timesteps=T, input_events=False)  # fmt: skip
class Language(QKV):
    """Embeddings are currents, repeated at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(12, C), nn.Embedding(N, C)
        self.lif, self.norm, self.head = LIF(), nn.LayerNorm(C), nn.Linear(C, 12, bias=False)
        self.head.weight = self.token.weight

    def forward(self, ids):
        x = self.token(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        s = self.lif(x.unsqueeze(0).expand(T, -1, -1, -1))
        q, k, v = self.qkv(s)
        x = x + self.out(q @ k.mT @ v * 0.125).mean(0)
        return self.head(self.lif(self.norm(x)[None])[0])


@construction("transformer: cross-attention from learned queries", tokens, layout="TN")
class LearnedQueries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, C))
        self.k, self.v, self.lif = dense(C, C), dense(C, C), LIF()
        self.box, self.label, self.last = nn.Linear(C, 4), nn.Linear(C, 6), LIF(threshold=0.02)

    def forward(self, x):
        k, v = self.lif(self.k(x)), self.lif(self.v(x))
        q = self.queries.expand(T, B, -1, -1)
        scores = torch.softmax(q @ k.transpose(-1, -2), dim=-1)
        y = self.last(scores @ v)
        return {"boxes": self.box(y).sigmoid().mean(0), "logits": self.label(y).mean(0)}


@construction("transformer: agreement of queries and keys, spikes and silences", tokens,
              layout="TN")  # fmt: skip
class Agreement(QKV):
    def forward(self, x):
        q, k, v = self.qkv(x)
        attn = q @ k.mT + (1 - q) @ (1 - k).mT
        return self.out(attn / q.shape[-1] @ v)


@construction("transformer: masked autoencoder", images(B, 3, 8, 8), timesteps=T,
              input_events=False)  # fmt: skip
class MaskedAutoencoder(nn.Module):
    """A random half of the patches is encoded; learned tokens stand in for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.lif = nn.Conv2d(3, C, 4, stride=4), LIF(threshold=0.05)
        self.block, self.mask_token = nn.Linear(C, C), nn.Parameter(torch.rand(1, 1, 1, C))
        self.decode, self.pred = nn.Linear(C, C), nn.Linear(C, 48)

    def forward(self, x):
        y = self.patch(x).flatten(2).mT.repeat(T, 1, 1, 1)
        order = torch.rand(B, N, device=x.device).argsort(dim=1)
        back = order.argsort(dim=1)[None, :, :, None].expand(T, -1, -1, C)
        keep = order[None, :, : N // 2, None].expand(T, -1, -1, C)
        y = self.block(self.lif(torch.gather(y, 2, keep)))
        y = torch.cat((y, self.mask_token.expand(T, B, N // 2, -1)), dim=2)
        return self.pred(self.lif(self.decode(self.lif(torch.gather(y, 2, back))) + 0.1)).mean(0)


@construction("transformer: mixture of experts, routed by masks", tokens, layout="TN")
class Experts(nn.Module):
    """A neuron per expert decides which tokens it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.router_lif = nn.Linear(C, 3), LIF(threshold=0.02)
        self.experts = nn.ModuleList(nn.Linear(C, C) for _ in range(3))
        self.lif, self.fc = LIF(threshold=0.02), nn.Linear(C, 3)

    def forward(self, x):
        weights = self.router_lif(self.router(x))
        y = sum(weights[..., i : i + 1] * self.lif(e(x)) for i, e in enumerate(self.experts))
        return self.fc(y)


@construction("transformer: mixture of experts, the best by one-hot", tokens, layout="TN")
class BestExpert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.lif = nn.Linear(C, 3), LIF(threshold=0.02)
        self.experts = nn.ModuleList(nn.Linear(C, C) for _ in range(3))
        self.fc = nn.Linear(C, 3)

    def forward(self, x):
        best = F.one_hot(self.router(x.mean(0)).argmax(-1), 3).to(x.dtype)
        return self.fc(sum(best[None, ..., i, None] * self.lif(e(x))
                           for i, e in enumerate(self.experts)))  # fmt: skip


@construction("transformer: binary queries, counted keys, signed values", tokens, layout="TN")
class Mixed(QKV):
    """Keys are whole numbers of a ReLU, values spikes of either sign."""

    def forward(self, x):
        q = heads(self.q_lif(self.q_linear(x)))
        k = heads(self.k_linear(x).relu().floor().clamp(max=4))
        v = heads(torch.sign(self.v_linear(x)) * (self.v_linear(x).abs() > 0.5))
        return self.out(q @ (k.mT @ v))
