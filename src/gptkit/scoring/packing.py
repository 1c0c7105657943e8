"""Pack requests into rows of a forward pass, so that the common prefixes of a group are computed once.

A row is a tree of tokens, written branch after branch: each token sees the path from the root to itself, and its
position is its depth. These are only arrays; nothing here knows about models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptkit.scoring.encoder import shared_prefix
from gptkit.scoring.protocols import Group, Request, TokenIds

LONGEST_TREE = 2048  # tokens of a row with branches: its attention takes quadratic time
LEAST_SHARED = 0.1  # of a request's tokens: below that, the mask costs more than sharing saves


@dataclass(frozen=True, eq=False)
class Branch:
    """A request in a row: its input token t is in slot `path[t]`; earlier branches contain its first `shared`."""

    index: int
    request: Request
    path: NDArray[np.int64]
    shared: int


@dataclass(frozen=True)
class Row:
    """Branches in lexicographic order, and the number of tokens they take together."""

    branches: tuple[Branch, ...]
    length: int

    @property
    def is_plain(self) -> bool:
        """Whether one branch covers the whole row, so that the causal mask is enough."""
        return any(len(branch.path) == self.length for branch in self.branches)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as arrays; `positions` and `visible` are None if the causal mask is enough.

    ids, positions (row, slot); visible (row, query, key): what a token sees. The scored tokens follow the order of
    `branches`: `places` (scored,) is where each is predicted, row * slots + slot, `targets` (scored,) its id.
    """

    branches: tuple[Branch, ...]
    ids: TokenIds
    positions: NDArray[np.int64] | None
    visible: NDArray[np.bool_] | None
    places: NDArray[np.int64]
    targets: TokenIds


def rows_of(groups: Sequence[Group], *, share: bool = True) -> list[Row]:
    """Return the rows of all groups; `Branch.index` numbers the requests across groups.

    A request that scores nothing is left out. The last token of a request is not an input: it predicts no scored token.
    Without `share` each request is a row.
    """
    rows: list[Row] = []
    index = 0
    for group in groups:
        asked = [(index + number, request) for number, request in enumerate(group) if request.start < len(request.ids)]
        for requests in [asked] if share else [[one] for one in asked]:
            rows += _rows_of_group(requests)
        index += len(group)
    return rows


def batches_of(rows: Sequence[Row], *, padded_tokens: int, batch_size: int | None) -> list[list[Row]]:
    """Return batches of rows of similar length, longest first; only a single row may exceed `padded_tokens`."""
    batches: list[list[Row]] = []
    for plain in (True, False):
        waiting = sorted((row for row in rows if row.is_plain == plain), key=lambda row: -row.length)
        while waiting:
            most = max(1, padded_tokens // waiting[0].length)
            size = min(most, batch_size or most)
            batches.append(waiting[:size])
            del waiting[:size]
    return sorted(batches, key=lambda batch: -batch[0].length)


def as_arrays(rows: Sequence[Row]) -> Batch:
    """Return the arrays of a batch; shorter rows are padded with id 0, which no other token sees."""
    slots = max(row.length for row in rows)
    ids, positions = np.zeros((2, len(rows), slots), np.int64)
    is_plain = all(row.is_plain for row in rows)
    visible = None if is_plain else np.zeros((len(rows), slots, slots), np.bool_) | np.eye(slots, dtype=np.bool_)
    places, targets = [], []
    for number, row in enumerate(rows):
        for branch in row.branches:
            request, path = branch.request, branch.path
            own = path[branch.shared :]
            ids[number, own] = request.ids[branch.shared : len(path)]
            positions[number, own] = np.arange(branch.shared, len(path))
            if visible is not None and len(own):
                lines = visible[number, own[0] : own[-1] + 1]  # (own, key)
                lines[:, path[: branch.shared]] = True
                lines[:, own] = np.tri(len(own), dtype=np.bool_)
            places.append(number * slots + path[request.start - 1 :])
            targets.append(request.ids[request.start :])
    return Batch(
        branches=tuple(branch for row in rows for branch in row.branches),
        ids=ids,
        positions=None if is_plain else positions,
        visible=visible,
        places=np.concatenate(places),
        targets=np.concatenate(targets),
    )


def _rows_of_group(asked: Sequence[tuple[int, Request]]) -> Iterator[Row]:
    """Yield rows of requests that share enough: in lexicographic order each shares most with its predecessor."""
    branches: list[Branch] = []
    length = 0
    for index, request in sorted(asked, key=lambda numbered: numbered[1].ids[:-1].astype(">u4").tobytes()):
        fed = len(request.ids) - 1
        shared = min(fed, shared_prefix(request.ids[:-1], branches[-1].request.ids[:-1])) if branches else 0
        if branches and (shared < LEAST_SHARED * fed or length + fed - shared > max(LONGEST_TREE, fed)):
            yield Row(tuple(branches), length)
            branches, length, shared = [], 0, 0
        before = branches[-1].path[:shared] if shared else np.empty(0, np.int64)
        path = np.concatenate([before, np.arange(length, length + fed - shared)])
        branches.append(Branch(index, request, path, shared))
        length += fed - shared
    if branches:
        yield Row(tuple(branches), length)
