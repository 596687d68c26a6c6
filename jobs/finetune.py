"""A transformer of Hugging Face's library: batches as dicts, padded by a collator, batches of similar length.

The model is built from a configuration, so that nothing is downloaded. To fine-tune a pretrained one, return
`AutoModelForSequenceClassification.from_pretrained(NAME)` from `classifier`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, BertConfig

PAD, FIRST_WORD = 0, 1
NUM_WORDS = 31
MAX_LENGTH = 24


class Sentences(Dataset[dict[str, Tensor]]):
    """Sequences of 4 to 24 words; label 1 if words of the upper half of the vocabulary are in the majority.

    Args:
        num_samples: The number of sequences.
        seed: Of their words.
    """

    def __init__(self, num_samples: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.lengths = torch.randint(4, MAX_LENGTH + 1, (num_samples,), generator=generator)
        self.words = torch.randint(FIRST_WORD, FIRST_WORD + NUM_WORDS, (num_samples, MAX_LENGTH), generator=generator)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        words = self.words[index, : self.lengths[index]]
        is_upper = words > NUM_WORDS // 2
        return {"input_ids": words, "labels": (is_upper.sum() * 2 > len(words)).long()}


class Padding:
    """Collates samples into a batch of dicts whose sequences are padded to the longest.

    Args:
        multiple: Lengths are rounded up to a multiple of it.
    """

    def __init__(self, multiple: int = 1) -> None:
        self.multiple = multiple

    def __call__(self, samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` [batch, length], and `labels` [batch]."""
        words = pad_sequence([sample["input_ids"] for sample in samples], batch_first=True, padding_value=PAD)
        words = nn.functional.pad(words, (0, -words.shape[1] % self.multiple), value=PAD)
        labels = torch.stack([sample["labels"] for sample in samples])
        return {"input_ids": words, "attention_mask": (words != PAD).long(), "labels": labels}


def by_length(dataset: Sentences, epoch: int, seed: int, batch_size: int) -> list[Tensor]:
    """An order: global batches of sequences of similar length, so that little is padded, in random order."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    shuffled = torch.randperm(len(dataset), generator=generator)
    batches = shuffled[dataset.lengths[shuffled].argsort(stable=True)].split(batch_size)
    return [batches[number] for number in torch.randperm(len(batches), generator=generator)]


def classifier(**config: Any) -> nn.Module:
    """A BERT for classification with `config`, with random weights."""
    settings = BertConfig(vocab_size=FIRST_WORD + NUM_WORDS, max_position_embeddings=64, pad_token_id=PAD, **config)
    model: nn.Module = AutoModelForSequenceClassification.from_config(settings)
    return model


def step(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's own loss, a mean over sequences, with what metrics need."""
    output = model(**batch)
    return {"loss": output.loss, "outputs": output.logits, "targets": batch["labels"]}
