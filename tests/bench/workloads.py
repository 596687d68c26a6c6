"""The model, data and batch that both sides of a comparison train: each side imports them from here."""

import torch
from sklearn.datasets import load_digits

WORLD_SIZE = 2
DIGITS_BATCH_SIZE = 64
DIGITS_EPOCHS = 20
CHAR_GPT_BATCH_SIZE = 16
CHAR_GPT_STEPS = 40
LEARNING_RATE = 1e-3


class Digits(torch.utils.data.TensorDataset):
    """All of scikit-learn's digits: inputs, float32 [1797, 64] in 0 … 1, and targets, int64 [1797]."""

    def __init__(self) -> None:
        digits = load_digits()
        super().__init__(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))


class Mlp(torch.nn.Sequential):
    """Inputs, float32 [batch, 64], to logits, float32 [batch, 10]."""

    def __init__(self) -> None:
        linear, relu = torch.nn.Linear, torch.nn.ReLU
        super().__init__(linear(64, 512), relu(), linear(512, 512), relu(), linear(512, 10))
