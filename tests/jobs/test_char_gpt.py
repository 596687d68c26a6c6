"""The character GPT: windows of a text, causality, and tokens as weights."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

from jobs.char_gpt import IGNORED, VOCABULARY_SIZE, Gpt, Text, decode, encode, python_reference, step

SMALL = {"context": 16, "num_layers": 2, "num_heads": 2, "width": 32}


@pytest.fixture
def text_file(tmp_path):
    """105 bytes: 94 train (93 targets: 5 windows of 16 and one of 13), 11 eval."""
    path = tmp_path / "text.txt"
    path.write_text("0123456789abcdefghijk" * 5, encoding="utf-8")
    return str(path)


def test_the_reference_is_long_english():
    reference = python_reference()
    assert len(reference) > 300_000
    assert reference.count(" the ") > 2_000


def test_text_survives_encoding():
    assert decode(encode("naïve – ½")) == "naïve – ½"


def test_windows_follow_each_other_and_targets_are_the_next_tokens(text_file):
    dataset = Text("train", context=16, file=text_file)
    inputs, targets = zip(*dataset, strict=True)
    tokens = encode("0123456789abcdefghijk" * 5)[:94]
    assert len(dataset) == 6
    assert torch.equal(torch.cat(inputs)[:93], tokens[:-1])
    assert torch.equal(torch.cat(targets)[:93], tokens[1:])
    assert (inputs[0].shape, inputs[0].dtype, targets[0].dtype) == ((16,), torch.int64, torch.int64)


def test_only_the_last_window_is_padded(text_file):
    dataset = Text("train", context=16, file=text_file)
    assert [(dataset[index][1] == IGNORED).sum().item() for index in range(6)] == [0, 0, 0, 0, 0, 3]
    assert dataset.num_targets == 93


def test_splits_are_cut_by_position(text_file):
    first, _ = Text("eval", context=16, file=text_file)[0]
    assert decode(first[:10]) == "abcdefghij"


@pytest.mark.parametrize("split", ["train", "eval"])
def test_default_text_has_whole_windows_but_for_the_last(split):
    dataset = Text(split)
    assert len(dataset) == math.ceil(dataset.num_targets / 128)
    assert (dataset.targets != IGNORED).sum() == dataset.num_targets


def test_a_batch_is_fetched_as_its_samples_are(text_file):
    dataset = Text("train", context=16, file=text_file)
    for (inputs, targets), index in zip(dataset.__getitems__([5, 0, 2]), [5, 0, 2], strict=True):
        assert torch.equal(inputs, dataset[index][0])
        assert torch.equal(targets, dataset[index][1])


def test_text_without_a_target_is_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("short")
    with pytest.raises(ValueError, match="at least 2"):
        Text("eval", file=str(path))


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train and eval, not 'test'"):
        Text("test")


def test_later_characters_do_not_change_earlier_logits():
    torch.manual_seed(0)
    model = Gpt(**SMALL)
    tokens = torch.randint(VOCABULARY_SIZE, (2, 16))
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % VOCABULARY_SIZE
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_every_earlier_character_can_change_a_logit():
    torch.manual_seed(0)
    model = Gpt(**SMALL)
    features = []
    model.token_embedding.register_forward_hook(lambda module, inputs, output: features.append(output))
    logits = model(torch.randint(VOCABULARY_SIZE, (1, 16)))
    (gradient,) = torch.autograd.grad(logits[0, 12].square().sum(), features)
    reached = gradient[0].abs().sum(dim=-1) > 0
    assert reached.tolist() == [True] * 13 + [False] * 3


def test_head_and_embedding_share_weights():
    model = Gpt(**SMALL)
    assert model.head.weight is model.token_embedding.weight


def test_dropout_acts_only_in_training():
    torch.manual_seed(0)
    model, tokens = Gpt(**SMALL, dropout=0.5), torch.randint(VOCABULARY_SIZE, (1, 16))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_untrained_loss_is_that_of_a_guess():
    torch.manual_seed(0)
    batch = torch.randint(VOCABULARY_SIZE, (4, 16)), torch.randint(VOCABULARY_SIZE, (4, 16))
    assert step(Gpt(**SMALL), batch)["loss"].item() == pytest.approx(math.log(VOCABULARY_SIZE), abs=0.1)


def test_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 32 is not a multiple of num_heads 5"):
        Gpt(context=16, num_heads=5, width=32)


def test_weighted_losses_of_parts_make_that_of_the_whole(text_file):
    torch.manual_seed(0)
    model, dataset = Gpt(**SMALL), Text("train", context=16, file=text_file)
    (whole,) = [step(model, batch) for batch in DataLoader(dataset, batch_size=6)]
    parts = [step(model, batch) for batch in DataLoader(dataset, batch_size=4)]
    assert [part["weight"].item() for part in parts] == [64, 29]
    assert whole["weight"].item() == 93
    mean = sum(part["loss"] * part["weight"] for part in parts) / 93
    torch.testing.assert_close(mean, whole["loss"])


def test_step_offers_outputs_and_targets_to_metrics(text_file):
    batch = next(iter(DataLoader(Text("train", context=16, file=text_file), batch_size=3)))
    result = step(Gpt(**SMALL), batch)
    assert result["outputs"].shape == (3, 16, VOCABULARY_SIZE)
    assert torch.equal(result["targets"], batch[1])


def test_run_learns_letters(run_job):
    model = "model.args={context: 32, num_layers: 1, num_heads: 2, width: 64, dropout: 0.0}"
    data = [f"data.{split}.args={{split: {split}, context: 32}}" for split in ("train", "eval")]
    run = run_job("char_gpt.yaml", model, *data, "train.epochs=null", "train.steps=60")
    losses = [event["loss"] for event in run.events("train")]
    assert losses[0] == pytest.approx(math.log(VOCABULARY_SIZE), abs=0.2)
    assert losses[-1] < 3.2
    last = run.events("eval")[-1]
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]), rel=1e-3)
