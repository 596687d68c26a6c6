"""The names that `torch.compile` gives to the tensors of a compiled module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from distrib.compat.symbols import TORCH_VERSIONS, PrivateSymbol

_INNER = "_orig_mod."

SYMBOLS = (
    PrivateSymbol(
        "torch._dynamo.eval_frame.OptimizedModule._orig_mod",
        "the attribute that holds the module itself appears in all names of its state; a file of weights must load "
        "into the module compiled or not, and no public API gives the module's own names",
        TORCH_VERSIONS,
        "names with another attribute in them are left as they are",
    ),
)


def own_names(names: Iterable[str]) -> dict[str, str]:
    """For each name in a model's state, the name that it has if nothing is compiled.

    Names that would become equal to others are left as they are.
    """
    shortened = {name: name.replace(_INNER, "") for name in names}
    counts = Counter(shortened.values())
    return {name: short if counts[short] == 1 else name for name, short in shortened.items()}
