"""`distrib.session`: how a script gets its session."""

from __future__ import annotations

from distrib.train.script.current import current
from distrib.train.script.engine import ScriptEngine
from distrib.train.script.errors import UsageError
from distrib.train.script.options import SessionOptions
from distrib.train.script.rank import join
from distrib.train.script.session import ScriptSession
from distrib.train.settings import PrecisionName


def session(
    *,
    seed: int = 0,
    precision: PrecisionName = "fp32",
    deterministic: bool = False,
    checkpoint: str = "1 epoch",
    keep: int = 2,
    log_every: int = 10,
) -> ScriptSession:
    """The session of the script that runs in this process; the same one if it is called again.

    Connects the ranks that `distrib run` has started. In a script that runs with plain `python` it is the session of a
    single rank, which keeps nothing.

    Args:
        seed: Of the order of samples and all randomness within steps.
        precision: Of `session.autocast`; with `fp16` gradients are scaled too.
        deterministic: Whether to use only deterministic algorithms.
        checkpoint: `N steps`, `N epochs`, `N seconds` or `never`; unless `never`, the end of a loop is saved too.
        keep: The number of checkpoints to keep.
        log_every: Steps between train events.

    Raises:
        UsageError: A value cannot be used, or another launcher has started several processes.
    """
    options = SessionOptions(
        seed=seed,
        precision=precision,
        deterministic=deterministic,
        checkpoint=checkpoint,
        keep=keep,
        log_every=log_every,
    )
    options.check()
    script = current()
    if script is None or script.session is None:
        is_kept = script is not None
        rank = join(script, options.settings)
        script = current()
        assert script is not None
        script.session = ScriptSession(rank, options, ScriptEngine(rank, is_kept=is_kept))
    elif script.session.options != options:
        raise UsageError("distrib.session: the script has a session with other arguments; pass that one on instead")
    return script.session
