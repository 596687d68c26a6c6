"""Which values each event gives to which metric."""

from distrib.observe.metrics.definitions import METRICS, samples_of


def values(event):
    return {(sample.metric.name, sample.label): sample.value for sample in samples_of(event)}


def test_train():
    event = {"time": 5.0, "attempt": 0, "event": "train", "step": 3, "epoch": 1, "samples": 96, "loss": 0.5, "lr": 0.1}
    event |= {"step_seconds": 0.2, "data_seconds": 0.01, "samples_per_second": 160.0, "rank_step_seconds": [0.2, 0.3]}
    assert values(event) == {
        ("distrib_last_event_timestamp_seconds", ""): 5,
        ("distrib_step", ""): 3,
        ("distrib_epoch", ""): 1,
        ("distrib_samples", ""): 96,
        ("distrib_loss", ""): 0.5,
        ("distrib_learning_rate", "default"): 0.1,
        ("distrib_step_seconds", ""): 0.2,
        ("distrib_data_wait_seconds", ""): 0.01,
        ("distrib_samples_per_second", ""): 160,
        ("distrib_rank_step_seconds", "0"): 0.2,
        ("distrib_rank_step_seconds", "1"): 0.3,
    }


def test_a_loss_that_is_no_number_is_left_out_and_rates_have_names():
    found = values({"event": "train", "time": 1.0, "loss": None, "lr": {"generator": 0.1, "critic": 0.2}})
    assert ("distrib_loss", "") not in found
    assert found["distrib_learning_rate", "critic"] == 0.2


def test_eval_and_checkpoint():
    found = values({"event": "eval", "time": 1.0, "step": 4, "accuracy": 0.9, "loss": 0.3, "eval_seconds": 2.0})
    assert found["distrib_evaluation", "accuracy"] == 0.9
    assert found["distrib_evaluation", "eval_seconds"] == 2
    assert ("distrib_step", "") not in found
    found = values({"event": "checkpoint", "time": 1.0, "step": 4, "save_seconds": 0.7, "stall_seconds": 0.1})
    assert found["distrib_checkpoint_step", ""] == 4
    assert found["distrib_checkpoint_seconds", ""] == 0.7


def test_names_are_those_of_prometheus_and_unique():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("distrib_") and name.islower() for name in names)
    assert all(metric.help for metric in METRICS)
