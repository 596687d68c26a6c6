"""What is said if a loss of torch cannot take the model's outputs or the targets."""

import pytest
import torch
from torch import nn

from distrib.train.objective.loss_errors import refusal

OUTPUTS = torch.zeros(4, 3)
LABELS = torch.tensor([0, 1, 2, 0])
CROSS_ENTROPY = "torch.nn:CrossEntropyLoss"


def refused(loss, outputs, targets, name=CROSS_ENTROPY):
    """The message about what `loss` raises, as if this file were not among its callers."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of several kinds
        loss(outputs, targets)
    frames = caught.value.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return refusal(caught.value.with_traceback(frames), name, outputs, targets)


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ((OUTPUTS, OUTPUTS), LABELS, "the model returns a tuple: (float32[4, 3], float32[4, 3]); write a step:"),
        ({"logits": OUTPUTS}, LABELS, "the model returns a dict: {logits: float32[4, 3]}; write a step:"),
        (OUTPUTS, ("cat", "dog"), "the targets of a batch are text, such as 'cat'; return numbers from the dataset"),
        (OUTPUTS, [LABELS, LABELS], "the targets of a batch are a list: (int64[4], int64[4]); write a step:"),
        (
            OUTPUTS,
            LABELS + 1,
            "Target 3 is out of bounds; the model returns float32[4, 3] and the targets are int64[4]",
        ),
        (OUTPUTS, LABELS + 1, "int64[4] from 1 to 3; 3 outputs are for the class indices 0 to 2"),
        (OUTPUTS, LABELS[:2], "and the targets are int64[2] from 0 to 1"),
    ],
)
def test_cross_entropy(outputs, targets, message):
    assert message in refused(nn.CrossEntropyLoss(), outputs, targets)


def test_a_loss_of_numbers_with_class_labels():
    message = refused(nn.MSELoss(), OUTPUTS, LABELS, "torch.nn:MSELoss")
    assert "the targets look like class indices, which torch.nn:CrossEntropyLoss takes" in message


def test_an_error_of_the_users_own_loss_is_left_as_it_is():
    def loss(outputs, targets):
        raise ValueError("no such label")

    with pytest.raises(ValueError, match="label") as caught:
        loss(OUTPUTS, LABELS)
    assert refusal(caught.value, "losses:mine", OUTPUTS, LABELS) is None


def test_a_lost_peer_is_no_error_of_arguments():
    lost = RuntimeError("Connection closed by peer [127.0.0.1]:1234")
    assert refusal(lost, CROSS_ENTROPY, OUTPUTS, LABELS) is None
