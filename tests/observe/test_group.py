"""Several observers of one run."""

import pytest

from distrib.observe.group import ObserverGroup
from distrib.observe.observer import SilentObserver


class Recorder(SilentObserver):
    def __init__(self):
        self.calls = []

    def event(self, event):
        self.calls.append(event)

    def notice(self, message):
        self.calls.append(message)

    def finished(self, run):
        self.calls.append("finished")


class Broken(Recorder):
    """Raises in every method but `finished`."""

    def event(self, event):
        super().event(event)
        raise ValueError("no \udcff disk\nsecond line")

    notice = idle = event


def test_a_failing_observer_is_reported_once_and_the_others_get_everything(run):
    broken, healthy = Broken(), Recorder()
    group = ObserverGroup([broken, healthy])
    for number in range(3):
        group.event(number)
    group.finished(run)
    message = "Broken failed and shows nothing more of this run; training continues (ValueError: no \udcff disk)"
    assert healthy.calls == [0, message, 1, 2, "finished"]
    assert broken.calls == [0, "finished"]


def test_all_observers_fail(run, capsys):
    group = ObserverGroup([Broken(), Broken()])
    group.event(1)
    group.event(2)
    group.finished(run)
    assert capsys.readouterr().err.count("Broken failed") == 2


def test_ctrl_c_is_not_swallowed():
    class Interrupted(SilentObserver):
        def idle(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ObserverGroup([Interrupted()]).idle()
