"""Networks that make images: autoencoders, adversaries, diffusion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.constructions.parts import LIF, Cell, Folded, construction, conv, images, spike, spikes

T, B = 4, 2
picture = images(B, 1, 8, 8)
static = {"timesteps": T, "input_events": False}


@construction("generative: autoencoder that decodes membranes", picture, **static)
class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), Cell(), nn.Flatten(),
                                     nn.Linear(64, 6), Cell(threshold=0.1))  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(6, 64), Cell(threshold=0.1), nn.Unflatten(1, (4, 4, 4)),
            nn.ConvTranspose2d(4, 1, 3, 2, 1, output_padding=1),
        )  # fmt: skip

    def forward(self, x):
        mem = 0.0
        for _ in range(T):
            mem = 0.9 * mem + self.decoder(self.encoder(x))
        return torch.tanh(mem)


@construction("generative: variational, spikes drawn from many channels", picture, **static)
class Variational(nn.Module):
    """A latent spike is one of k channels, picked at random in every step; a prior runs beside."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.k, self.first = k, nn.Conv2d(1, 4, 3, 2, 1)
        self.before, self.lif = nn.Linear(64, 6), LIF()
        self.posterior, self.prior = nn.Linear(12, 6 * k), nn.Linear(6, 6 * k)
        self.decode, self.up = nn.Linear(6, 64), nn.ConvTranspose2d(4, 1, 3, 2, 1, 1)

    def forward(self, x):
        y = self.lif(self.first(x).unsqueeze(0).expand(T, -1, -1, -1, -1) * 3)
        s = self.lif(self.before(y.flatten(2)))
        z, posterior, prior = torch.zeros(B, 6, device=x.device), [], []
        latent = []
        for t in range(T):
            q = self.posterior(torch.cat((s[t], z), 1)).sigmoid()
            prior.append(self.prior(z).sigmoid().view(B, 6, self.k).mean(-1))
            index = torch.randint(0, self.k, (B, 6), device=x.device) + self.k * torch.arange(6)
            drawn = torch.bernoulli(q)
            z = drawn.view(-1)[(index + torch.arange(B)[:, None] * 6 * self.k).flatten()].view(B, 6)
            posterior.append(q.view(B, 6, self.k).mean(-1))
            latent.append(z)
        y = self.lif(self.decode(torch.stack(latent)) + 0.1).view(T, B, 4, 4, 4)
        image = torch.sigmoid(self.up(y.flatten(0, 1)).unflatten(0, (T, B)).mean(0))
        return image, torch.stack(posterior), torch.stack(prior)


@construction("generative: Poisson spikes in the latent", picture, **static)
class PoissonLatent(nn.Module):
    """Rates of an encoder, and counts drawn from them."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(64, 6), nn.Linear(6, 64)
        self.lif, self.out = LIF(), nn.Linear(64, 64)

    def forward(self, x):
        rate = F.softplus(self.encode(x.flatten(1)))
        z = torch.poisson(rate.unsqueeze(0).repeat(T, 1, 1))
        return self.out(self.lif(self.decode(z))).mean(0).view(-1, 1, 8, 8)


@construction("generative: generator of transposed convolutions, and its adversary",
              lambda: (torch.randn(B, 6), torch.rand(B, 1, 8, 8)), **static)  # fmt: skip
class Adversaries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(6, 32), nn.BatchNorm1d(32), Cell(), nn.Unflatten(1, (8, 2, 2)),
            nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), Cell(),
            nn.ConvTranspose2d(4, 1, 4, 2, 1),
        )  # fmt: skip
        self.critic = nn.Sequential(
            nn.Conv2d(1, 4, 4, 2, 1), Cell(), nn.Conv2d(4, 6, 4, 2, 1), nn.BatchNorm2d(6), Cell(),
            nn.Flatten(), nn.Linear(24, 1),
        )  # fmt: skip

    def forward(self, z, real):
        fake = sum(self.generator(z) for _ in range(T)).div(T).tanh()
        judged = [self.critic(torch.cat((real, fake))) for _ in range(T)]
        return fake, torch.stack(judged).mean(0)


@construction("generative: diffusion, a U-Net that knows the step of time",
              lambda: (torch.randn(B, 1, 8, 8), torch.tensor([3, 80])),
              timesteps=2, input_events=False)  # fmt: skip
class Diffusion(nn.Module):
    """Sinusoids of the noise level are added to every block's currents."""

    class Block(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.conv1, self.conv2, self.lif1, self.lif2 = conv(i, o), conv(o, o), LIF(), LIF()
            self.time, self.skip = nn.Linear(8, o), conv(i, o, 1) if i != o else nn.Identity()

        def forward(self, x, emb):
            h = self.conv1(self.lif1(x)) + self.time(emb)[None, :, :, None, None]
            return self.conv2(self.lif2(h)) + self.skip(x)

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU())
        self.head, self.tail, self.lif = conv(1, 4), conv(4, 1), LIF()
        self.down, self.mid, self.up = self.Block(4, 4), self.Block(4, 4), self.Block(8, 4)
        self.pool = Folded(nn.AvgPool2d(2))

    def forward(self, x, t):
        freqs = torch.exp(-math.log(1e4) * torch.arange(4, device=x.device) / 4)
        emb = t[:, None].float() * freqs[None]
        emb = self.embed(torch.cat((emb.sin(), emb.cos()), dim=-1))
        h0 = self.head(x.unsqueeze(0).repeat(2, 1, 1, 1, 1))
        h1 = self.down(h0, emb)
        h2 = self.mid(self.pool(h1), emb)
        up = F.interpolate(h2.flatten(0, 1), scale_factor=2, mode="nearest").unflatten(0, (2, B))
        y = self.up(torch.cat((up, h1), dim=2), emb)
        return self.tail(self.lif(y)).mean(0)


@construction("generative: discrete codes, the nearest by distance", spikes(B, 2, 8, 8))
class Codebook(nn.Module):
    """Spikes' features are replaced by the nearest code; gradients go straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.codes = nn.Conv2d(2, 4, 4, 4), nn.Embedding(5, 4)
        self.decode, self.to_spikes = nn.ConvTranspose2d(4, 1, 4, 4), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        z = self.encode(x).permute(0, 2, 3, 1)
        flat = z.reshape(-1, 4)
        w = self.codes.weight
        distance = flat.pow(2).sum(1, keepdim=True) + w.pow(2).sum(1) - 2 * flat @ w.t()
        index = distance.argmin(1)
        q = self.codes(index).view(z.shape)
        loss = (q.detach() - z).pow(2).mean() + 0.25 * (q - z.detach()).pow(2).mean()
        q = (z + (q - z).detach()).permute(0, 3, 1, 2)
        return self.decode(spike(self.to_spikes(q))), loss


@construction("generative: events rebuilt into frames", spikes(T, B, 2, 8, 8), layout="TN")
class Reconstruction(nn.Module):
    """A recurrent encoder, residual blocks, and a decoder that predicts an image a step."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.recur = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.res1, self.res2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.Conv2d(4, 1, 1)
        self.cells = nn.ModuleList(Cell(threshold=0.1) for _ in range(4))

    def forward(self, x):
        s, frames, mem = torch.zeros(B, 4, 4, 4), [], 0.0
        for step in x:
            s = self.cells[0](self.encode(step) + self.recur(s))
            y = s + self.cells[2](self.res2(self.cells[1](self.res1(s))))
            mem = 0.9 * mem + 0.1 * self.out(self.cells[3](self.up(y)))
            frames.append(mem)
        return torch.stack(frames)
