"""The finetune job: a model of transformers, dict batches, a padding collator and batches by length."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra transformers")

from jobs.finetune import MAX_LENGTH, PAD, Padding, Sentences, by_length, classifier, step

pytestmark = pytest.mark.timeout(180)
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def test_samples_are_words_with_a_majority():
    dataset = Sentences(200)
    samples = [dataset[index] for index in range(200)]
    assert {len(sample["input_ids"]) for sample in samples} == set(range(4, MAX_LENGTH + 1))
    assert 0.3 < sum(float(sample["labels"]) for sample in samples) / 200 < 0.7
    assert all(PAD not in sample["input_ids"] for sample in samples)


def test_the_collator_pads_to_a_multiple():
    dataset = Sentences(200)
    samples = sorted((dataset[index] for index in range(200)), key=lambda sample: len(sample["input_ids"]))
    batch = Padding(multiple=4)(samples[:3])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 4)
    long = Padding()([samples[0], samples[-1]])
    assert long["input_ids"].shape == (2, MAX_LENGTH)
    assert long["attention_mask"].sum(1).tolist() == [4, MAX_LENGTH]


def test_padding_does_not_change_what_the_model_gives():
    dataset, model = Sentences(4), classifier(**TINY).eval()
    samples = [dataset[index] for index in range(4)]
    whole = step(model, Padding()(samples))["outputs"]
    single = torch.cat([step(model, Padding(multiple=32)([sample]))["outputs"] for sample in samples])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)


def test_batches_hold_sequences_of_similar_length_and_each_sample_once():
    dataset = Sentences(1000)
    batches = by_length(dataset, epoch=2, seed=0, batch_size=32)
    assert sorted(torch.cat(batches).tolist()) == list(range(1000))
    spreads = [int(dataset.lengths[batch].max() - dataset.lengths[batch].min()) for batch in batches]
    assert max(spreads) <= 2
    assert [batch.tolist() for batch in by_length(dataset, 3, 0, 32)] != [batch.tolist() for batch in batches]


def test_run_learns_the_majority(run_job):
    run = run_job("finetune.yaml")
    assert run.events("eval")[-1]["accuracy"] > 0.9
