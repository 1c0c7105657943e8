"""GLUE tasks for fine-tuning: tab-separated files without quoting. STS-B also comes with soft scores.

CoLA and SST-2, which are also zero-shot evaluations, have their own files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.errors import InputError
from gptkit.tasks.benchmarks.snli import NLI, nli_files
from gptkit.tasks.files import find, lines
from gptkit.tasks.task import BINARY, SPLITS, Columns, HubSource, Source, Task, ablation, counts, gpt1
from gptkit.text.examples import Example

ORDER = 3

GLUE = "GLUE (gluebenchmark.com/tasks)"


def glue_tsv(path: str, fields: tuple[str, ...], header: str, label: str | None = "label", **more: Any) -> Source:
    """Return one of GLUE's files: tab-separated, no quoting, with the columns of `header`, joined by |."""
    names = tuple(header.split("|"))
    labels = more.pop("labels", ())
    identifier = names[0] if names[0] in ("index", "id") else None
    return Source((path,), "tsv", Columns(fields, label, labels, identifier), names, **more)


def glue_hub(configuration: str, *fields: str) -> HubSource:
    return HubSource("nyu-mll/glue", configuration, Columns(fields, identifier="idx"))


_TWO_WAY = ("entailment", "not_entailment")
_SENTENCES = ("sentence1", "sentence2")
_PAIR_HEADER = "index|sentence1|sentence2|label"
_MRPC = ("#1 String", "#2 String")
_MRPC_HEADER = "Quality|#1 ID|#2 ID|#1 String|#2 String"
_STSB_HEADER = "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2"
_QQP = ("question1", "question2")
_QQP_HEADER = "id|qid1|qid2|question1|question2|is_duplicate"
_MNLI_SPLITS = {
    "train": "train",
    "dev": "validation_matched",
    "dev-mismatched": "validation_mismatched",
    "test": "test_matched",
    "test-mismatched": "test_mismatched",
}


def glue_splits(
    fields: tuple[str, ...], labelled: str, unlabelled: str, labels: tuple[str, ...], label: str = "label", **more: Any
) -> dict[str, tuple[Source, ...]]:
    """Return a task's splits, given the headers of its labelled and its unlabelled files."""
    return {
        "train": (glue_tsv("train.tsv", fields, labelled, label, labels=labels, **more),),
        "dev": (glue_tsv("dev.tsv", fields, labelled, label, labels=labels, **more),),
        "test": (glue_tsv("test.tsv", fields, unlabelled, None),),
    }


def _mrpc(split: str) -> tuple[Source, ...]:
    """Return GLUE's file and Microsoft's, whose training file contains train and dev."""

    def of_split(path: Path, examples: list[Example]) -> list[Example]:
        ids = find(path.parent, "dev_ids.tsv") or find(path.parent, "mrpc_dev_ids.tsv")
        if ids is None:
            what = "GLUE's list of the 408 dev pairs, a line of #1 ID, a tab and #2 ID each, without a header"
            message = f"no dev_ids.tsv: {what}; Microsoft's archive lacks it"
            fix = f"put it beside {path.name}; GLUE's download script fetches it as mrpc_dev_ids.tsv"
            raise InputError(message, where=str(path.parent), fix=fix)
        dev_ids = {text.replace("\t", " ") for _, text in lines(ids)}
        kept = [example for example in examples if (example.identifier in dev_ids) == (split == "dev")]
        if not kept:
            raise InputError("no example for this split", where=f"{ids}:1", fix="fetch GLUE's dev_ids.tsv again")
        return kept

    microsoft = Columns(_MRPC, "Quality", BINARY, ("#1 ID", "#2 ID"))
    names = tuple(_MRPC_HEADER.split("|"))
    if split == "test":
        glue = glue_tsv("test.tsv", _MRPC, "index|#1 ID|#2 ID|#1 String|#2 String", None)
        return glue, Source(("msr_paraphrase_test.txt",), "tsv", microsoft, names)
    glue = glue_tsv(f"{split}.tsv", _MRPC, _MRPC_HEADER, "Quality", labels=BINARY)
    return glue, Source(("msr_paraphrase_train.txt",), "tsv", microsoft, names, select=of_split)


def _stsb(split: str) -> tuple[Source, ...]:
    label = None if split == "test" else "score"
    glue = glue_tsv(f"{split}.tsv", _SENTENCES, _STSB_HEADER + "|score" * bool(label), label)
    return glue, Source((f"sts-{split}.csv",), "tsv", Columns((5, 6), label=4), width=7, ragged=True)


