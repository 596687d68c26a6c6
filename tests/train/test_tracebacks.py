"""Which frames of an error a user gets to see."""

import runpy

import pytest
import torch
from torch.nn import functional

from distrib.job.spec.amounts import Interval
from distrib.train.process.tracebacks import user_traceback


def without_the_test(error):
    """The error as if this file were not among its callers."""
    return error.with_traceback(error.__traceback__.tb_next)


def loss_of_other_shapes():
    return functional.cross_entropy(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64))


def test_it_starts_at_the_users_first_frame():
    with pytest.raises(ValueError, match="batch_size") as caught:
        loss_of_other_shapes()
    shown = user_traceback(caught.value)
    assert shown.count("test_tracebacks.py") == 2
    assert "functional.py" in shown


def test_torchs_frames_alone_are_left_out():
    with pytest.raises(ValueError, match="batch_size") as caught:
        functional.cross_entropy(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64))
    assert user_traceback(without_the_test(caught.value)) == ""


def test_a_missing_module_has_no_frames_to_show():
    with pytest.raises(ImportError) as caught:
        runpy.run_module("tests.support.no_such_module", run_name="__main__")
    assert user_traceback(without_the_test(caught.value)) == ""


def test_an_error_of_the_package_itself_is_shown_whole():
    with pytest.raises(ValueError, match="unpack") as caught:
        Interval.parse("soon")
    shown = user_traceback(without_the_test(caught.value))
    assert "amounts.py" in shown
