"""Scripts with a session, for tests: `distrib run script_cases.py -- NAME [KEY=VALUE …]`; small and in float64."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from exact_jobs import Mlp, Points, Sentences, token_mean
from exact_specs import BATCH_SIZE, NUM_SAMPLES, SEED, WEIGHTLESS
from session_jobs import (
    Carried,
    Encoder,
    Experts,
    Gan,
    Hidden,
    Recurrent,
    Sam,
    Series,
    Unlabeled,
    contrast,
    critic_loss,
    generator_loss,
    in_step,
)
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import TensorDataset

import distrib

NAME = sys.argv[1]
OPTIONS = dict(argument.split("=") for argument in sys.argv[2:])
STEPS = int(OPTIONS.get("steps", 9))
session = distrib.session(
    seed=SEED,
    log_every=1,
    checkpoint=OPTIONS.get("checkpoint", "never"),
    precision="fp16" if NAME == "half" else "fp32",
)


def build(make):
    """A model, whose weights are those of rank 0 only after `setup`."""
    torch.manual_seed(SEED if session.rank == 0 else 77)
    return make()


def batches(dataset, **options):
    return session.batches(dataset, batch_size=BATCH_SIZE, **({"steps": STEPS} | options))


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def end_body(model):
    """Writes the weights; dies if this rank is to die in this step."""
    step = session.completed_steps + 1
    if session.rank == 0:
        torch.save(model.state_dict(), Path(f"weights-{step:04}.pt"))
    if OPTIONS.get("kill") == f"{session.rank}@{step}" and session.attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if OPTIONS.get("raise") == f"{session.rank}@{step}":
        raise ValueError("no such label")
    if OPTIONS.get("wait") == f"{session.rank}@{step}" and session.attempt == 0:
        Path(OPTIONS["shared"], "waiting").touch()
        while True:
            time.sleep(0.1)
    if OPTIONS.get("stop") == f"{session.rank}@{step}" and session.attempt == 0:
        os.kill(os.getpid(), signal.SIGTERM)


def plain():
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        optimizer.zero_grad()
        session.backward(functional.cross_entropy(model(inputs), targets))
        session.update(optimizer)
        end_body(model)


def scheduled():
    model, optimizer = session.setup(model := build(Mlp), torch.optim.AdamW(model.parameters(), lr=0.1))
    schedule = session.keep("schedule", torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9))
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        optimizer.zero_grad()
        session.backward(functional.cross_entropy(model(inputs), targets))
        session.update(optimizer, clip_norm=0.4)
        schedule.step()
        end_body(model)


def gan():
    model = build(Gan)
    critic, generator = (torch.optim.Adam(part.parameters(), lr=0.01) for part in (model.critic, model.generator))
    session.setup(model.critic, critic, name="critic")
    session.setup(model.generator, generator, name="generator")
    for real, noise in batches(Unlabeled(NUM_SAMPLES)):
        critic.zero_grad()
        session.backward(critic_loss(model, real, noise))
        session.update(critic)
        generator.zero_grad()
        loss = session.backward(generator_loss(model, noise))
        session.update(generator)
        session.log(generator_loss=loss)
        end_body(model)


def contrastive():
    model, optimizer = session.setup(model := build(Encoder), sgd(model))
    for points, noise in batches(Unlabeled(NUM_SAMPLES)):
        second = model(points + 0.1 * functional.pad(noise, (0, points.shape[1] - noise.shape[1])))
        others, start = session.gather(second)
        optimizer.zero_grad()
        session.backward(contrast(model(points), second, others, start))
        session.update(optimizer)
        end_body(model)


def tokens():
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    for batch in batches(Sentences(NUM_SAMPLES, WEIGHTLESS)):
        result = token_mean(model, batch)
        optimizer.zero_grad()
        session.backward(result["loss"], weight=result["weight"])
        session.update(optimizer)
        end_body(model)


def experts():
    model, _ = session.setup(model := build(Experts), torch.optim.Adam(model.parameters(), lr=0.01))
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        session.minimize(functional.cross_entropy(model(inputs), targets))
        end_body(model)


def halves():
    """The slice of a rank in two micro-batches, of which the first is not added over the ranks at once."""
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        middle = len(targets) // 2
        optimizer.zero_grad()
        with session.no_sync(model):
            loss = functional.cross_entropy(model(inputs[:middle]), targets[:middle])
            session.backward(loss, weight=middle)
        loss = functional.cross_entropy(model(inputs[middle:]), targets[middle:])
        session.backward(loss, weight=len(targets) - middle)
        session.update(optimizer)
        end_body(model)


def carried():
    hidden = session.keep("hidden", Hidden())
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        outputs = model(inputs)
        optimizer.zero_grad()
        session.backward(functional.cross_entropy(outputs + hidden.value, targets))
        session.update(optimizer)
        hidden.value = 0.9 * hidden.value + 0.1 * session.sum(outputs.detach().sum(0)) / 9
        end_body(model)


def sam():
    """A loss that the optimizer evaluates twice."""
    model, _ = session.setup(model := build(Mlp), Sam(model.parameters()))
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        session.minimize(lambda: functional.cross_entropy(model(inputs), targets))  # noqa: B023
        end_body(model)


def muon():
    """Muon for matrices, AdamW for the rest."""
    model = build(Mlp)
    named = dict(model.named_parameters())
    matrices = torch.optim.Muon([each for name, each in named.items() if name.endswith("weight")], lr=0.02)
    rest = torch.optim.AdamW([each for name, each in named.items() if name.endswith("bias")], lr=0.01)
    session.setup(model, matrices, rest)
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        session.minimize(functional.cross_entropy(model(inputs), targets))
        end_body(model)


def averaged():
    """An exponential moving average of the weights, which is written instead of them."""
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    averages = session.keep("ema", AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8)))
    for inputs, targets in batches(Points(NUM_SAMPLES)):
        session.minimize(functional.cross_entropy(model(inputs), targets))
        averages.update_parameters(model)
        end_body(averages.module)
    assert optimizer.state


def recurrent():
    """An LSTM with the state of its lanes, in an order of the script's own."""
    model, _ = session.setup(model := build(Recurrent), sgd(model))
    carried = session.keep("carried", Carried(), per_rank=True)
    for inputs, targets in session.batches(Series(), batch_size=5, steps=STEPS, order=in_step):
        outputs, state = model(inputs, carried.state)
        carried.state = tuple(part.detach() for part in state)
        session.minimize(functional.mse_loss(outputs, targets))
        end_body(model)


