"""SNLI: does one sentence entail another?"""

from __future__ import annotations

from gptkit.tasks.task import SPLITS, Columns, HubSource, Source, Task, counts, gpt1

ORDER = 4

NLI = ("entailment", "neutral", "contradiction")


def nli_files(stem: str) -> tuple[Source, ...]:
    """Return the two forms of SNLI and MultiNLI files, where "-" marks rows without a gold label."""
    columns = Columns(("sentence1", "sentence2"), "gold_label", NLI, "pairID", unlabelled="-")
    return Source((f"{stem}.jsonl",), "jsonl", columns), Source((f"{stem}.txt",), "tsv", columns, ragged=True)


SNLI = Task(
    "snli",
    "entailment",
    "nlp.stanford.edu/projects/snli",
    {split: nli_files(f"snli_1.0_{split}") for split in SPLITS},
    NLI,
    hub=HubSource("stanfordnlp/snli", None, Columns(("premise", "hypothesis"), unlabelled=-1)),
    sizes=counts(549367, 9842, 9824),
    published=gpt1("accuracy", 89.9, 2),
    folders=("snli_1.0",),
)

BENCHMARKS = (SNLI,)
