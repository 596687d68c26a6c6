"""The model and the data of job.yaml: replace them by your own."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Net(nn.Module):
    """A small network for points in the plane.

    Args:
        hidden: Units of the hidden layer.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(self, points: Tensor) -> Tensor:
        """Scores of three classes, of shape (batch, 3), for points of shape (batch, 2)."""
        scores: Tensor = self.layers(points)
        return scores


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Noisy points of three classes around three centers.

    Args:
        count: The number of points.
        seed: Another seed gives other points.
    """

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(3, (count,), generator=generator)
        centers = torch.tensor([[0.0, 1.0], [1.0, -0.5], [-1.0, -0.5]])
        self.points = centers[self.labels] + 0.4 * torch.randn(count, 2, generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.points[index], self.labels[index]
