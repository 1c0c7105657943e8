"""Inspections made of random numbers of any shape, for the tests of the page; a model is not needed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gptkit.inspect.answer import Answer
from gptkit.inspect.attention import Attention
from gptkit.inspect.hand import Hand
from gptkit.inspect.head_types import HeadTypes
from gptkit.inspect.inspection import Inspection, Tokens
from gptkit.inspect.knock_out import KnockOut
from gptkit.inspect.lens import Lens
from gptkit.inspect.loss import Loss
from gptkit.inspect.path import Path
from gptkit.inspect.shares import Shares

LIKELIEST = 5
PIECES = ["The", " cat", " sat", " on", " the", " mat", ",", " and", " the", " dog", "\n", " barked", "<E4><BD>", "."]


def made_inspection(
    layers: int = 3,
    heads: int = 4,
    length: int = 14,
    width: int = 32,
    *,
    family: Literal["GPT-1", "GPT-2"] = "GPT-2",
    pieces: tuple[str, ...] = (),
    answer: Answer | None = None,
    seed: int = 0,
) -> Inspection:
    """Return an inspection whose parts agree where the page shows that they do; head 1.2 looks at the token before."""
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return draw.standard_normal(shape).astype(np.float32)

    pieces = pieces or tuple(PIECES[index % len(PIECES)] for index in range(length))
    names = sorted({*PIECES, *pieces})
    vocabulary = dict(enumerate(names))
    ids = np.array([names.index(piece) for piece in pieces])
    length, head_dim = len(ids), width // heads
    query, key, value = (normal(layers, heads, length, head_dim) * 1.5 for _ in range(3))
    scores = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(head_dim))
    scores[1, 2, np.arange(1, length), np.arange(length - 1)] += 6
    scores[..., *np.triu_indices(length, 1)] = -np.inf
    weights = softmax(scores)
    hand_weights = softmax(np.where(np.tri(length), query[2, 1] @ key[2, 1].T / np.sqrt(head_dim), -np.inf))
    types = np.full((layers, heads, 3), 0.05, np.float32)
    types[1, 2, 0], types[2, 1, 2], types[2, 0, 1] = 0.93, 0.81, 0.55
    residual = np.cumsum(normal(2 * layers + 1, length, width), axis=0)
    logits = np.cumsum(normal(layers + 1, length, len(names)) * 1.5, axis=0)
    targets = np.append(ids[1:], logits[-1, -1].argmax())
    heads_share, mlps, token, position, bias = (
        normal(layers, heads, length), normal(layers, length), normal(length), normal(length), normal(length),
    )  # fmt: skip
    logit = heads_share.sum((0, 1)) + mlps.sum(0) + token + position + bias
    of_text = loss(softmax(logits[-1]), targets)
    nll = of_text.nll.astype(np.float32)
    return Inspection(
        model="toy",
        family=family,
        fields=(("text", "".join(pieces)),),
        vocabulary=vocabulary,
        tokens=Tokens(ids, pieces, normal(length, width), normal(length, width) / 4),
        attention=Attention(scores, weights),
        heads=HeadTypes(types),
        hand=Hand(2, 1, query[2, 1], key[2, 1], value[2, 1], hand_weights @ value[2, 1], normal(length, width)),
        path=Path(residual, *directions(residual)),
        lens=lens(logits, targets),
        shares=Shares(heads_share, mlps, token, position, bias, logit),
        loss=of_text,
        answer=answer,
        fine_tuned=None,
        learning=None,
        live="it is a toy",
        knock_out_seconds=36.4,
        knock_out=KnockOut(nll, nll + normal(layers, heads + 2, length) / 2),
    )


def softmax(scores: NDArray[Any]) -> NDArray[np.float32]:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def directions(residual: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    norms = np.linalg.norm(residual, axis=-1)
    unit = residual / norms[..., None]
    before = unit[[0, *range(len(unit) - 1)]]
    return norms, (unit * before).sum(-1), (unit * unit[-1]).sum(-1)


def lens(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Lens:
    seen = softmax(logits)
    order = np.argsort(-seen, axis=-1)
    rank = (order == targets[:, None]).argmax(-1) + 1
    kl = (seen[-1] * (np.log(seen[-1]) - np.log(seen))).sum(-1)
    return Lens(order[..., :LIKELIEST], np.take_along_axis(seen, order, -1)[..., :LIKELIEST], rank, kl)


def loss(seen: NDArray[np.float32], targets: NDArray[np.int64]) -> Loss:
    order = np.argsort(-seen, axis=-1)
    sorted_ = np.take_along_axis(seen, order, -1)
    rank = (order == targets[:, None]).argmax(-1) + 1
    own = np.take_along_axis(seen, targets[:, None], -1)[:, 0]
    above = np.array([sorted_[row, : rank[row] - 1].sum() for row in range(len(targets))], np.float32)
    ks, ps = np.array([1, 2, 3, 5, 10, 40, 100, 1000]), np.array([0.1, 0.5, 0.8, 0.9, 0.95, 0.99], np.float32)
    return Loss(
        targets=targets,
        nll=-np.log(own.astype(float)),
        rank=rank,
        top_ids=order[:, :LIKELIEST],
        top_probabilities=sorted_[:, :LIKELIEST],
        mass_above=above,
        entropy=-(seen * np.log(seen)).sum(-1),
        ks=ks,
        top_k_mass=np.stack([sorted_[:, :k].sum(-1) for k in ks]),
        ps=ps,
        top_p_kept=np.stack([(sorted_.cumsum(-1) - sorted_ < p).sum(-1) for p in ps]),
    )
