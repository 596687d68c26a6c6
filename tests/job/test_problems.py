"""Every mistake in a spec is reported with its line, field and fix."""

from collections.abc import Callable

import pytest

from distrib.job.reader import Job
from distrib.runs.events import EVENT_FIELDS

Refusal = Callable[..., list[str]]

CHANGES = [
    # what the valid spec has, what it has instead, and the one line of the error
    ("name: digits", "name: digits/2", "2: name: expected at most 100 letters, digits, dots, dashes and underscores,"),
    ("name: digits", "name: 17", "2: name: expected text, got 17; put it in quotes"),
    ("name: digits\n", "", "2: name: required: Name of the job"),
    ("model: {target", "model: {taget", "3: model.target: required"),
    ("{hidden: 256}}", "{hidden: 256}, hidden: 3}", "3: model.hidden: unknown key 'hidden'; arguments go under args"),
    ("args: {hidden: 256}", "args: [256]", "3: model.args: expected a mapping, got a list"),
    ("args: {hidden: 256}", "args:", "3: model.args: expected a mapping, got nothing (null)"),
    ("args: {hidden: 256}", "args: {1: 2}", "3: model.args.1: the key 1 is not text; put it in quotes"),
    ("loss: torch.nn:Cross", "loss: torch.nn.Cross", "8: loss.target: expected module:attribute, as in"),
    ("torch.nn:CrossEntropyLoss", "torch.nn.Loss", "got 'torch.nn.Loss'; did you mean 'torch.nn:Loss'?"),
    ("torch.nn:CrossEntropyLoss", "my/losses.py:Loss", "8: loss.target: expected", "did you mean 'my.losses:Loss'?"),
    ("torch.nn:CrossEntropyLoss", "my/losses.py", "did you mean 'my.losses:NAME'?"),
    ("args: {hidden: 256}", "args: {lr: 0,1}", "model.args.1: the key 1 is", "decimals have a point, as in 0.1"),
    ("torch.nn:CrossEntropyLoss", "CrossEntropyLoss", "'CrossEntropyLoss'; did you mean 'torch.nn:CrossEntropyLoss'?"),
    ("torch.nn:CrossEntropyLoss", "AdamW", "did you mean 'torch.optim:AdamW'?"),
    ("torch.nn:CrossEntropyLoss", "stepLr", "did you mean 'torch.optim.lr_scheduler:StepLR'?"),
    ("epochs: 10", "epochs: 1\n  eval_every: 5", "expected an interval such as '100", "got 5; did you mean '5 steps'?"),
    ("epochs: 10", "epochs: 1\n  eval_every: '1'", "got '1'; did you mean '1 step'?"),
    ("epochs: 10", "epochs: 1\n  eval_every: 0", "got 0; did you mean 'never'?"),
    ("epochs: 10", "epochs: 1\n  time_limit: 30", "time_limit: expected a duration such as '90 seconds'", ", got 30"),
    ("workers: 2", "memory_per_worker: 8", "memory_per_worker: expected a size such as '8GiB' or '500 MB', got 8"),
    ("workers: 2", "device: gpu", "got 'gpu'; did you mean 'cuda'?"),
    ("epochs: 10", "epochs: 1\n  precision: bfloat16", "got 'bfloat16'; did you mean 'bf16'?"),
    ("loss: torch.nn:CrossEntropyLoss", "loss: [1]", "8: loss: expected module:attribute, or {target: module:attrib"),
    ("loss: torch.nn:CrossEntropyLoss", "loss: 5", "8: loss: expected module:attribute, or {target: ", ", got 5"),
    ("batch_size: 64", "batch_size: 0", "7: data.batch_size: expected a whole number of at least 1, got 0"),
    ("batch_size: 64", "batch_size: '64'", "7: data.batch_size: expected a whole number, got '64'; without quotes"),
    ("batch_size: 64", "batch_size: 64.0", "7: data.batch_size: expected a whole number, got 64.0; write 64"),
    ("batch_size: 64", "batch_size: 64.5", "7: data.batch_size: expected a whole number, got 64.5"),
    ("batch_size: 64", "batch_size: true", "7: data.batch_size: expected a whole number, got true"),
    ("batch_size: 64", "batch_size:", "7: data.batch_size: expected a whole number, got nothing (null)"),
    ("batch_size: 64", "batch_size: $steps", "7: data.batch_size: $steps is available only under the args of"),
    ("hidden: 256", "hidden: $steps", "3: model.args.hidden: $steps is available only under the args of optimizer"),
    ("batch_size: 64", "batchsize: 64", "4: data.batch_size: required: Samples per"),
    ("name: digits", "name: digits\nbatch_size: 4", "3: batch_size: unknown key 'batch_size'; did you mean 'data."),
    ("name: digits", "name: digits\nfoo: 4", "3: foo: unknown key 'foo'; the keys here are: name, model,"),
    ("name: digits", "name: digits\n7: 4", "3: 7: keys must be text here"),
    ("name: digits", "name: digits\nddp: {bucket_mb:5}", "unknown key 'bucket_mb:5'; did you mean 'bucket_mb'?"),
    ("name: digits", "name: digits\nddp: {x:5}", "3: ddp.x:5: unknown key 'x:5'; YAML needs a space after the colon"),
    ("epochs: 10", "epoch: 10", "13: train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
    ("epochs: 10", "epochs: 1\n  eval_every: 10steps", "14: train.eval_every: ", "did you mean '10 steps'?"),
    ("epochs: 10", "epochs: 1\n  eval_every: every epoch", "14: train.eval_every: ", "did you mean '1 epoch'?"),
    ("epochs: 10", "epochs: 1\n  eval_every: 30 seconds", "14: train.eval_every: expected an interval such as"),
    ("epochs: 10", "epochs: 1\n  eval_every: 0 steps", "14: train.eval_every: expected an interval such as"),
    ("epochs: 10", "epochs: 1\n  precision: f16", "14: train.precision: expected one of 'fp32', 'bf16' or 'fp16',"),
    ("epochs: 10", "epochs: 1\n  precision: f16", "did you mean 'fp16'?"),
    ("epochs: 10", "epochs: 1\n  deterministic: yes", "14: train.deterministic: expected true or false, got 'yes';"),
    ("epochs: 10", "epochs: 1\n  clip_norm: 0", "14: train.clip_norm: expected a number greater than 0, got 0"),
    ("epochs: 10", "epochs: 1\n  clip_norm: .inf", "14: train.clip_norm: expected a finite number, got inf"),
    ("epochs: 10", "epochs: 1\n  clip_norm: one", "14: train.clip_norm: expected a number, got 'one'"),
    ("epochs: 10", "epochs: 1\n  seed: 0x8000000000000000", "14: train.seed: expected at most 9223372036854775807"),
    ("epochs: 10", "epochs: 1\n  seed: ${NO_SUCH}", "14: train.seed: the environment variable NO_SUCH is not defined"),
    ("epochs: 10", "epochs: 1\n  seed: ${1}", "14: train.seed: '${' must be followed by the name of an environment"),
    ("epochs: 10", "epochs: 1\n  steps: 10", "14: train.steps: epochs and steps exclude each other; remove one"),
    ("  epochs: 10", "  log_every: 1", "12: train: epochs or steps is required"),
    ("train:\n  epochs: 10\n", "", "2: train: required: Length"),
    ("train:\n  epochs: 10", "train: 10", "12: train: expected a mapping, got 10"),
    ("workers: 2", "workers: two", "15: resources.workers: expected a whole number of at least 1, or {min: …, max: …}"),
    ("workers: 2", "workers: 0", "15: resources.workers: expected a whole number of at least 1, or {min: …, max: …}"),
    ("workers: 2", "workers: [1, 2]", "15: resources.workers: expected a whole number of at least 1, or {min: …,"),
    ("workers: 2", "workers: {min: 1}", "15: resources.workers.max: required: The maximum"),
    ("workers: 2", "workers: {min: 1, max: a}", "15: resources.workers.max: expected a whole number, got 'a'"),
    ("workers: 2", "workers: {min: 1, max: 2, mid: 1}", "15: resources.workers.mid: unknown key 'mid'; did you"),
    ("workers: 2", "workers: {min: 3, max: 2}", "15: resources.workers: min (3) is greater than max (2); swap them"),
    ("workers: 2", "workers:\n    max: 2\n    min: 3", "15: resources.workers: min (3) is greater than max (2)"),
    ("loss: torch.nn:CrossEntropyLoss\n", "", "2: loss: loss or step is required"),
    ("metrics:", "step: jobs.digits:step\nmetrics:", "9: step: loss and step exclude each other; remove one"),
    ("  eval: jobs.digits:Digits\n", "", "8: metrics: metrics are computed on data.eval, which the job does not have"),
    ("  accuracy:", "  top-1:", "10: metrics.top-1: expected letters, digits and underscores, not starting"),
    ("  accuracy: {target", "  accuracy: {goal", "10: metrics.accuracy.target: required"),
    ("train:", "storage: hdfs://bucket/runs\ntrain:", "12: storage: 'hdfs://' is not supported; use a folder, s3://"),
    ("train:", "storage: s3://key:secret@bucket\ntrain:", "12: storage: leave credentials and addresses out of"),
    ("train:", "storage: $HOME\ntrain:", "12: storage: '$HOME' is unknown; an environment variable is written ${HO"),
    ("er: torch.optim:AdamW", "er: {args: {a: $step}}", "optimizer.args.a: '$step' is unknown; did you mean $steps?"),
    ("er: torch.optim:AdamW", "er: {args: {a: [$steps_per_epochs]}}", "args.a.0: ", "did you mean $steps_per_epoch?"),
    ("hidden: 256", "hidden: {args: '$'}", "3: model.args.hidden.args: '$' is unknown; an environment variable is"),
    ("train:", "schedule: {every: eval, target: a:b}\ntrain:", "12: schedule.every: every: eval needs metric"),
    ("train:", "schedule: {metric: loss, target: a:b}\ntrain:", "12: schedule.metric: metric works only with every:"),
    ("train:", "schedule: {every: stop, target: a:b}\ntrain:", "12: schedule.every: expected one of 'step', 'epoch'"),
    (
        "train:",
        "schedule: {every: eval, metric: acuracy, target: a:b}\ntrain:",
        "12: schedule.metric: no metric is called 'acuracy'; did you mean 'accuracy'?",
    ),
    (
        "train:",
        "schedule: {every: eval, metric: f1, target: a:b}\ntrain:",
        "12: schedule.metric: no metric is called 'f1'; the job has: accuracy, loss",
    ),
    (
        "train:",
        "schedule: {every: eval, metric: loss, target: a:b}\ntrain:\n  eval_every: never",
        "12: schedule.every: every: eval has no effect with train.eval_every: never; change one of them",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), [(old, new, parts) for old, new, *parts in CHANGES])
def test_each_mistake_is_named(refusal: Refusal, text: str, old: str, new: str, expected: list[str]) -> None:
    assert text.count(old) == 1 or old in ("train:", "metrics:")
    changed = text.replace(f"\n{old}", f"\n{new}", 1) if old in ("train:", "metrics:") else text.replace(old, new)
    lines = refusal(changed)
    assert all(line.startswith("job.yaml:") for line in lines)
    assert any(all(part in line for part in expected) for line in lines), lines
    assert not any(
        noise in line for line in lines for noise in ("pydantic", "<count>", "<range>", "[key]", "Input should")
    )


def test_a_mistake_is_reported_once(refusal: Refusal, text: str) -> None:
    assert refusal(text.replace("workers: 2", "workers: two")) == [
        "job.yaml:15: resources.workers: expected a whole number of at least 1, or {min: …, max: …}, got 'two'"
    ]


def test_schedule_on_evaluations_needs_evaluation_data(refusal: Refusal, text: str) -> None:
    changed = text.replace("  eval: jobs.digits:Digits\n", "").replace(
        text[text.index("metrics:") : text.index("optimizer:")], "schedule: {target: a:b, every: eval, metric: loss}\n"
    )
    assert refusal(changed) == [
        "job.yaml:8: schedule.every: every: eval needs data.eval, which the job does not have; "
        "add it, or change schedule.every"
    ]


def test_the_best_weights_go_by_a_metric_that_there_is(refusal: Refusal, text: str) -> None:
    assert refusal(text + "checkpoint: {best: {metric: acuracy}}\n")[0].endswith(
        "checkpoint.best.metric: no metric is called 'acuracy'; did you mean 'accuracy'?"
    )


@pytest.mark.parametrize("name", sorted(EVENT_FIELDS))
def test_a_metric_has_no_name_of_an_event_field(refusal: Refusal, text: str, name: str) -> None:
    (line,) = refusal(text.replace("  accuracy:", f"  {name}:"))
    assert line == f"job.yaml:10: metrics.{name}: '{name}' is a field of events; give the metric another name"


def test_all_problems_are_reported_in_the_order_of_lines(refusal: Refusal, text: str) -> None:
    changed = text.replace("batch_size: 64", "batch_size: 0").replace("epochs: 10", "epoch: 10")
    lines = refusal(changed.replace("name: digits", "nam: digits"), "resources.workers=none")
    locations = [line.split(": ")[0] for line in lines]
    assert locations == [
        "job.yaml:2", "job.yaml:2", "job.yaml:7", "job.yaml:13", "--set resources.workers=none",
    ]  # fmt: skip


def test_all_undefined_variables_are_reported(refusal: Refusal, text: str) -> None:
    lines = refusal(text.replace("hidden: 256", "hidden: '${NO_SUCH}'").replace("workers: 2", "workers: ${NONE}"))
    assert [line[: line.index(" is not defined")] for line in lines] == [
        "job.yaml:3: model.args.hidden: the environment variable NO_SUCH",
        "job.yaml:15: resources.workers: the environment variable NONE",
    ]


def test_what_looks_odd_but_is_right_passes(load: Callable[..., Job], text: str) -> None:
    changed = text.replace("hidden: 256", "hidden: {0: steps, true: a$b, on: 12:30:00, day: 2024-01-01, price: $5.0}")
    assert load(changed).spec.model.args["hidden"] == {
        0: "steps", True: "a$b", "on": "12:30:00", "day": "2024-01-01", "price": "$5.0",
    }  # fmt: skip
