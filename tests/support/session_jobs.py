"""Steps that drive their own updates, for tests of the session: small, in float64, and written down step by step."""

from pathlib import Path

import torch
from exact_jobs import NUM_FEATURES, Mlp, token_mean
from torch import nn
from torch.nn import functional

LATENT = 4


def note(session, model):
    """Writes the weights after the updates of a step."""
    if session.is_training and session.rank == 0:
        torch.save(model.state_dict(), Path(f"weights-{session.completed_steps + 1:04}.pt"))


class Gan(nn.Module):
    """A generator and a critic of points."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(LATENT, 8), nn.Tanh(), nn.Linear(8, NUM_FEATURES)).double()
        self.critic = nn.Sequential(nn.Linear(NUM_FEATURES, 8), nn.Tanh(), nn.Linear(8, 1)).double()


class Unlabeled(torch.utils.data.Dataset):
    """Points, each with the noise that a generator makes one of."""

    def __init__(self, num_samples, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.points = torch.randn(num_samples, NUM_FEATURES, generator=generator, dtype=torch.float64)
        self.noise = torch.randn(num_samples, LATENT, generator=generator, dtype=torch.float64)

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index], self.noise[index]


def critic_loss(model, real, noise):
    fake = model.generator(noise).detach()
    return (functional.softplus(-model.critic(real)) + functional.softplus(model.critic(fake))).mean()


def generator_loss(model, noise):
    return functional.softplus(-model.critic(model.generator(noise))).mean()


def gan(model, batch, session):
    """Two updates, each of its own network."""
    real, noise = batch
    session.minimize(critic_loss(model, real, noise), of=model.critic)
    loss = session.minimize(generator_loss(model, noise), of=model.generator)
    session.log(generator_loss=loss)
    note(session, model)
    return


def by_function(model, batch, session):
    """A loss that the optimizer evaluates as often as it wants."""
    inputs, targets = batch
    session.minimize(lambda: functional.cross_entropy(model(inputs), targets))
    note(session, model)


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimization: the gradient of the loss at the worst point near by."""

    def __init__(self, params, lr=0.1, radius=0.05):
        super().__init__(params, {"lr": lr, "radius": radius})

    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.cat([p.grad.flatten() for p in parameters]).norm()
        moves = [p.grad * (self.defaults["radius"] / norm) for p in parameters]
        with torch.no_grad():
            for parameter, move in zip(parameters, moves, strict=True):
                parameter += move
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for parameter, move in zip(parameters, moves, strict=True):
                parameter -= move + self.defaults["lr"] * parameter.grad
        return loss


class Encoder(nn.Module):
    """Two views of a point as unit vectors."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(NUM_FEATURES, 8), nn.Tanh(), nn.Linear(8, 4)).double()

    def forward(self, inputs):
        return functional.normalize(self.layers(inputs), dim=-1)


def contrast(first, second, others, start):
    """Each row of `first` against all of `others`, of which row `start` + i is its own partner."""
    targets = start + torch.arange(len(first))
    return functional.cross_entropy(first @ others.T / 0.2, targets)


def contrastive(model, batch, session):
    """In-batch negatives over all ranks."""
    points, noise = batch
    first, second = model(points), model(points + 0.1 * functional.pad(noise, (0, NUM_FEATURES - LATENT)))
    others, start = session.gather(second)
    loss = contrast(first, second, others, start)
    session.minimize(loss)
    note(session, model)
    return {"loss": loss, "log": {"rows": float(len(others))}}


def returned_contrastive(model, batch, session):
    """The same, but the engine updates."""
    points, noise = batch
    first, second = model(points), model(points + 0.1 * functional.pad(noise, (0, NUM_FEATURES - LATENT)))
    others, start = session.gather(second)
    return contrast(first, second, others, start)


def tokens(model, batch, session):
    """A mean over tokens, of which a slice may have none: its loss is NaN there."""
    result = token_mean(model, batch)
    session.minimize(result["loss"], weight=result["weight"])
    note(session, model)
    return result


class Experts(Mlp):
    """A second head for samples of one kind, which not every slice or batch has."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(NUM_FEATURES, 3).double()
        self.third = nn.Linear(NUM_FEATURES, 3).double()

    def forward(self, inputs):
        outputs = super().forward(inputs)
        is_special = inputs[:, 0] > 1.5
        if is_special.any():
            outputs = outputs + torch.where(is_special[:, None], self.second(inputs), 0.0)
        return outputs


def experts(model, batch, session):
    """Some parameters are reached by some ranks only, or by none."""
    inputs, targets = batch
    session.minimize(functional.cross_entropy(model(inputs), targets))
    note(session, model)


