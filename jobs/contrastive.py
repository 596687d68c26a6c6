"""Two views of the same things learn to find each other among all others of the global batch, on all workers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import TensorDataset

import distrib

NUM_FACTORS = 12
NUM_FEATURES = 32
NOISE = 0.3


class Views(TensorDataset):
    """Pairs of views, float32 [32] each: two fixed random projections of the same 12 hidden factors, with noise.

    Args:
        num_samples: The number of pairs.
        seed: Of the factors and the noise; the projections are always the same.
    """

    def __init__(self, num_samples: int, seed: int = 0) -> None:
        projections = torch.randn(2, NUM_FACTORS, NUM_FEATURES, generator=torch.Generator().manual_seed(99))
        generator = torch.Generator().manual_seed(seed)
        factors = torch.randn(num_samples, NUM_FACTORS, generator=generator)
        noise = NOISE * torch.randn(2, num_samples, NUM_FEATURES, generator=generator)
        first, second = torch.tanh(factors @ projections / NUM_FACTORS**0.5) + noise
        super().__init__(first, second)


class TwoTowers(nn.Module):
    """An encoder for each view, to unit vectors [batch, dimension].

    Args:
        dimension: Of the vectors.
    """

    def __init__(self, dimension: int = 16) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Linear(NUM_FEATURES, 64), nn.ReLU(), nn.Linear(64, dimension)) for _ in range(2)
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of both views."""
        return normalize(self.first(first), dim=1), normalize(self.second(second), dim=1)


def step(
    model: TwoTowers, batch: tuple[Tensor, Tensor], session: distrib.Session, temperature: float = 0.1
) -> dict[str, Tensor]:
    """Each view has to find its partner among those of the whole global batch; `recall` is how often it does."""
    first, second = model(*batch)
    all_first, start = session.gather(first)
    all_second, _ = session.gather(second)
    partners = start + torch.arange(len(first), device=first.device)
    forwards, backwards = first @ all_second.T / temperature, second @ all_first.T / temperature
    recall = (forwards.argmax(dim=1) == partners).float().mean()
    session.log(recall=recall)
    loss = (cross_entropy(forwards, partners) + cross_entropy(backwards, partners)) / 2
    return {"loss": loss}
