"""Patterns that texts of a job spec must match, and the same in words."""

from __future__ import annotations

import re

TARGET_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"


ORDER_PATTERN = rf"^(shuffle|sequential)$|{TARGET_PATTERN}"


TRACKER_PATTERN = rf"^(tensorboard|mlflow|wandb|trackio)$|{TARGET_PATTERN}"


RUN_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


STEP_INTERVAL_PATTERN = r"^([1-9][0-9]* (step|epoch)s?|never)$"


SAVE_INTERVAL_PATTERN = r"^([1-9][0-9]* (step|epoch|second)s?|never)$"


DURATION_PATTERN = r"^[1-9][0-9]* (second|minute|hour)s?$"


METRIC_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"


BYTES_PATTERN = r"^[1-9][0-9]*(\.[0-9]+)? ?(KiB|MiB|GiB|TiB|kB|MB|GB|TB)$"


PATTERNS_IN_WORDS = {
    TARGET_PATTERN: "module:attribute, as in torch.nn:CrossEntropyLoss",
    ORDER_PATTERN: "shuffle, sequential, or module:attribute of an own order",
    TRACKER_PATTERN: "tensorboard, mlflow, wandb, trackio, or module:attribute of an own tracker",
    RUN_NAME_PATTERN: "at most 100 letters, digits, dots, dashes and underscores, starting with a letter or a digit",
    STEP_INTERVAL_PATTERN: "an interval such as '100 steps', '1 epoch' or 'never'",
    SAVE_INTERVAL_PATTERN: "an interval such as '100 steps', '1 epoch', '60 seconds' or 'never'",
    DURATION_PATTERN: "a duration such as '90 seconds', '30 minutes' or '2 hours'",
    METRIC_PATTERN: "letters, digits and underscores, not starting with a digit",
    BYTES_PATTERN: "a size such as '8GiB' or '500 MB'",
}


def is_run_name(text: str) -> bool:
    """Whether `text` can be a run's id: letters, digits, dots, dashes and underscores."""
    return re.fullmatch(RUN_NAME_PATTERN.rstrip("$"), text) is not None
