"""Numbers that modules count in plain attributes, which no checkpoint has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import nn

from distrib.errors import listed
from distrib.train.checkpoint.extra_state import has_extra_state

_NUM_LOOKS = 4
"""Before the first step and after each of the first ones: an attribute that changes only once is a cache."""

Numbers = dict[str, int | float]


class CounterWatch:
    """Finds numbers in plain attributes that change in each of the first steps.

    A resumed run starts with their first values. Modules with extra state, and those of torch itself, are left out.

    Args:
        models: The models by name.
    """

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        self._models = models
        self._seen = [_numbers(models)]

    @property
    def is_done(self) -> bool:
        """Whether enough has been seen."""
        return len(self._seen) == _NUM_LOOKS

    def look(self) -> list[str]:
        """Looks once after a step; returns what is to be reported, at the last look."""
        self._seen.append(_numbers(self._models))
        if not self.is_done:
            return []
        pairs = list(zip(self._seen, self._seen[1:], strict=False))
        names = [name for name in self._seen[0] if all(name in b and a.get(name) != b[name] for a, b in pairs)]
        if not names:
            return []
        return [
            f"plain attributes that change in every step are in no checkpoint: {listed(names)}; "
            "a resumed run starts them anew, so if results depend on them, make them buffers or return them from "
            "get_extra_state"
        ]


def _numbers(models: Mapping[str, nn.Module]) -> Numbers:
    """The numbers in attributes of the job's own modules, by dotted name."""
    found: Numbers = {}
    for model_name, model in models.items():
        for path, part in model.named_modules():
            if type(part).__module__.startswith("torch.") or has_extra_state(part):
                continue
            for name, value in _plain(vars(part).items()):
                found[".".join(filter(None, (model_name, path, name)))] = value
    return found


def _plain(attributes: Iterable[tuple[str, object]]) -> Iterable[tuple[str, int | float]]:
    numbers = ((name, value) for name, value in attributes if isinstance(value, int | float))
    return [(name, value) for name, value in numbers if not math.isnan(value)]
