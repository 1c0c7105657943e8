"""CoLA's row: are a sentence's tokens likely enough for it to be English? (GPT-1, section 5)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gptkit.scoring.choices import item_ids, label_of, per_token, possible, requests_of
from gptkit.scoring.protocols import Items, Published, ScoredProtocol
from gptkit.scoring.requests import Answer, Group
from gptkit.tasks.task_choices import BEST, task_row
from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

ACCEPTABLE = 6023 / 8551  # the share in CoLA's training set


def accepted(scores: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return 1 for a share of the sentences (item,), those with the highest scores; of equal ones the first."""
    chosen = np.zeros(len(scores))
    chosen[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = 1
    return chosen


def _requests(examples: Sequence[Example], encoder: Encoder) -> list[Group]:
    return requests_of([[("", str(one.fields[0]))] for one in examples], encoder)


def _items(examples: Sequence[Example], answers: Sequence[tuple[Answer, ...]], encoder: Encoder) -> Items:
    scores = _finite([possible(per_token)(answer, "") for (answer,) in answers])
    references = np.array([label_of(one) for one in examples], dtype=np.float64)
    predictions = accepted(scores, ACCEPTABLE)
    columns = {"prediction": predictions, "reference": references, "score": scores}
    return Items(item_ids(examples), columns | {"correct": (predictions == references).astype(np.float64)})


def _finite(scores: Sequence[float]) -> NDArray[np.float64]:
    """Return the scores (item,), those of sentences that cannot be scored below all others."""
    found = np.array(scores, dtype=np.float64)
    return np.where(np.isfinite(found), found, found[np.isfinite(found)].min(initial=0.0) - 1)


_PROTOCOL = ScoredProtocol(
    "gpt1",
    "the mean over the sentence's tokens after the separator; acceptable are the likeliest 70.4% of the sentences, the "
    "share in CoLA's training set (GPT-1 does not tell its threshold; auc needs none)",
    ("matthews", "auc", "accuracy"),
    published=(Published(BEST, "matthews", 0.350, "GPT-1 paper, table 4"),),
    chance=0.0,
    version=2,  # 1 scored a part of a sentence that does not fit
    requests=_requests,
    items=_items,
)

COLA = task_row("cola", "dev", "is a sentence acceptable English", (_PROTOCOL,))
