from __future__ import annotations

import threading
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptkit.training.batches import Batch, MicroBatch, cut, dropout_seed, global_batch, prefetched


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 20), st.integers(1, 9))
def test_processes_share_out_every_row_once_and_run_equally_often(first: int, rows: int, most: int, world: int) -> None:
    pieces = cut(first, rows, most)
    assert [row for start, n in pieces for row in range(start, start + n)] == list(range(first, first + rows))
    assert all(n == most for _, n in pieces[:-1])
    micro_batches = [MicroBatch(start, n, dict) for start, n in pieces]
    batches = [global_batch(1, micro_batches, process, world) for process in range(world)]
    assert {len(batch.micro_batches) for batch in batches} == {-(-len(pieces) // world)}
    assert {batch.count for batch in batches} == {rows}
    run = [piece.first_row for batch in batches for piece in batch.micro_batches if piece.weight]
    assert sorted(run) == [start for start, _ in pieces]
    for batch in batches:
        assert [piece.is_last for piece in batch.micro_batches] == [False] * (len(batch.micro_batches) - 1) + [True]


def test_dropout_seeds_differ_between_neighbours() -> None:
    seeds = {dropout_seed(seed, step, row) for seed in range(4) for step in range(20) for row in range(20)}
    assert len(seeds) == 4 * 20 * 20
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == len(seeds)  # the CPU's generator keeps 32 bits


def test_prefetch_loads_ahead_in_order_in_a_thread_and_passes_errors_on() -> None:
    loaded: list[int] = []

    def load(number: int) -> Batch:
        if number == 7:
            raise ValueError("row 7")
        assert threading.current_thread() is not threading.main_thread()
        loaded.append(number)
        return {"x": torch.tensor(number)}

    global_batches = (
        global_batch(step, [MicroBatch(2 * step + i, 1, partial(load, 2 * step + i)) for i in (0, 1)], 0, 1)
        for step in range(5)
    )
    seen: list[int] = []

    def train() -> None:
        for batch in prefetched(global_batches, pin=False):
            for micro_batch in batch.micro_batches:
                assert micro_batch.load()["x"].item() == micro_batch.first_row == 2 * batch.step + len(seen) % 2
                seen.append(micro_batch.first_row)

    with pytest.raises(ValueError, match="row 7"):
        train()
    assert seen == list(range(7))
    assert loaded[:7] == seen


def test_prefetch_loads_the_next_step_while_one_is_trained() -> None:
    loaded = [threading.Event() for _ in range(3)]

    def load(step: int) -> Batch:
        loaded[step].set()
        return {}

    global_batches = (global_batch(step, [MicroBatch(0, 1, partial(load, step))], 0, 1) for step in range(3))
    steps = prefetched(global_batches, pin=False)
    assert next(steps).step == 0
    assert loaded[1].wait(10)  # before step 0 asks for its own
    assert not loaded[2].wait(0.1)
    steps.close()
    assert not loaded[2].is_set()
