"""Does one sentence entail another? SNLI, and SciTail on the answers to questions of school examinations."""

from __future__ import annotations

from gptkit.tasks.task import Columns, HubSource, Source, Task, counts, gpt1

ORDER = 4

NLI = ("entailment", "neutral", "contradiction")


def nli_files(stem: str) -> tuple[Source, ...]:
    """Return the two forms of SNLI and MultiNLI, in both of which rows without a gold label carry "-"."""
    columns = Columns(("sentence1", "sentence2"), "gold_label", NLI, "pairID", unlabelled="-")
    return Source((f"{stem}.jsonl",), "jsonl", columns), Source((f"{stem}.txt",), "tsv", columns, ragged=True)


SNLI = Task(
    "snli",
    "entailment",
    "nlp.stanford.edu/projects/snli",
    {split: nli_files(f"snli_1.0_{split}") for split in ("train", "dev", "test")},
    NLI,
    hub=HubSource("stanfordnlp/snli", None, Columns(("premise", "hypothesis"), unlabelled=-1)),
    sizes=counts(549367, 9842, 9824),
    published=gpt1("accuracy", 89.9, 2),
    folders=("snli_1.0",),
)


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
    {split: _scitail(split) for split in ("train", "dev", "test")},
    ("entailment", "neutral"),
    hub=HubSource("allenai/scitail", "snli_format", _SNLI_FORM),
    sizes=counts(23596, 1304, 2126),
    published=gpt1("accuracy", 88.3, 2),
    folders=("SciTailV1.1", "SciTailV1"),
)


BENCHMARKS = (SNLI, SCITAIL)
