from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gptkit.text.blocks import block_order, epoch_offset

SEEDS, EPOCHS = st.integers(0, 2**31 - 1), st.integers(0, 2**31)


@given(SEEDS, EPOCHS, st.integers(0, 200))
def test_an_epoch_visits_every_block_once(seed: int, epoch: int, n: int) -> None:
    order = block_order(seed, epoch, n)
    assert sorted(order.tolist()) == list(range(n))
    assert np.array_equal(order, block_order(seed, epoch, n))


@given(SEEDS, EPOCHS, st.integers(1, 2000))
def test_offsets_stay_within_a_block(seed: int, epoch: int, sequence_length: int) -> None:
    assert 0 <= epoch_offset(seed, epoch, sequence_length) < sequence_length


def test_orders_and_offsets_are_these_on_every_machine() -> None:
    assert block_order(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert [epoch_offset(0, epoch, 1024) for epoch in range(4)] == [710, 902, 882, 1004]


def test_seeds_and_epochs_give_different_orders() -> None:
    orders = {tuple(block_order(seed, epoch, 20)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100
    assert len({epoch_offset(0, epoch, 1024) for epoch in range(100)}) > 80
