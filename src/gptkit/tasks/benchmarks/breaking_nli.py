"""Breaking NLI: sentence pairs that differ in one word, a test set for models trained on SNLI or MultiNLI."""

from __future__ import annotations

from gptkit.tasks.benchmarks.snli import NLI
from gptkit.tasks.task import Columns, Source, Task

ORDER = 9

_COLUMNS = Columns(("sentence1", "sentence2"), "gold_label", NLI, "pairID")
BREAKING_NLI = Task(
    "breaking-nli",
    "entailment",
    "github.com/BIU-NLP/Breaking_NLI (evaluation only)",
    {"test": tuple(Source((path,), "jsonl", _COLUMNS) for path in ("dataset.jsonl", "data/dataset.jsonl"))},
    NLI,
    sizes={"test": 8193},
    folders=("Breaking_NLI-master",),
)

BENCHMARKS = (BREAKING_NLI,)
