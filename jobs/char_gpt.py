"""A small GPT that learns to write Python's documentation byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

VOCABULARY_SIZE = 256
"""A token is a byte of UTF-8, so no vocabulary has to be built or stored."""

IGNORED = -100
"""The target of padding positions, which do not contribute to the loss."""

TRAIN_FRACTION = 0.9

Sample = tuple[Tensor, Tensor]


class Text(Dataset[Sample]):
    """Windows of a text: pairs of inputs and targets, int64 [context] each; a target is the token after its input.

    Windows follow each other without overlap. The last one of a split is shorter and padded: inputs by 0, targets by
    `IGNORED`. So a batch that contains it has fewer tokens than other batches of the same size.

    Args:
        split: `train`, the first nine tenths of the text, or `eval`, the rest.
        context: Tokens of a window.
        file: A text in UTF-8. By default the language reference that Python ships for `help()`: about half a million
            characters of English, slightly different in every version of Python.
    """

    def __init__(self, split: Literal["train", "eval"], context: int = 128, file: str | None = None) -> None:
        if split not in ("train", "eval"):
            raise ValueError(f"a text has the splits train and eval, not {split!r}")
        tokens = encode(Path(file).read_text(encoding="utf-8") if file else python_reference())
        boundary = int(TRAIN_FRACTION * len(tokens))
        tokens = tokens[:boundary] if split == "train" else tokens[boundary:]
        if len(tokens) < 2:
            raise ValueError(f"the {split} split of this text has {len(tokens)} bytes; it needs at least 2")
        self.num_targets = len(tokens) - 1
        num_windows = -(-self.num_targets // context)
        padding = num_windows * context - self.num_targets
        self.inputs = functional.pad(tokens[:-1], (0, padding)).view(num_windows, context)
        self.targets = functional.pad(tokens[1:], (0, padding), value=IGNORED).view(num_windows, context)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Sample:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """A whole batch with a single indexing operation."""
        rows = torch.as_tensor(indices)
        return list(zip(self.inputs[rows], self.targets[rows], strict=True))


def python_reference() -> str:
    """The parts of Python's language reference that the standard library ships for `help()`."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def encode(text: str) -> Tensor:
    """The tokens of a text: int64 [bytes]."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()


def decode(tokens: Tensor) -> str:
    """The text of int64 tokens [length]; bytes that are not UTF-8 become the replacement character."""
    return bytes(tokens.tolist()).decode(errors="replace")


class Gpt(nn.Module):
    """A decoder-only transformer: tokens, int64 [batch, time], to logits, float32 [batch, time, 256].

    The output head shares the weights of the token embedding. Layer norms precede attention and feed-forward layers;
    weights are initialized as in GPT-2 (Radford et al., 2019).

    Args:
        context: The maximum time, in tokens.
        num_layers: The number of transformer blocks.
        num_heads: Attention heads per block; must divide `width`.
        width: Features per token between blocks.
        dropout: Dropout probability of the embedding and of each block's output.
    """

    def __init__(
        self, context: int = 128, num_layers: int = 4, num_heads: int = 4, width: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY_SIZE, width)
        self.position_embedding = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, num_heads, dropout) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY_SIZE, bias=False)
        self.head.weight = self.token_embedding.weight
        self._initialize(num_layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits of the token that follows each position."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        features = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        return self.head(self.norm(self.blocks(features)))

    def _initialize(self, num_layers: int) -> None:
        """Normal weights with deviation 0.02, smaller in layers that add to the residual stream; zero biases."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                adds_to_residual = name.endswith(("project.weight", "contract.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * num_layers) ** 0.5 if adds_to_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


class Block(nn.Module):
    """One transformer block: features, float32 [batch, time, width], to the same shape."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, num_heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Adds the outputs of attention and feed-forward layers to the features."""
        features = features + self.dropout(self.attention(self.attention_norm(features)))
        expanded = functional.gelu(self.expand(self.feed_forward_norm(features)))
        return features + self.dropout(self.contract(expanded))


class CausalSelfAttention(nn.Module):
    """Attention of each position to itself and earlier positions: [batch, time, width] to the same shape."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.attend = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Mixes the values of earlier positions."""
        batch, time, width = features.shape
        heads = self.attend(features).view(batch, time, 3, self.num_heads, width // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.project(mixed.transpose(1, 2).reshape(batch, time, width))


def step(model: nn.Module, batch: Sample) -> dict[str, Tensor]:
    """The mean loss, in nats, over the tokens of a batch, and the number of these tokens as its weight."""
    inputs, targets = batch
    logits = model(inputs)
    return {
        "loss": functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED),
        "weight": (targets != IGNORED).sum(),
        "outputs": logits,
        "targets": targets,
    }
