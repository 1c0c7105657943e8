"""Split the global batch of a step into micro-batches, assign them to processes, and prefetch their tensors.

The global batch is cut before it is distributed, and processes take whole micro-batches. The pieces, and the dropout
masks seeded by their first rows, are therefore the same for any number of processes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

Batch = dict[str, Tensor]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward and backward pass: they begin at `first_row` and hold `count` supervised items.

    `load` returns the tensors on the host; it may run ahead of time in a thread and must draw no random numbers.
    `tokens` is the number that tokens per second counts, where that is not `count`. `weight` multiplies the loss: 0
    makes a dummy that only keeps the processes in step. `is_last` marks a process's last pass of a step.
    """

    first_row: int
    count: int
    load: Callable[[], Batch]
    tokens: int | None = None
    weight: float = 1.0
    is_last: bool = False


Batches = Callable[[int], list[MicroBatch]]  # step, from 1 on -> all micro-batches of its global batch


@dataclass(frozen=True)
class GlobalBatch:
    """The batch of a step as one process sees it: its own micro-batches, and the counts over all processes."""

    step: int
    count: int
    tokens: int
    micro_batches: tuple[MicroBatch, ...]


def cut(first_row: int, rows: int, micro_batch: int) -> list[tuple[int, int]]:
    """Return (first row, number of rows) of each micro-batch: `micro_batch` rows, or fewer in the last one."""
    end = first_row + rows
    return [(start, min(micro_batch, end - start)) for start in range(first_row, end, micro_batch)]


def global_batch(step: int, micro_batches: list[MicroBatch], process: int, processes: int) -> GlobalBatch:
    """Return what one process runs of a step's micro-batches: micro-batch i belongs to process i modulo `processes`.

    Every process runs the same number of passes, because DDP and FSDP synchronize in each.
    """
    passes = -(-len(micro_batches) // processes)
    dummies = [replace(micro_batches[0], weight=0.0)] * (passes * processes - len(micro_batches))
    *first, last = [*micro_batches, *dummies][process::processes]
    count = sum(micro_batch.count for micro_batch in micro_batches)
    tokens = sum(
        micro_batch.count if micro_batch.tokens is None else micro_batch.tokens for micro_batch in micro_batches
    )
    return GlobalBatch(step, count, tokens, (*first, replace(last, is_last=True)))


class StopEvaluation(Exception):
    """Raised by an evaluation that was asked to stop before its end."""


def own_batches(batches: Iterable[T], should_stop: ShouldStop = lambda: False) -> Iterator[T]:
    """Yield this process's batches of an evaluation; processes take whole batches in turn.

    Every process calls `should_stop` once per turn, so that they can agree; raises StopEvaluation when it returns True.
    """
    process, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    for index, batch in enumerate(batches):
        if index % processes == 0 and should_stop():
            raise StopEvaluation
        if index % processes == process:
            yield batch


def dropout_seed(seed: int, step: int, first_row: int) -> int:
    """Return a 64-bit hash as the seed, so that neighbouring micro-batches get unrelated dropout masks."""
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, step, first_row), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def prefetched(global_batches: Iterable[GlobalBatch], *, pin: bool) -> Generator[GlobalBatch, None, None]:
    """Yield the same steps, their micro-batches loaded by a thread up to one step ahead, while a GPU computes.

    On a CPU, whose cores all compute, handing over between threads costs more than loading (4 against 0.1 ms).
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")

    def load(micro_batch: MicroBatch) -> Batch:
        batch = micro_batch.load()
        return {name: tensor.pin_memory() for name, tensor in batch.items()} if pin else batch

    def started(batch: GlobalBatch) -> GlobalBatch:
        loading = [replace(piece, load=pool.submit(load, piece).result) for piece in batch.micro_batches]
        return replace(batch, micro_batches=tuple(loading))

    try:
        for batch, _next in pairwise(chain(map(started, global_batches), [None])):
            assert batch is not None
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
