"""The input signature of run.json: what a row of the model's inputs looks like, and batches made up to match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distrib.errors import InferenceError

INPUTS = "inputs"
"""The name of the inputs where they are one tensor and so have no name of their own."""


@dataclass(frozen=True)
class TensorForm:
    """One tensor of the inputs.

    Attributes:
        row_shape: Its shape without the first dimension, the batch.
        dtype: The name of its type, as torch has it.
    """

    row_shape: tuple[int, ...]
    dtype: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """Its type."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True)
class InputForm:
    """What of a batch is the inputs, and of which tensors they consist.

    Attributes:
        tensors: By name; a single tensor without a name is `inputs`.
        is_named: Whether the inputs are a dict.
        num_parts: 0 where the batch is the inputs; 1 or 2 where they are the first of so many parts, the second being
            the targets.
    """

    tensors: Mapping[str, TensorForm]
    is_named: bool
    num_parts: int

    @classmethod
    def of(cls, signature: Any) -> InputForm:
        """Reads the signature of a batch.

        Raises:
            InferenceError: There is none, or the inputs are no tensors with a batch dimension.
        """
        if signature is None:
            raise InferenceError(
                "run.json has no input signature, which training writes at its first step; train this run again"
            )
        is_list = isinstance(signature, list)
        if is_list and len(signature) not in (1, 2):
            raise InferenceError(
                f"the run was trained on batches of {len(signature)} parts, of which the inputs cannot be told; "
                "use a dataset whose samples are (inputs, targets), or a dict"
            )
        inputs = signature[0] if is_list else signature
        named = {INPUTS: inputs} if _is_tensor(inputs) else inputs
        if not isinstance(named, Mapping) or not all(map(_is_tensor, named.values())):
            raise InferenceError(f"the model's inputs are not tensors: the input signature in run.json is {inputs}")
        tensors = {}
        for name, tensor in named.items():
            if not tensor["shape"]:
                raise InferenceError(f"the input '{name}' has no batch dimension; its shape in run.json is []")
            tensors[name] = TensorForm(tuple(tensor["shape"][1:]), tensor["dtype"])
        return cls(tensors, named is inputs, len(signature) if is_list else 0)

    def batch(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """A batch of the form that the run was trained on, None in the place of targets."""
        inputs: Any = dict(tensors) if self.is_named else tensors[INPUTS]
        if self.num_parts == 0:
            return inputs
        return [inputs, *[None] * (self.num_parts - 1)]

    def example(self, num_rows: int, seed: int = 0) -> Any:
        """A made-up batch: standard normal numbers, and zeros and ones where they are whole."""
        return self.batch(self.tensors_of_example(num_rows, seed))

    def tensors_of_example(self, num_rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """The inputs of a made-up batch, by name."""
        generator = torch.Generator().manual_seed(seed)
        return {name: _make_up(form, num_rows, generator) for name, form in self.tensors.items()}


def example_batch(signature: Any, num_rows: int) -> Any:
    """A made-up batch that fits the signature; InferenceError where that cannot be read."""
    return InputForm.of(signature).example(num_rows)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"shape", "dtype"} and isinstance(value["shape"], list)


def _make_up(form: TensorForm, num_rows: int, generator: torch.Generator) -> torch.Tensor:
    shape, dtype = (num_rows, *form.row_shape), form.torch_dtype
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)