def half():
    """A loss so large that its gradients overflow fp16 at first."""
    model, _ = session.setup(model := build(lambda: Mlp(dtype="float32")), sgd(model))
    for inputs, targets in batches(Points(NUM_SAMPLES, dtype="float32")):
        with session.autocast():
            loss = functional.cross_entropy(model(inputs), targets) * 32.0
        session.minimize(loss)
        end_body(model)


class Games:
    """Games of varying length that the model plays against itself: the data of one loop."""

    def __init__(self):
        self.number, self.positions = -1, None

    def play(self, model, number):
        """Plays the games of this loop, unless they are there already since the run was restarted within it."""
        if number <= self.number:
            return
        positions, num_features = [], model.layers[0].in_features
        with torch.no_grad():
            for _ in range(6 + number):
                position = torch.zeros(num_features, dtype=torch.float64)
                for _ in range(9):
                    positions.append(position)
                    position = position + torch.randn(num_features, dtype=torch.float64)
                    if model(position[None])[0].argmax() == 0:
                        break
        self.number, self.positions = number, torch.stack(positions)

    def state_dict(self):
        return vars(self)

    def load_state_dict(self, state):
        vars(self).update(state)


def played():
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    games = session.keep("games", Games())
    torch.manual_seed(SEED)
    for number in range(3):
        games.play(model, number)
        positions = TensorDataset(games.positions)
        if session.rank == 0:
            with Path("games.txt").open("a") as file:
                file.write(f"{session.attempt} {number} {len(positions)}\n")
        for (inputs,) in session.batches(positions, batch_size=7, epochs=2):
            optimizer.zero_grad()
            session.backward((model(inputs) ** 2).mean())
            session.update(optimizer)
            end_body(model)


def forgotten():
    """Data that another attempt does not make again."""
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    torch.manual_seed(session.attempt)
    inputs = torch.randn(NUM_SAMPLES, model.layers[0].in_features, dtype=torch.float64)
    for (rows,) in batches(TensorDataset(inputs)):
        optimizer.zero_grad()
        session.backward((model(rows) ** 2).mean())
        session.update(optimizer)
        end_body(model)


def stopping():
    """Ends in its third step; a later loop has no steps, and what is logged after it is the result."""
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    for _ in range(2):
        for inputs, targets in batches(Points(NUM_SAMPLES), order="order_jobs:bucketed"):
            session.minimize(functional.cross_entropy(model(inputs), targets))
            if session.completed_steps == 2:
                session.stop("it is good enough")
    rows = 0
    for inputs, _ in session.shard(Points(20, seed=1), batch_size=6):
        rows += len(inputs)
        session.log(mean_input=inputs.mean())
    session.log(rows=session.sum(rows), late=1.5 if session.rank == 0 else 2.5)
    assert optimizer.state


def stages():
    """Two loops, of which the first is left with `break`, and code between them."""
    model, optimizer = session.setup(model := build(Mlp), sgd(model))
    for number, dataset in enumerate((Points(NUM_SAMPLES), Points(30, seed=4))):
        for inputs, targets in batches(dataset, steps=None, epochs=2):
            optimizer.zero_grad()
            session.backward(functional.cross_entropy(model(inputs), targets))
            session.update(optimizer)
            end_body(model)
            if number == 0 and session.completed_steps + 1 == 7:
                break
        if session.rank == 0:
            with Path("stages.txt").open("a") as file:
                file.write(f"{session.attempt} {number} {session.completed_steps}\n")


def evaluated():
    """An evaluation after each epoch, with a metric and with a sum."""
    from torchmetrics.classification import MulticlassAccuracy

    model = build(Mlp)
    model.register_buffer("statistics", torch.ones(2))
    optimizer = sgd(model)
    session.setup(model, optimizer)
    held_out = Points(20, seed=1)
    for inputs, targets in batches(Points(NUM_SAMPLES), steps=None, epochs=2):
        optimizer.zero_grad()
        session.backward(functional.cross_entropy(model(inputs), targets))
        session.update(optimizer)
        model.statistics.fill_(session.rank + 1)
        if session.is_due("1 epoch"):
            metric, correct, rows = MulticlassAccuracy(3, average="micro"), 0, 0
            with torch.no_grad():
                for inputs, targets in session.shard(held_out, batch_size=7):
                    assert model.statistics.tolist() == [1, 1]
                    outputs = model(inputs)
                    metric.update(outputs, targets)
                    correct, rows = correct + int((outputs.argmax(1) == targets).sum()), rows + len(targets)
            assert session.sum(rows) == 20
            accuracy = session.sum(correct) / 20
            assert abs(session.compute(metric) - accuracy) < 1e-6
            session.log(accuracy=accuracy)
        end_body(model)


if __name__ == "__main__":
    globals()[NAME]()
