"""The batches of a fine-tuning run: which examples, in which order, cut where; pure functions of the step."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptkit.finetune.job import finetuning_batches, steps_per_epoch
from gptkit.tasks import head_outputs
from gptkit.tasks.encoding import EncodedExamples
from gptkit.tasks.head_outputs import evaluation_pieces
from gptkit.training.batches import MicroBatch

START, EXTRACT = 7, 9
ANY_CUT = st.tuples(st.integers(1, 12), st.integers(1, 200))
MANY = st.integers(1, 60)
SEEDS, BATCH_SIZES = st.integers(0, 5), st.integers(1, 20)


def examples_of(n: int, sequences: int = 2) -> EncodedExamples:
    """n examples of pseudo-random lengths from 2 to 20, labelled by their number."""
    lengths = 2 + (np.arange(n * sequences) * 7919 + 13) % 19
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.full(offsets[-1], 5, np.int32)
    ids[offsets[:-1]], ids[offsets[1:] - 1] = START, EXTRACT
    return EncodedExamples(ids, offsets, sequences, np.arange(n), {})


def numbers(micro_batches: list[MicroBatch]) -> list[int]:
    return [number for one in micro_batches for number in one.load()["labels"].tolist()]


@given(MANY, BATCH_SIZES, SEEDS, ANY_CUT, ANY_CUT, st.integers(1, 20))
def test_a_step_has_the_same_examples_in_the_same_order_for_any_cut(
    n: int, batch_size: int, seed: int, one: tuple[int, int], other: tuple[int, int], step: int
) -> None:
    examples = examples_of(n)
    found = [
        numbers(
            finetuning_batches(
                examples, batch_size=batch_size, seed=seed, micro_batch=micro_batch, padded_tokens=padded_tokens
            )(step)
        )
        for micro_batch, padded_tokens in (one, other)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == min(batch_size, n)


@given(MANY, BATCH_SIZES, SEEDS, st.integers(0, 3))
def test_an_epoch_visits_every_example_at_most_once_and_drops_less_than_a_batch(
    n: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = finetuning_batches(examples_of(n), batch_size=batch_size, seed=seed, micro_batch=3, padded_tokens=99)
    steps = steps_per_epoch(n, batch_size)
    seen = [number for turn in reversed(range(steps)) for number in numbers(batches(epoch * steps + turn + 1))]
    assert len(set(seen)) == len(seen) == (n // batch_size * batch_size or n)


@given(ANY_CUT, ANY_CUT, st.integers(1, 12))
def test_masks_of_texts_do_not_depend_on_the_cut_and_leave_markers_and_padding(
    one: tuple[int, int], other: tuple[int, int], step: int
) -> None:
    examples = examples_of(30)
    mask = START - 1  # below the markers, as in a masked model
    found = []
    for micro_batch, padded_tokens in (one, other):
        batches = finetuning_batches(
            examples, batch_size=8, seed=2, micro_batch=micro_batch, padded_tokens=padded_tokens, mask=mask
        )
        rows = []
        for batch in (micro.load() for micro in batches(step)):
            ids, masked, targets = (batch[name] for name in ("input_ids", "masked_ids", "masked_targets"))
            chosen = targets >= 0
            assert torch.equal(targets[chosen], ids[chosen])
            assert (ids[chosen] == 5).all()  # no marker, no padding
            assert torch.equal(masked[~chosen], ids[~chosen])
            assert (masked[chosen] <= mask).all()
            positions = batch["lm_positions"]
            assert torch.equal(positions[positions >= 0], chosen.flatten().nonzero()[:, 0])
            ends = batch["extract"].flatten() + 1
            rows += [row[:end].tolist() for row, end in zip(masked.flatten(0, 1), ends.tolist(), strict=True)]
        found.append(rows)
    assert found[0] == found[1]
    assert any(mask in row for row in found[0])


def test_an_example_has_other_masks_in_every_epoch() -> None:
    batches = finetuning_batches(
        examples_of(30), batch_size=30, seed=2, micro_batch=30, padded_tokens=9999, mask=START - 1
    )
    masks = [{}, {}]  # of each epoch, by example
    for step, found in enumerate(masks, 1):
        for batch in (micro.load() for micro in batches(step)):
            found |= zip(batch["labels"].tolist(), (batch["masked_targets"] >= 0).tolist(), strict=True)
    assert masks[0].keys() == masks[1].keys()
    assert sum(masks[0][example] != masks[1][example] for example in masks[0]) > 20


def test_updates_of_gpt1() -> None:
    assert [3 * steps_per_epoch(n, 32) for n in (1497, 2490, 392_702)] == [138, 231, 36_813]
    assert steps_per_epoch(5, 32) == 1


def test_epochs_and_seeds_differ() -> None:
    examples = examples_of(60)
    orders = set()
    for seed in range(4):
        batches = finetuning_batches(examples, batch_size=20, seed=seed, micro_batch=20, padded_tokens=10**6)
        orders |= {tuple(sorted(numbers(batches(step)))) for step in range(1, 13)}
    assert len(orders) == 4 * 12


@given(MANY, BATCH_SIZES, ANY_CUT, st.integers(1, 3), st.integers(1, 5))
def test_micro_batches_keep_both_limits_and_count_what_they_hold(
    n: int, batch_size: int, cut: tuple[int, int], sequences: int, step: int
) -> None:
    micro_batch, padded_tokens = cut
    examples = examples_of(n, sequences)
    found = finetuning_batches(
        examples, batch_size=batch_size, seed=1, micro_batch=micro_batch, padded_tokens=padded_tokens
    )(step)
    widths = []
    rows = (step - 1) * batch_size
    for one in found:
        batch = one.load()
        assert (one.first_row, one.count) == (rows, len(batch["labels"]))
        assert one.count <= micro_batch
        assert one.count == 1 or batch["input_ids"].numel() <= padded_tokens
        assert one.tokens == int((batch["extract"] + 1).sum())
        assert torch.equal(batch["input_ids"].gather(-1, batch["extract"][..., None]).unique(), torch.tensor([EXTRACT]))
        widths.append(batch["input_ids"].shape[-1])
        rows += one.count
    assert widths == sorted(widths, reverse=True)
    for one, next_one, width in zip(found, found[1:], widths, strict=False):  # twice as many would pass a limit
        left = sum(each.count for each in found) - (one.first_row - (step - 1) * batch_size)
        assert one.count.bit_count() == 1, next_one
        assert 2 * one.count > min(micro_batch, left) or 2 * one.count * sequences * width > padded_tokens


@given(MANY, st.integers(1, 300), st.integers(1, 3))
def test_evaluation_covers_each_example_once(n: int, padded_tokens: int, sequences: int) -> None:
    examples = examples_of(n, sequences)
    with patch.object(head_outputs, "PREDICTION_TOKENS", padded_tokens):
        pieces = evaluation_pieces(examples)
    for indices in pieces:
        batch = examples.select(indices)
        assert batch["labels"].tolist() == indices.tolist()
        assert len(indices) == 1 or batch["input_ids"].size <= padded_tokens
    assert sorted(np.concatenate(pieces).tolist()) == list(range(n))


def test_tensors_are_what_the_model_takes() -> None:
    batches = finetuning_batches(examples_of(3), batch_size=3, seed=0, micro_batch=3, padded_tokens=10**6)
    assert {name: (tensor.dtype, tensor.dim()) for name, tensor in batches(1)[0].load().items()} == {
        "input_ids": (torch.int64, 3),
        "extract": (torch.int64, 2),
        "labels": (torch.int64, 1),
        "lm_positions": (torch.int64, 1),
    }
