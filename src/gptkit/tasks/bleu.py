"""BLEU (Papineni et al. 2002) through sacrebleu, as statistics of each sentence, which a corpus's BLEU adds up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptkit.scoring.libraries import import_extra
from gptkit.scoring.protocols import Column
from gptkit.scoring.resampled_metrics import BLEU_COLUMNS


def bleu_columns(translations: Sequence[str], references: Sequence[str]) -> dict[str, Column]:
    """Return the matching and all n-grams and the lengths of each translation, case kept, tokens by mteval-v13a."""
    scorer = import_extra("sacrebleu.metrics", "sacrebleu").BLEU(tokenize="13a", force=True)
    rows = []
    for translation, reference in zip(translations, references, strict=True):
        found = scorer.corpus_score([translation], [[reference]])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    table = np.array(rows, dtype=np.float64).reshape(-1, len(BLEU_COLUMNS))  # (item, statistic)
    return dict(zip(BLEU_COLUMNS, table.T, strict=True))
