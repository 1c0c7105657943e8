from __future__ import annotations

import threading
from functools import partial

import torch
from hypothesis import given
from hypothesis import strategies as st

from gptkit.training.batches import Batch, MicroBatch, cut, dropout_seed, prefetched, work_of


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 20), st.integers(1, 9))
def test_processes_share_out_every_row_once_and_run_equally_often(first: int, rows: int, most: int, world: int) -> None:
    pieces = cut(first, rows, most)
    assert [row for start, n in pieces for row in range(start, start + n)] == list(range(first, first + rows))
    assert all(n == most for _, n in pieces[:-1])
    micro_batches = [MicroBatch(start, n, dict) for start, n in pieces]
    works = [work_of(1, micro_batches, process, world) for process in range(world)]
    assert {len(work.shares) for work in works} == {-(-len(pieces) // world)}
    assert {work.count for work in works} == {rows}
    run = [share.micro_batch.first_row for work in works for share in work.shares if share.weight]
    assert sorted(run) == [start for start, _ in pieces]
    assert all([share.is_last for share in work.shares].index(True) == len(work.shares) - 1 for work in works)


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

    works = (
        work_of(step, [MicroBatch(2 * step + i, 1, partial(load, 2 * step + i)) for i in (0, 1)], 0, 1)
        for step in range(5)
    )
    stream = prefetched(works, pin=False)
    seen = []
    try:
        for work, share, batch in stream:
            assert share.micro_batch.first_row == batch["x"].item()
            assert work.step == batch["x"].item() // 2
            seen.append(share.micro_batch.first_row)
    except ValueError:
        assert seen == list(range(7))
        assert loaded[:7] == seen
        return
    raise AssertionError
