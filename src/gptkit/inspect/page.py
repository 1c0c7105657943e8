"""The HTML page of an inspection: one file that a browser opens from the disk and that fetches nothing.

The numbers travel as base64 in a block of JSON; the scripts beside this file draw them.

Attention takes most of the room, and so is rounded to 8 bits: in each row of a lower triangle, an exact weight w is
stored as q = round(sqrt(-ln(w) / scale)), the scale being that of the row's smallest weight. The page computes the
weight exp(-scale q^2) and, with the row's log-sum-exp, the score lse - scale q^2. The square makes steps small where
weights are large.
"""

from __future__ import annotations

import base64
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from gptkit.inspect.attention import Attention
from gptkit.inspect.head_types import HEAD_TYPES, NAMED_FROM
from gptkit.inspect.inspection import Inspection
from gptkit.inspect.knock_out import KnockOut
from gptkit.inspect.learning import Learning
from gptkit.report.page import SHARED, page_text
from gptkit.system import files
from gptkit.system.terminal import safe_text
from gptkit.text.tokenizers.shown import visible

FILES = Path(__file__).with_name("html")
FIRST_VIEWS = ("tokens.js", "attention.js", "by_hand.js", "path.js", "shares.js", "loss.js")
VIEWS = (*FIRST_VIEWS, "knock_out.js", "fine_tuned.js", "learning.js", "live.js")
LIVE = ("live_model.js", "live_tokenizer.js", "live_inspection.js", "live_predictions.js")
SHARED_SCRIPTS = ("elements.js", "charts.js")
SCRIPTS = ("data.js", *SHARED_SCRIPTS, "state.js", *LIVE, *VIEWS, "start.js")
STYLE = "page.css"
LEVELS = 255
Array = np.ndarray[Any, Any]


def write_page(inspection: Inspection, path: Path) -> float:
    """Write the page and return the largest error of an attention weight on it; raises OSError."""
    rounded = rounded_attention(inspection.attention)
    error = largest_error(inspection.attention, rounded)
    files.write_atomically(path, page_of(inspection, rounded, error))
    return error


def rounded_attention(attention: Attention) -> dict[str, Array]:
    """Return the codes (layer, head, entry of the lower triangle), and per row a scale and a log-sum-exp."""
    rows, columns = np.tril_indices(attention.scores.shape[-1])
    scores = attention.scores
    top = scores.max(-1, keepdims=True)
    log_sum = (top + np.log(np.exp(scores - top).sum(-1, keepdims=True)))[..., 0]  # (layer, head, query)
    surprise = np.maximum(log_sum[..., rows] - scores[..., rows, columns], 0)  # -ln(weight)
    firsts = np.flatnonzero(columns == 0)
    widest = np.maximum.reduceat(surprise, firsts, axis=-1)  # (layer, head, query)
    scale = (widest / LEVELS**2).astype(np.float16).astype(np.float32)  # as it is stored, so that the codes fit it
    steps = np.divide(surprise, scale[..., rows], out=np.zeros_like(surprise), where=scale[..., rows] > 0)
    codes = np.rint(np.sqrt(steps)).clip(0, LEVELS).astype(np.uint8)
    return {"codes": codes, "scale": scale, "log_sum": log_sum.astype(np.float32)}


def largest_error(attention: Attention, rounded: dict[str, Array]) -> float:
    rows, columns = np.tril_indices(attention.weights.shape[-1])
    shown = np.exp(-rounded["scale"][..., rows] * np.square(rounded["codes"], dtype=np.float32))
    return float(np.abs(shown - attention.weights[..., rows, columns]).max())


def page_of(inspection: Inspection, rounded: dict[str, Array], error: float) -> str:
    """Return the whole page."""
    scripts = [(SHARED if name in SHARED_SCRIPTS else FILES) / name for name in SCRIPTS]
    return page_text("gptkit inspect", scripts, [SHARED / STYLE], _contents(inspection, rounded, error))


