"""Loops of a script that is restarted: which data they may have now."""

from distrib.train.script.steps import LoopSpan

SPAN = LoopSpan(num_samples=37, batch_size=37, order="shuffle", end_step=3, digest="a")
SHORTER = LoopSpan(num_samples=20, batch_size=20, order="shuffle", end_step=3, digest="b")
ORDERED = LoopSpan(num_samples=37, batch_size=37, order="sequential", end_step=3, digest="a")


def test_a_loop_that_has_ended_may_have_other_data_but_no_other_order():
    assert SPAN.difference(SHORTER, has_ended=True) is None
    assert SPAN.difference(ORDERED, has_ended=True) == "order was shuffle and is sequential"


def test_a_loop_that_goes_on_may_not():
    assert SPAN.difference(SHORTER, has_ended=False) == "the number of samples was 37 and is 20"
