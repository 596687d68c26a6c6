"""The GAN job: points move onto the ring, each network with its own optimizer."""

import pytest
import torch

from jobs.gan import LATENT, RADIUS, Gan, Ring

pytestmark = pytest.mark.timeout(180)


def test_samples_are_points_of_the_ring_with_noise():
    dataset = Ring(100)
    points, noise = zip(*(dataset[index] for index in range(100)), strict=True)
    assert torch.stack(noise).shape == (100, LATENT)
    radii = torch.stack(points).norm(dim=1)
    assert float((radii - RADIUS).abs().max()) < 0.5
    assert torch.equal(Ring(100).points, dataset.points)
    assert not torch.equal(Ring(100, seed=1).points, dataset.points)


def test_the_model_generates_points_and_scores_them():
    model = Gan(width=8)
    assert model.critic(model(torch.randn(5, LATENT))).shape == (5, 1)


def test_run_moves_the_points_onto_the_ring(run_job):
    run = run_job("gan.yaml")
    first, *_, last = (event["off_ring"] for event in run.events("train"))
    assert last < 0.3 < 1.0 < first
    assert set(run.events("train")[-1]["lr"]) == {"critic", "generator"}