class Hidden:
    """What a stateful step carries from one step to the next."""

    def __init__(self):
        self.value, self.num_steps = torch.zeros(3, dtype=torch.float64), 0

    def state_dict(self):
        return {"value": self.value, "num_steps": self.num_steps}

    def load_state_dict(self, state):
        self.value, self.num_steps = state["value"].clone(), state["num_steps"]


def carried(model, batch, session):
    """The mean of the outputs of all steps so far is part of the loss, the same on all ranks."""
    hidden = session.keep("hidden", Hidden())
    inputs, targets = batch
    outputs = model(inputs)
    session.minimize(functional.cross_entropy(outputs + hidden.value, targets))
    total = session.sum(outputs.detach().sum(0))
    hidden.value = 0.9 * hidden.value + 0.1 * total / 9
    hidden.num_steps += 1
    note(session, model)


def unequal(model, batch, session):
    """Keeps as one what differs between the ranks."""
    hidden = session.keep("hidden", Hidden())
    hidden.num_steps = session.rank
    inputs, targets = batch
    session.minimize(functional.cross_entropy(model(inputs), targets))


def stopping(model, batch, session, step, ranks=None):
    """Stops after some step, on all ranks or on some."""
    inputs, targets = batch
    session.minimize(functional.cross_entropy(model(inputs), targets))
    if session.completed_steps + 1 == step and session.rank in (ranks or range(session.world_size)):
        session.stop("it is good enough")


def forgetful(model, batch, session):
    """Mentions minimize without calling it."""
    if session.completed_steps > 100:
        session.minimize(None)
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)


def named_gan(model, batch, session):
    """The same with an optimizer for each network, named in one of the calls."""
    real, noise = batch
    session.minimize(critic_loss(model, real, noise), optimizer="critic")
    session.minimize(generator_loss(model, noise), of=model.generator)
    note(session, model)


def plain(model, batch, session):
    """Returns its loss; the engine updates."""
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)


class Diary:
    """Writes down when it is called, and counts steps over all attempts."""

    def __init__(self):
        self.num_steps = 0

    def _write(self, session, text):
        if session.rank == 0:
            with open("diary.txt", "a") as file:
                file.write(f"{session.completed_steps} {text}\n")

    def on_start(self, session):
        self._write(session, f"start after {self.num_steps}")

    def on_step(self, session, output):
        self.num_steps += 1
        self._write(session, f"step {float(output.loss.detach()):.3f}")

    def on_evaluation(self, session, results):
        self._write(session, f"evaluation {results['loss']:.3f}")

    def on_end(self, session):
        self._write(session, f"end after {self.num_steps}")

    def state_dict(self):
        return {"num_steps": self.num_steps}

    def load_state_dict(self, state):
        self.num_steps = state["num_steps"]


class Series(torch.utils.data.Dataset):
    """Lanes of a series one after the other: sample lane · length + t is its value at time t, and the next one."""

    def __init__(self, num_lanes=5, length=12):
        times = torch.arange(length + 1, dtype=torch.float64) + torch.arange(num_lanes)[:, None] * 0.7
        self.values = torch.stack([times.sin(), (1.7 * times).cos()], dim=-1)
        self.length = length

    def __len__(self):
        return len(self.values) * self.length

    def __getitem__(self, index):
        lane, time = divmod(index, self.length)
        return self.values[lane, time], self.values[lane, time + 1]


def in_step(dataset, epoch, seed):
    """An order whose batch t has the samples of all lanes at time t."""
    return torch.arange(len(dataset)).view(-1, dataset.length).T


class Recurrent(nn.Module):
    """An LSTM that predicts the next value."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTMCell(2, 6).double(), nn.Linear(6, 2).double()

    def forward(self, inputs, state):
        state = self.cell(inputs, state)
        return self.out(state[0]), state


class Carried:
    """The state of an LSTM between two steps, of a rank's lanes."""

    def __init__(self):
        self.state = None

    def state_dict(self):
        return {"state": self.state}

    def load_state_dict(self, state):
        self.state = None if state["state"] is None else tuple(part.clone() for part in state["state"])


def recurrent(model, batch, session):
    """Continues with the state that the step before has left, without its gradients."""
    carried = session.keep("carried", Carried(), per_rank=True)
    inputs, targets = batch
    outputs, state = model(inputs, carried.state)
    carried.state = tuple(part.detach() for part in state)
    session.minimize(functional.mse_loss(outputs, targets))
    note(session, model)


def half(model, batch, session, scale=1.0):
    """A loss of a model in single precision, under autocast."""
    inputs, targets = batch
    session.minimize(functional.cross_entropy(model(inputs), targets) * scale)
    note(session, model)


def four_parameters(model, batch, session, extra):
    """Has a parameter that nobody gives."""


def one_parameter(model):
    """Does not take the batch."""