def _mnli(file: str) -> tuple[Source, ...]:
    is_labelled = not file.startswith("test")
    glue = Source((f"{file}.tsv",), "tsv", Columns(_SENTENCES, "gold_label" if is_labelled else None, NLI, "index"))
    return (glue, *nli_files(f"multinli_1.0_{file}")) if is_labelled else (glue,)


def _stsb_task(name: str, *, soft_scores: bool) -> Task:
    return Task(
        name,
        "similarity",
        f"{GLUE}, or ixa2.si.ehu.eus/stswiki",
        {split: _stsb(split) for split in SPLITS},
        metrics=("pearson", "spearman"),
        score_range=(0.0, 5.0),
        soft_scores=soft_scores,
        hub=glue_hub("stsb", *_SENTENCES),
        sizes=counts(5749, 1500, 1379),
        published=gpt1("pearson", 82.0, 4),
        ablation=ablation(82.0, 30.9, 83.2, 71.8),
        glue_file="STS-B.tsv",
        folders=("STS-B", "STSbenchmark"),
    )


MRPC = Task(
    "mrpc",
    "similarity",
    f"{GLUE}, or Microsoft's msr_paraphrase_*.txt with GLUE's dev_ids.tsv",
    {split: _mrpc(split) for split in SPLITS},
    ("not_equivalent", "equivalent"),
    ("f1", "accuracy"),
    hub=glue_hub("mrpc", *_SENTENCES),
    sizes=counts(3668, 408, 1725),
    published=gpt1("f1", 82.3, 4),
    ablation=ablation(82.3, 79.4, 84.9, 83.2),
    glue_file="MRPC.tsv",
)
QQP = Task(
    "qqp",
    "similarity",
    GLUE,
    glue_splits(_QQP, _QQP_HEADER, "id|question1|question2", BINARY, "is_duplicate", skip_broken=True),
    ("not_duplicate", "duplicate"),
    ("f1", "accuracy"),
    hub=glue_hub("qqp", *_QQP),
    sizes=counts(363846, 40430, 390965),
    published=gpt1("f1", 70.3, 4),
    ablation=ablation(70.3, 65.5, 69.8, 68.1),
    glue_file="QQP.tsv",
)
MNLI = Task(
    "mnli",
    "entailment",
    f"{GLUE}, or cims.nyu.edu/~sbowman/multinli",
    {split: _mnli(name.replace("validation", "dev")) for split, name in _MNLI_SPLITS.items()},
    NLI,
    hub=HubSource("nyu-mll/glue", "mnli", Columns(("premise", "hypothesis"), identifier="idx"), _MNLI_SPLITS),
    sizes=counts(392702, 9815, 9796, dev_mismatched=9832, test_mismatched=9847),
    published=gpt1("accuracy", 82.1, 2),
    ablation=ablation(81.8, 75.7, 81.1, 73.7),
    note="mismatched 81.4; table 5 has the mean of both",
    glue_file="MNLI-m.tsv",
    folders=("multinli_1.0",),
)
QNLI = Task(
    "qnli",
    "entailment",
    GLUE,
    glue_splits(("question", "sentence"), "index|question|sentence|label", "index|question|sentence", _TWO_WAY),
    _TWO_WAY,
    hub=glue_hub("qnli", "question", "sentence"),
    sizes=counts(104743, 5463, 5463),
    published=gpt1("accuracy", 88.1, 2),
    ablation=ablation(88.1, 71.2, 86.9, 81.1),
    note="on the first version of QNLI, whose data differ from today's",
    glue_file="QNLI.tsv",
)
RTE = Task(
    "rte",
    "entailment",
    GLUE,
    glue_splits(_SENTENCES, _PAIR_HEADER, "index|sentence1|sentence2", _TWO_WAY),
    _TWO_WAY,
    hub=glue_hub("rte", *_SENTENCES),
    sizes=counts(2490, 277, 3000),
    published=gpt1("accuracy", 56.0, 2),
    ablation=ablation(56.0, 53.8, 54.4, 54.6),
    glue_file="RTE.tsv",
)
WNLI = Task(
    "wnli",
    "entailment",
    GLUE,
    glue_splits(_SENTENCES, _PAIR_HEADER, "index|sentence1|sentence2", BINARY),
    ("not_entailment", "entailment"),
    hub=glue_hub("wnli", *_SENTENCES),
    sizes=counts(635, 71, 146),
    glue_file="WNLI.tsv",
)

_STSB = (_stsb_task("stsb", soft_scores=False), _stsb_task("stsb-soft", soft_scores=True))

BENCHMARKS = (MRPC, *_STSB, QQP, MNLI, QNLI, RTE, WNLI)
