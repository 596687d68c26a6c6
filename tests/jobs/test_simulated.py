"""The simulated job: real parameters and gradients, passes of a set duration."""

import time

import torch

from jobs.simulated import Blank, Simulated


def test_passes_take_the_set_time_and_no_core():
    model = Simulated(layers=4, megabytes=0.4, fixed_ms=30, ms_per_sample=15)
    inputs, _ = Blank(2)[:]
    Simulated(layers=4, megabytes=0.4, fixed_ms=0, ms_per_sample=0)(inputs).sum().backward()  # the first is slower
    started, cpu = time.perf_counter(), time.process_time()
    outputs = model(inputs)
    forward = time.perf_counter() - started
    outputs.sum().backward()
    whole = time.perf_counter() - started
    assert forward >= 0.02
    assert whole >= 0.06
    assert time.process_time() - cpu < whole / 2


def test_parameters_and_gradients_are_real():
    model = Simulated(layers=2, megabytes=0.8, fixed_ms=0, ms_per_sample=0)
    assert sum(parameter.nbytes for parameter in model.parameters()) == 800_000
    torch.nn.functional.mse_loss(model(torch.ones(3, 1)), torch.zeros(3, 1)).backward()
    for parameter in model.parameters():
        assert parameter.grad.shape == parameter.shape
        assert parameter.grad[0] == 2
