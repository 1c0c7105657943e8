"""Documents that come in pieces, encoded by GPT-1's rules exactly as the whole text would be, on all processor cores.

What ftfy and the newline token make of a line depends on more than a piece holds, so pieces are joined and cut anew
after line ends. Each part is then encoded by itself, and the parts of a document meet with a newline token between
them where a line ended there: never two, none at a document's ends. Only a line of more than a million characters
is cut at a space (ftfy cuts it too, at each millionth character, be it within a word).
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, groupby, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import OutOfResources
from gptkit.text.pieces import Piece
from gptkit.text.tokenizers.gpt1_rules import GPT1Encoder, Part, strip_newlines

LONGEST_LINE = 1_000_000
TASK_CHARACTERS = 1 << 17
TASKS_WORTH_WORKERS = 32  # a worker takes some seconds to import spaCy

Ids = NDArray[np.int64]


class DocumentPart(NamedTuple):
    """Consecutive lines of a document of the corpus."""

    document: int
    part: Part


_Task = list[DocumentPart]


def encode_in_order(
    encoder: GPT1Encoder, pieces: Iterable[Piece], *, workers: int, tasks_worth_workers: int = TASKS_WORTH_WORKERS
) -> Iterator[tuple[int, Ids]]:
    """Yield (document, ids) for consecutive parts of all documents, every document at least once.

    Text enough for workers goes to that many new processes; OutOfResources if the system kills one.
    """
    tasks = _tasks(document_parts(pieces))
    first = list(islice(tasks, tasks_worth_workers))
    tasks = chain(first, tasks)
    if workers < 2 or len(first) < tasks_worth_workers:
        encoded: Iterator[tuple[_Task, list[Ids]]] = (
            (task, [encoder.encode_part(part) for _, part in task]) for task in tasks
        )
    else:
        encoded = _encoded_by_workers(encoder, tasks, workers)
    parts = ((of.document, ids) for task, results in encoded for of, ids in zip(task, results, strict=True))
    return _joined(parts, encoder.newline_id)


def document_parts(pieces: Iterable[Piece]) -> Iterator[DocumentPart]:
    """Yield the text of all documents again in parts that end where a line ends."""
    for document, members in groupby(pieces, key=lambda piece: piece.document):
        rest, unescape_html = "", True
        for piece in members:
            rest += piece.text
            end = rest.rfind("\n") + 1
            if end == 0 and len(rest) > LONGEST_LINE:
                end = max(0, rest.rfind(" "))
            if end > 0:
                yield DocumentPart(document, Part(rest[:end], unescape_html))
                unescape_html = unescape_html and "<" not in rest[:end]
                rest = rest[end:]
        yield DocumentPart(document, Part(rest, unescape_html))


def _tasks(parts: Iterable[DocumentPart]) -> Iterator[_Task]:
    task: _Task = []
    characters = 0
    for part in parts:
        task.append(part)
        characters += len(part.part.text)
        if characters >= TASK_CHARACTERS:
            yield task
            task, characters = [], 0
    if task:
        yield task


def _joined(parts: Iterable[tuple[int, Ids]], newline_id: int) -> Iterator[tuple[int, Ids]]:
    newline = np.array([newline_id], np.int64)
    for document, members in groupby(parts, key=lambda part: part[0]):
        started = line_broken = False
        for _, part_ids in members:
            leading, ids, trailing = strip_newlines(part_ids, newline_id)
            line_broken = line_broken or leading
            if ids.size == 0:
                yield document, ids
                continue
            yield document, np.concatenate([newline, ids]) if started and line_broken else ids
            started, line_broken = True, trailing


def _encoded_by_workers(
    encoder: GPT1Encoder, tasks: Iterable[_Task], workers: int
) -> Iterator[tuple[_Task, list[Ids]]]:
    waiting: deque[tuple[_Task, Future[list[Ids]]]] = deque()
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy locks that other threads hold
        initializer=_start_worker,
        initargs=(encoder.vocabulary, encoder.merges),
    )
    try:
        for task in tasks:
            waiting.append((task, pool.submit(_encode_in_worker, [part for _, part in task])))
            if len(waiting) >= 3 * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    except BrokenProcessPool as error:
        message = "a process that tokenizes was killed"
        raise OutOfResources(message, where="--tokenizer", fix="free memory and run the command again") from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker_encoder: GPT1Encoder | None = None


def _start_worker(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
    global _worker_encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and shuts the pool down
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker_encoder = GPT1Encoder(vocabulary, merges)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _encode_in_worker(parts: list[Part]) -> list[Ids]:
    assert _worker_encoder is not None, "the pool's initializer makes it"
    return [_worker_encoder.encode_part(part) for part in parts]
