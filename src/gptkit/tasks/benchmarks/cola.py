"""CoLA: is a sentence acceptable English? As a task of GLUE, and zero-shot by its likelihood (GPT-1, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gptkit.scoring.choices import item_ids, label_of, per_token, requests_of, scores_of
from gptkit.scoring.protocols import Answers, Group, Items, ScoredProtocol
from gptkit.tasks.benchmarks.glue import GLUE, glue_hub, glue_tsv
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import BINARY, Columns, Source, Task, ablation, best_before_gpt1, counts, gpt1
from gptkit.text.examples import Example

if TYPE_CHECKING:
    from gptkit.scoring.encoder import Encoder

ORDER = 1
ACCEPTABLE = 6023 / 8551  # the rate in CoLA's training set

_LABELLED = Columns((3,), label=1, labels=BINARY)
COLA = Task(
    "cola",
    "classification",
    GLUE,
    {
        "train": (Source(("train.tsv",), "tsv", _LABELLED, width=4),),
        "dev": (Source(("dev.tsv",), "tsv", _LABELLED, width=4),),
        "test": (glue_tsv("test.tsv", ("sentence",), "index|sentence", None),),
    },
    ("unacceptable", "acceptable"),
    ("matthews", "accuracy"),
    hub=glue_hub("cola", "sentence"),
    sizes=counts(8551, 1043, 1063),
    published=gpt1("matthews", 45.4, 4),
    ablation=ablation(45.4, 18.9, 47.9, 30.3),
    glue_file="CoLA.tsv",
)


def above_threshold(scores: NDArray[np.float64], fraction: float) -> NDArray[np.float64]:
    """Return (item,): 1 for the given fraction of highest scores, 0 for the others; of equal scores the first."""
    chosen = np.zeros(len(scores))
    chosen[np.argsort(-scores, kind="stable")[: round(fraction * len(scores))]] = 1
    return chosen


@dataclass(frozen=True)
class Acceptability(ScoredProtocol):
    """Call the sentences with the highest mean log-probability per token acceptable, at the training set's rate."""

    def requests(self, examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        return requests_of([[("", str(example.fields[0]))] for example in examples], encoder)

    def items(
        self, examples: Sequence[Example], groups: Sequence[Group], answers: Sequence[Answers], encoder: Encoder
    ) -> Items:
        scores = np.concatenate([scores_of(per_token, *pair) for pair in zip(groups, answers, strict=True)])
        is_scored = np.isfinite(scores)
        scores = np.where(is_scored, scores, scores[is_scored].min(initial=0.0) - 1)  # unscorable sentences rank last
        references = np.array([label_of(example) for example in examples], dtype=np.float64)
        predictions = above_threshold(scores, ACCEPTABLE)
        columns = {"prediction": predictions, "reference": references, "score": scores}
        return Items(item_ids(examples), columns | {"correct": (predictions == references).astype(np.float64)})


_BY_LIKELIHOOD = Acceptability(
    "gpt1",
    "the sentence's mean log-probability per token after the separator; the top 70.4% are called acceptable, the rate "
    "in CoLA's training set (GPT-1 does not state its threshold; auc needs none)",
    ("matthews", "auc", "accuracy"),
    published=best_before_gpt1(0.350, "GPT-1 paper, table 4", "matthews"),
    chance=0.0,
    version=2,  # 1 scored part of a sentence that does not fit
)

BENCHMARKS = (COLA, zero_shot(COLA, "dev", _BY_LIKELIHOOD))
