"""A generator and a critic of points on a ring: two networks, two optimizers, two updates in a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import Dataset

import distrib

LATENT = 8
RADIUS = 2.0
NOISE = 0.05


class Ring(Dataset[tuple[Tensor, Tensor]]):
    """Points near a circle of radius 2, float32 [2], each with the noise that a fake one is made of, float32 [8].

    The noise is drawn anew whenever a sample is used. distrib seeds it by epoch and sample, so that it is the same for
    any number of workers.

    Args:
        num_samples: The number of points.
        seed: Of the points.
    """

    def __init__(self, num_samples: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        angles = 2 * math.pi * torch.rand(num_samples, generator=generator)
        noise = NOISE * torch.randn(num_samples, 2, generator=generator)
        self.points = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1) + noise

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.points[index], torch.randn(LATENT)


class Gan(nn.Module):
    """A generator from noise [batch, 8] to points [batch, 2], and a critic from points to scores [batch, 1].

    Args:
        width: Of the hidden layers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.generator = _network(LATENT, width, 2)
        self.critic = _network(2, width, 1)

    def forward(self, noise: Tensor) -> Tensor:
        """The points that the generator makes of noise."""
        points: Tensor = self.generator(noise)
        return points


def _network(num_inputs: int, width: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(num_inputs, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, num_outputs),
    )


def step(model: Gan, batch: tuple[Tensor, Tensor], session: distrib.Session) -> None:
    """Updates the critic, then the generator; `off_ring` is how far from the circle generated points are on average."""
    real, noise = batch
    fake = model(noise)
    critic_loss = softplus(-model.critic(real)).mean() + softplus(model.critic(fake.detach())).mean()
    session.minimize(critic_loss, of=model.critic)
    generator_loss = session.minimize(softplus(-model.critic(fake)).mean(), of=model.generator)
    off_ring = (fake.detach().norm(dim=1) - RADIUS).abs().mean()
    session.log(generator_loss=generator_loss, off_ring=off_ring)
