"""The settings of a head are the same in the code and in the file that users source."""

from cluster.lab.ray_node import head_settings
from distrib.launch.ray.submit.job_environment import HEAD_SETTINGS, submitted_variables


def test_head_settings_are_those_of_the_file():
    assert head_settings() == HEAD_SETTINGS


def test_a_stop_is_an_interrupt_with_time_for_a_checkpoint_and_users_win():
    variables = submitted_variables(30.0, {"RAY_DEDUP_LOGS": "1"})
    assert variables["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
    assert float(variables["RAY_JOB_STOP_WAIT_TIME_S"]) > 30
    assert variables["RAY_DEDUP_LOGS"] == "1"
