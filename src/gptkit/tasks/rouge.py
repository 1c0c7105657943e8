"""ROUGE (Lin 2004) through rouge-score, as the papers' Perl script ROUGE-1.5.5 counts it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptkit.scoring.libraries import import_extra
from gptkit.scoring.protocols import Column

MEASURES = ("rouge1", "rouge2", "rougeL")


def rouge_columns(summaries: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, Column]:
    """Return F1 of words, of pairs and of longest common subsequences, 0 to 1, and their mean, each (item,).

    Summaries and references are lists of sentences. Words are stemmed by Porter's rules. ROUGE-L is the summary-level
    one, a union over sentences (section 3.2), which is what the papers' tables hold; rouge-score calls it rougeLsum.
    """
    scorer = import_extra("rouge_score.rouge_scorer", "rouge-score").RougeScorer(
        ["rouge1", "rouge2", "rougeLsum"], use_stemmer=True
    )
    rows = []
    for summary, reference in zip(summaries, references, strict=True):
        scores = scorer.score("\n".join(reference), "\n".join(summary))
        rows.append([scores[name].fmeasure for name in ("rouge1", "rouge2", "rougeLsum")])
    table = np.array(rows, dtype=np.float64).reshape(-1, len(MEASURES))  # (item, measure)
    return dict(zip(MEASURES, table.T, strict=True)) | {"rouge": table.mean(axis=1)}
