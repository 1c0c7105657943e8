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
ACCEPTABLE = 6023 / 8551  # the fraction in CoLA's training set

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
    ablation=ablation(45.4, 18.9, 47.9),
    glue_file="CoLA.tsv",
)


def above_threshold(scores: NDArray[np.float64], fraction: float) -> NDArray[np.float64]:
    """Return 1 for a fraction of the sentences (item,), those with the highest scores; of equal ones the first."""
    chosen = np.zeros(len(scores))
    chosen[np.argsort(-scores, kind="stable")[: round(fraction * len(scores))]] = 1
    return chosen


@dataclass(frozen=True)
class Acceptability(ScoredProtocol):
    """The sentences with the highest mean log-probability of a token are acceptable, as many as in the training set."""

    def requests(self, examples: Sequence[Example], encoder: Encoder) -> list[Group]:
        return requests_of([[("", str(example.fields[0]))] for example in examples], encoder)

    def items(
        self, examples: Sequence[Example], groups: Sequence[Group], answers: Sequence[Answers], encoder: Encoder
    ) -> Items:
        scores = np.concatenate([scores_of(per_token, *pair) for pair in zip(groups, answers, strict=True)])
        is_scored = np.isfinite(scores)
        scores = np.where(is_scored, scores, scores[is_scored].min(initial=0.0) - 1)  # what cannot be is the last
        references = np.array([label_of(example) for example in examples], dtype=np.float64)
        predictions = above_threshold(scores, ACCEPTABLE)
        columns = {"prediction": predictions, "reference": references, "score": scores}
        return Items(item_ids(examples), columns | {"correct": (predictions == references).astype(np.float64)})


_BY_LIKELIHOOD = Acceptability(
    "gpt1",
    "the mean over the sentence's tokens after the separator; acceptable are the likeliest 70.4% of the sentences, the "
    "share in CoLA's training set (GPT-1 does not tell its threshold; auc needs none)",
    ("matthews", "auc", "accuracy"),
    published=best_before_gpt1(0.350, "GPT-1 paper, table 4", "matthews"),
    chance=0.0,
    version=2,  # 1 scored a part of a sentence that does not fit
)

BENCHMARKS = (COLA, zero_shot(COLA, "dev", "is a sentence acceptable English", _BY_LIKELIHOOD))
