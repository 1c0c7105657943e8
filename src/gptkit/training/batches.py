"""Split the global batch of a step into micro-batches, assign them to processes, and prefetch their tensors.

The global batch is cut before it is distributed, and processes take whole micro-batches. The pieces, and the dropout
masks seeded by their first rows, are therefore the same for any number of processes.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

Batch = dict[str, Tensor]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass: they begin at `first_row` and hold `count` supervised items.

    `load` returns the tensors on the host; it may run ahead of time in a thread and must draw no random numbers.
    `tokens` is the number that tokens per second counts, where that is not `count`.
    """

    first_row: int
    count: int
    load: Callable[[], Batch]
    tokens: int | None = None


Batches = Callable[[int], list[MicroBatch]]  # step, counted from 1 -> all micro-batches of its global batch


@dataclass(frozen=True)
class Share:
    """A micro-batch as one process runs it; with `weight` 0 it is a dummy that only keeps the processes in step."""

    micro_batch: MicroBatch
    weight: float
    is_last: bool


@dataclass(frozen=True)
class StepWork:
    """One process's part of a step; `count` and `tokens` are totals over all processes."""

    step: int
    count: int
    tokens: int
    shares: tuple[Share, ...]


def cut(first_row: int, rows: int, micro_batch: int) -> list[tuple[int, int]]:
    """Return (first row, number of rows) of each micro-batch: `micro_batch` rows, or fewer in the last one."""
    end = first_row + rows
    return [(start, min(micro_batch, end - start)) for start in range(first_row, end, micro_batch)]


def work_of(step: int, micro_batches: list[MicroBatch], process: int, processes: int) -> StepWork:
    """Return what one process runs in a step: micro-batch i belongs to process i modulo `processes`.

    All processes run the same number of passes, because DDP and FSDP synchronize in each.
    """
    passes = -(-len(micro_batches) // processes)
    indices = [process + turn * processes for turn in range(passes)]
    padded = [(piece, 1.0) for piece in micro_batches] + [(micro_batches[0], 0.0)] * processes
    shares = tuple(Share(*padded[i], is_last=i == indices[-1]) for i in indices)
    count = sum(piece.count for piece in micro_batches)
    tokens = sum(piece.count if piece.tokens is None else piece.tokens for piece in micro_batches)
    return StepWork(step, count, tokens, shares)


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


def loaded(works: Iterable[StepWork]) -> Generator[tuple[StepWork, Share, Batch], None, None]:
    """Yield every micro-batch of every step with its tensors, loaded when they are needed.

    For CPUs: while all cores compute, handing a batch between threads takes 4 ms, loading it 0.1 ms.
    """
    for work in works:
        for share in work.shares:
            yield work, share, share.micro_batch.load()


def prefetched(
    works: Iterable[StepWork], *, pin: bool, depth: int = 2
) -> Generator[tuple[StepWork, Share, Batch], None, None]:
    """Yield the same as `loaded`, with `depth` micro-batches loaded ahead in a thread while a GPU computes."""

    def load(micro_batch: MicroBatch) -> Batch:
        batch = micro_batch.load()  # from pinned memory the copy to the GPU is asynchronous
        return {name: tensor.pin_memory() for name, tensor in batch.items()} if pin else batch

    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        loading: deque[tuple[StepWork, Share, Future[Batch]]] = deque()
        for work in works:
            for share in work.shares:
                loading.append((work, share, pool.submit(load, share.micro_batch)))
                if len(loading) > depth:
                    oldest_work, oldest_share, future = loading.popleft()
                    yield oldest_work, oldest_share, future.result()
        for work, share, future in loading:
            yield work, share, future.result()
