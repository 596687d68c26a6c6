"""Updates of sessions by an optimizer that draws random numbers, as functions of one rank."""

import torch
import torch.distributed as dist

from distrib.train.health.times import RankTimes
from distrib.train.optimization.precision import Precision
from distrib.train.optimization.update_randomness import UpdateRandomness
from distrib.train.phases import RankProgress
from distrib.train.process.randomness import reseed
from distrib.train.script.gradients import ScriptGradients
from distrib.train.session.gather import BackwardWeight
from distrib.train.session.minimize import Minimizer, Slice
from distrib.train.session.reduction import GradientReducer
from distrib.train.state import TrainingState
from tests.support.fault_jobs import Noisy
from tests.support.strategy_checks import GLOBAL_BATCH, Network, inputs_of, loss_of, make_strategy

CPU = torch.device("cpu")


class NoisyByFunction(Noisy):
    """Evaluates the loss between two draws of noise."""

    def step(self, closure):
        with torch.enable_grad():
            closure()
        super().step()


def update_with_noise(rank, world_size, how):
    """The weights after two steps, and what this rank draws after the last update, as for dropout."""
    state = TrainingState(make_strategy("single" if world_size == 1 else "ddp", rank, world_size), rank, world_size)
    model = Network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * rank  # only rank 0's weights count
    state.add_model(model, is_wrapped=False)
    optimizer = (NoisyByFunction if how == "function" else Noisy)(model.layers.parameters())
    state.add_optimizer(optimizer)
    times = RankTimes(CPU, world_size, RankProgress.private())
    parts = (state, Precision("fp32", CPU), GradientReducer(dist.group.WORLD, 1e6, BackwardWeight(), times))
    randomness = UpdateRandomness(state, 3, rank)
    minimizer = Minimizer(*parts, randomness, dist.group.WORLD, None)
    gradients = ScriptGradients(*parts, randomness)
    drawn = []
    for step in range(2):
        mine = inputs_of(step).chunk(world_size)[rank]
        part = Slice(len(mine), GLOBAL_BATCH)
        reseed(100 * step + rank)

        def loss(mine=mine):
            drawn.append(float(torch.rand(())))
            return loss_of(model, mine)

        if how == "backward":
            gradients.backward(loss(), None, part)
            gradients.update(optimizer, None)
            optimizer.zero_grad()
        else:
            minimizer.minimize(loss if how == "function" else loss(), None, None, None, part)
        state.completed_steps += 1
    drawn.append(float(torch.rand(())))
    return [parameter.detach().clone() for parameter in model.parameters()], drawn


def accumulate(rank, world_size):
    """The gradient of a weighted mean over two global batches of other sizes, and that of one process."""
    state = TrainingState(make_strategy("single" if world_size == 1 else "ddp", rank, world_size), rank, world_size)
    state.add_model(Network(), is_wrapped=False)
    optimizer = torch.optim.SGD(state.model.layers.parameters(), lr=0.0)
    state.add_optimizer(optimizer)
    times = RankTimes(CPU, world_size, RankProgress.private())
    reducer = GradientReducer(dist.group.WORLD, 1e6, BackwardWeight(), times)
    gradients = ScriptGradients(state, Precision("fp32", CPU), reducer, UpdateRandomness(state, 3, rank))
    whole = [inputs_of(0), inputs_of(1)[:7]]
    for inputs in whole:
        mine = inputs.tensor_split(world_size)[rank]
        gradients.backward(loss_of(state.model, mine), len(mine), Slice(len(mine), len(inputs)))
    gradients.update(optimizer, None)
    reference = Network()
    loss_of(reference, torch.cat(whole)).backward()
    return [[p.grad for p in model.layers.parameters()] for model in (state.model, reference)]
