"""The summary of an inspection on the terminal: tokens by surprisal, one head, and the logit lens at the last token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.console import Console
from gptkit.inspect.head_types import HEAD_TYPES, NAMED_FROM
from gptkit.inspect.inspection import Inspection
from gptkit.inspect.knock_out import KnockOut
from gptkit.text.tokenizers.shown import visible

EXPECTED, UNLIKELY = 0.5, 0.1  # probabilities from which a token is green, and below which it is red
ROWS = 8  # of the text's last tokens shown of the head
MOST = 3  # keys and candidates in a row
PARTS = 10  # of the model, whose loss matters most


def print_summary(inspection: Inspection, console: Console) -> None:
    layers, heads = inspection.heads.scores.shape[:2]
    facts = f"{inspection.family}, {layers} layers of {heads} heads, {len(inspection.tokens.ids)} tokens"
    console.result(f"{inspection.model}: {facts}")
    _print_tokens(inspection, console)
    _print_heads(inspection, console)
    _print_lens(inspection, console)
    if inspection.knock_out:
        _print_knock_out(inspection.knock_out, inspection, console)
    if answer := inspection.answer:
        rows = [(label, f"{value:.4f}") for label, value in zip(answer.labels, answer.probabilities, strict=True)]
        console.table("the model's answer", ("label", "value" if answer.is_score else "probability"), rows)
    if inspection.answer_knock_out:
        own = inspection.answer_knock_out
        losses = [(own.name(*part), f"{own.losses[part]:.4f}", f"{own.changes[part]:+.4f}") for part in own.most(PARTS)]
        console.table("loss of the model's own answer, with a part set to zero", ("without", "loss", "change"), losses)


def _print_tokens(inspection: Inspection, console: Console) -> None:
    """Print each token with its surprisal; the colour only repeats it."""
    surprisals = inspection.loss.nll[:-1].tolist()
    mean = inspection.loss.total / len(surprisals)
    console.result(f"surprisal in nats by token (total {inspection.loss.total:.4f}, mean {mean:.4f})")
    probabilities = np.exp(-inspection.loss.nll[:-1])
    colours = ["green" if p >= EXPECTED else "yellow" if p >= UNLIKELY else "red" for p in probabilities]
    pieces = [visible(piece) for piece in inspection.tokens.pieces]
    console.tokens(pieces, ["-", *(f"{each:.2f}" for each in surprisals)], ["dim", *colours])


def _print_heads(inspection: Inspection, console: Console) -> None:
    """Print which heads have a type, and what the last tokens attend to most in the head by hand."""
    named = [f"{each.layer}.{each.head} {each.type} {each.score:.2f}" for each in inspection.heads.names()]
    console.result("heads by type: " + (", ".join(named) or f"none scores {NAMED_FROM} or more"))
    layer, head = inspection.hand.layer, inspection.hand.head
    scores = inspection.heads.scores[layer, head]
    pieces = [visible(piece) for piece in inspection.tokens.pieces]
    weights = inspection.attention.weights[layer, head]  # (query, key)
    rows = []
    for query in range(max(0, len(pieces) - ROWS), len(pieces)):
        keys = np.argsort(-weights[query, : query + 1], kind="stable")[:MOST]
        rows.append(
            (query, pieces[query], "  ".join(f"{pieces[key]} ({key}) {weights[query, key]:.2f}" for key in keys))
        )
    types = ", ".join(f"{type} {score:.2f}" for type, score in zip(HEAD_TYPES, scores, strict=True))
    console.table(f"head {layer}.{head} ({types})", ("position", "token", "attends most to"), rows)


def _print_lens(inspection: Inspection, console: Console) -> None:
    """Print what the model would predict after the text if it ended after each layer."""
    lens, last = inspection.lens, visible(inspection.vocabulary[int(inspection.loss.targets[-1])])
    rows = []
    for row, (rank, kl) in enumerate(zip(lens.rank[:, -1], lens.kl[:, -1], strict=True)):
        place = "embeddings" if row == 0 else f"layer {row - 1}"
        top = _candidates(lens.top_ids[row, -1], lens.top_probabilities[row, -1], inspection.vocabulary)
        rows.append((place, "  ".join(top), int(rank), f"{kl:.3f}"))
    columns = ("after", "most likely next", f"rank of '{last}'", "KL, nats")
    console.table("logit lens after the last token", columns, rows)


def _print_knock_out(found: KnockOut, inspection: Inspection, console: Console) -> None:
    """Print without which parts the loss of the text changes most, and at which token."""
    total, rows = inspection.loss.total, []
    for part in found.most(PARTS):
        changes, change = found.changes[part], found.totals[part]
        at = int(np.abs(changes[:-1]).argmax()) + 1
        token = f"{visible(inspection.tokens.pieces[at])} ({at}) {changes[at - 1]:+.2f}"
        rows.append((found.name(*part), f"{total + change:.2f}", f"{change:+.2f}", token))
    console.table("loss of the text in nats, with a part set to zero", ("without", "loss", "change", "most at"), rows)


def _candidates(ids: NDArray[Any], probabilities: Sequence[float], vocabulary: Mapping[int, str]) -> Iterator[str]:
    for id, probability in list(zip(ids.tolist(), probabilities, strict=True))[:MOST]:
        yield f"{visible(vocabulary[id])} {probability:.2f}"