def _contents(inspection: Inspection, rounded: dict[str, Array], error: float) -> dict[str, object]:
    """Return what data.js reads, part by part as in `Inspection`."""
    tokens, hand, path = inspection.tokens, inspection.hand, inspection.path
    answer, tuned = inspection.answer, inspection.fine_tuned
    return {
        "model": inspection.model,
        "family": inspection.family,
        "fields": [[name, safe_text(text)] for name, text in inspection.fields],
        "vocabulary": {str(id): visible(piece) for id, piece in inspection.vocabulary.items()},
        "tokens": {
            "ids": _packed(tokens.ids),
            "pieces": [visible(piece) for piece in tokens.pieces],
            "token_embedding": _packed(tokens.token_embedding, "f2"),
            "position_embedding": _packed(tokens.position_embedding, "f2"),
        },
        "attention": {
            "error": error,
            "codes": _packed(rounded["codes"]),
            "scale": _packed(rounded["scale"], "f2"),
            "log_sum": _packed(rounded["log_sum"]),
        },
        "heads": {
            "types": HEAD_TYPES,
            "named_from": NAMED_FROM,
            "scores": _packed(inspection.heads.scores),
            "named": [[head.layer, head.head, head.type, round(head.score, 4)] for head in inspection.heads.names()],
        },
        "hand": {"layer": hand.layer, "head": hand.head, **_arrays(hand, left_out="written")},
        "path": {"sites": path.sites, **_arrays(path, left_out="residual")},
        "lens": _arrays(inspection.lens) | {"top_probabilities": _packed(inspection.lens.top_probabilities, "f2")},
        "shares": _arrays(inspection.shares),
        "loss": _arrays(inspection.loss),
        "knock_out_seconds": inspection.knock_out_seconds,
        "knock_out": _knock_out(inspection.knock_out),
        "answer_knock_out": _knock_out(inspection.answer_knock_out),
        "fine_tuned": tuned and {**_arrays(tuned), "names": tuned.names},
        "learning": _learning(inspection.learning),
        "live": _live(inspection),
        "answer": answer and [*zip(answer.labels, answer.probabilities.tolist(), strict=True)],
    }


def _knock_out(found: KnockOut | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {
        "whole": _packed(found.whole),
        "changes": _packed(found.changes, "f2"),
        "totals": _packed(found.totals),
    }


def _learning(learning: Learning | None) -> dict[str, object] | None:
    if learning is None:
        return None
    return {**_arrays(learning), "samples": [safe_text(sample) for sample in learning.samples]}


def _live(inspection: Inspection) -> dict[str, object]:
    live = inspection.live
    if isinstance(live, str):
        return {"obstacle": live}
    return {
        "text": inspection.fields[0][1],
        "config": live.config,
        "matrices": {
            name: {"codes": _packed(codes, "i1"), "scale": _packed(scale)}
            for name, (codes, scale) in live.matrices.items()
        },
        "vectors": {name: _packed(vector) for name, vector in live.vectors.items()},
        "tokenizer": live.tokenizer,
    }


def _arrays(part: Any, left_out: str = "") -> dict[str, object]:
    values = {field.name: getattr(part, field.name) for field in fields(part) if field.name != left_out}
    return {name: _packed(value) for name, value in values.items() if isinstance(value, np.ndarray)}


def _packed(array: Array, kind: str | None = None) -> dict[str, object]:
    """Return an array's shape, its type (i4, i1, u2, u1, f2, f4) and its little-endian bytes in base64."""
    given = np.asarray(array)
    if kind is None:
        is_short = given.dtype.kind in "iu" and given.min() >= 0 and given.max() < 2**16
        kind = "u1" if given.dtype == np.uint8 else "u2" if is_short else "i4" if given.dtype.kind in "iu" else "f4"
    data = np.ascontiguousarray(given, dtype=f"<{kind}").tobytes()
    return {"shape": list(given.shape), "type": kind, "data": base64.b64encode(data).decode()}
