"""SciTail: does a sentence entail the answer to a science exam question?"""

from __future__ import annotations

from gptkit.tasks.task import SPLITS, Columns, HubSource, Source, Task, counts, gpt1

ORDER = 5

_TSV = Columns((0, 1), 2, ("entails", "neutral"))
_SNLI_FORM = Columns(("sentence1", "sentence2"), "gold_label", ("entailment", "neutral"))


def _scitail(split: str) -> tuple[Source, ...]:
    name = f"scitail_1.0_{split}"
    return (
        Source((f"tsv_format/{name}.tsv",), "tsv", _TSV, width=3),
        Source((f"snli_format/{name}.txt",), "jsonl", _SNLI_FORM),
        Source((f"{name}.tsv",), "tsv", _TSV, width=3),
        Source((f"{name}.txt",), "jsonl", _SNLI_FORM),
    )


SCITAIL = Task(
    "scitail",
    "entailment",
    "allenai.org/data/scitail",
    {split: _scitail(split) for split in SPLITS},
    ("entailment", "neutral"),
    hub=HubSource("allenai/scitail", "snli_format", _SNLI_FORM),
    sizes=counts(23596, 1304, 2126),
    published=gpt1("accuracy", 88.3, 2),
    folders=("SciTailV1.1", "SciTailV1"),
)

BENCHMARKS = (SCITAIL,)
