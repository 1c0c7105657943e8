"""The rows of GLUE's nine tasks (and STS-B's second form): its tab-separated files, which know no quoting."""

from __future__ import annotations

from typing import Any, Literal

from gptkit.tasks.task import Columns, HubSource, Published, Source, Target, Task

BINARY = ("0", "1")
NLI = ("entailment", "neutral", "contradiction")
_GLUE = "GLUE (gluebenchmark.com/tasks)"
_TWO_WAY = ("entailment", "not_entailment")


def counts(train: int, dev: int, test: int, **more: int) -> dict[str, int]:
    return {"train": train, "dev": dev, "test": test} | {name.replace("_", "-"): count for name, count in more.items()}


def gpt1(metric: str, value: float, table: int, ablation: str = "", note: str = "") -> Published:
    full, no_pretraining, no_aux = map(float, ablation.split()) if ablation else (None, None, None)
    return Published(metric, value, f"GPT-1 paper, table {table}", full, no_pretraining, no_aux, note)


def nli_files(stem: str) -> tuple[Source, ...]:
    """Return the two forms of SNLI and MultiNLI, in both of which rows without a gold label carry "-"."""
    columns = Columns(_SENTENCES, "gold_label", NLI, "pairID", no_gold="-")
    return Source((f"{stem}.jsonl",), "jsonl", columns), Source((f"{stem}.txt",), "tsv", columns, ragged=True)


def _tsv(path: str, fields: tuple[str, ...], header: str, label: str | None = "label", **more: Any) -> Source:
    """Return one of GLUE's files: tab-separated, no quoting, a header that is written here with | between names."""
    names = tuple(header.split("|"))
    labels = more.pop("labels", ())
    identifier = names[0] if names[0] in ("index", "id", "pairID") else None
    columns = Columns(fields, label, labels, identifier)
    return Source((path,), "tsv", columns, names, **more)


def _glue_hub(configuration: str, *fields: str) -> HubSource:
    splits = {"train": "train", "dev": "validation", "test": "test"}
    if configuration == "mnli":
        splits = {"train": "train"} | {
            f"{ours}{side}": f"{theirs}_{'mis' if side else ''}matched"
            for side in ("", "-mismatched")
            for ours, theirs in (("dev", "validation"), ("test", "test"))
        }
    return HubSource("nyu-mll/glue", configuration, splits, Columns(fields, identifier="idx"))


def _pair_splits(fields: tuple[str, ...], names: str, labels: tuple[str, ...]) -> dict[str, tuple[Source, ...]]:
    """Return the splits of the tasks whose files have `names` (two, with |) between index and label."""
    labelled, unlabelled = f"index|{names}|label", f"index|{names}"
    return {
        "train": (_tsv("train.tsv", fields, labelled, labels=labels),),
        "dev": (_tsv("dev.tsv", fields, labelled, labels=labels),),
        "test": (_tsv("test.tsv", fields, unlabelled, None),),
    }


_COLA = Columns((3,), label=1, labels=BINARY)
_MRPC = ("#1 String", "#2 String")
_MSR = Columns(_MRPC, "Quality", BINARY, ("#1 ID", "#2 ID"))
_MRPC_HEADER = "Quality|#1 ID|#2 ID|#1 String|#2 String"
_SENTENCES = ("sentence1", "sentence2")
_STSB = Columns((5, 6), label=4)
_STSB_HEADER = "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2"
_QQP = ("question1", "question2")
_QQP_HEADER = "id|qid1|qid2|question1|question2|is_duplicate"


def _msr(path: str, part: Literal["", "msr-train", "msr-dev"] = "") -> Source:
    return Source((path,), "tsv", _MSR, tuple(_MRPC_HEADER.split("|")), part=part)


def _mnli(split: str, original: str | None) -> tuple[Source, ...]:
    columns = Columns(_SENTENCES, "gold_label" if original else None, NLI, "index")
    glue = Source((f"{split}.tsv",), "tsv", columns)
    return (glue, *nli_files(f"multinli_1.0_{original}")) if original else (glue,)


def _stsb(name: str, target: Target) -> Task:
    def source(split: str) -> tuple[Source, ...]:
        labelled = split != "test"
        header = _STSB_HEADER + "|score" * labelled
        glue = _tsv(f"{split}.tsv", _SENTENCES, header, "score" if labelled else None)
        return glue, Source((f"sts-{split}.csv",), "tsv", _STSB, width=7, ragged=True)

    return Task(
        name,
        "similarity",
        (),
        target,
        ("pearson", "spearman"),
        {split: source(split) for split in ("train", "dev", "test")},
        f"{_GLUE}, or ixa2.si.ehu.eus/stswiki",
        score_range=(0.0, 5.0),
        hub=_glue_hub("stsb", *_SENTENCES),
        sizes=counts(5749, 1500, 1379),
        published=gpt1("pearson", 82.0, 4, "82.0 30.9 83.2"),
        glue_file="STS-B.tsv",
        folders=("STS-B", "STSbenchmark"),
    )


GLUE_TASKS = (
    Task(
        "cola",
        "classification",
        ("unacceptable", "acceptable"),
        "class",
        ("matthews", "accuracy"),
        {
            "train": (Source(("train.tsv",), "tsv", _COLA, width=4),),
            "dev": (Source(("dev.tsv",), "tsv", _COLA, width=4),),
            "test": (_tsv("test.tsv", ("sentence",), "index|sentence", None),),
        },
        _GLUE,
        hub=_glue_hub("cola", "sentence"),
        sizes=counts(8551, 1043, 1063),
        published=gpt1("matthews", 45.4, 4, "45.4 18.9 47.9"),
        glue_file="CoLA.tsv",
    ),
    Task(
        "sst2",
        "classification",
        ("negative", "positive"),
        "class",
        ("accuracy",),
        {
            "train": (_tsv("train.tsv", ("sentence",), "sentence|label", labels=BINARY),),
            "dev": (_tsv("dev.tsv", ("sentence",), "sentence|label", labels=BINARY),),
            "test": (_tsv("test.tsv", ("sentence",), "index|sentence", None),),
        },
        _GLUE,
        hub=_glue_hub("sst2", "sentence"),
        sizes=counts(67349, 872, 1821),
        published=gpt1("accuracy", 91.3, 4, "91.3 84.0 92.0"),
        glue_file="SST-2.tsv",
        folders=("SST-2",),
    ),
    Task(
        "mrpc",
        "similarity",
        ("not_equivalent", "equivalent"),
        "class",
        ("f1", "accuracy"),
        {
            "train": (
                _tsv("train.tsv", _MRPC, _MRPC_HEADER, "Quality", labels=BINARY),
                _msr("msr_paraphrase_train.txt", "msr-train"),
            ),
            "dev": (
                _tsv("dev.tsv", _MRPC, _MRPC_HEADER, "Quality", labels=BINARY),
                _msr("msr_paraphrase_train.txt", "msr-dev"),
            ),
            "test": (
                _tsv("test.tsv", _MRPC, "index|#1 ID|#2 ID|#1 String|#2 String", None),
                _msr("msr_paraphrase_test.txt"),
            ),
        },
        f"{_GLUE}, or Microsoft's msr_paraphrase_*.txt with GLUE's dev_ids.tsv",
        hub=_glue_hub("mrpc", *_SENTENCES),
        sizes=counts(3668, 408, 1725),
        published=gpt1("f1", 82.3, 4, "82.3 79.4 84.9"),
        glue_file="MRPC.tsv",
    ),
    _stsb("stsb", "score"),
    _stsb("stsb-soft", "soft-score"),
    Task(
        "qqp",
        "similarity",
        ("not_duplicate", "duplicate"),
        "class",
        ("f1", "accuracy"),
        {
            "train": (_tsv("train.tsv", _QQP, _QQP_HEADER, "is_duplicate", labels=BINARY, broken=True),),
            "dev": (_tsv("dev.tsv", _QQP, _QQP_HEADER, "is_duplicate", labels=BINARY, broken=True),),
            "test": (_tsv("test.tsv", _QQP, "id|question1|question2", None),),
        },
        _GLUE,
        hub=_glue_hub("qqp", *_QQP),
        sizes=counts(363846, 40430, 390965),
        published=gpt1("f1", 70.3, 4, "70.3 65.5 69.8"),
        glue_file="QQP.tsv",
    ),
    Task(
        "mnli",
        "entailment",
        NLI,
        "class",
        ("accuracy",),
        {
            "train": _mnli("train", "train"),
            "dev": _mnli("dev_matched", "dev_matched"),
            "dev-mismatched": _mnli("dev_mismatched", "dev_mismatched"),
            "test": _mnli("test_matched", None),
            "test-mismatched": _mnli("test_mismatched", None),
        },
        f"{_GLUE}, or cims.nyu.edu/~sbowman/multinli",
        hub=_glue_hub("mnli", "premise", "hypothesis"),
        sizes=counts(392702, 9815, 9796, dev_mismatched=9832, test_mismatched=9847),
        published=gpt1("accuracy", 82.1, 2, "81.8 75.7 81.1", "mismatched 81.4; table 5 has the mean of both"),
        glue_file="MNLI-m.tsv",
        folders=("multinli_1.0",),
    ),
    Task(
        "qnli",
        "entailment",
        _TWO_WAY,
        "class",
        ("accuracy",),
        _pair_splits(("question", "sentence"), "question|sentence", _TWO_WAY),
        _GLUE,
        hub=_glue_hub("qnli", "question", "sentence"),
        sizes=counts(104743, 5463, 5463),
        published=gpt1("accuracy", 88.1, 2, "88.1 71.2 86.9", "on GLUE's first QNLI, other data than today's"),
        glue_file="QNLI.tsv",
    ),
    Task(
        "rte",
        "entailment",
        _TWO_WAY,
        "class",
        ("accuracy",),
        _pair_splits(_SENTENCES, "sentence1|sentence2", _TWO_WAY),
        _GLUE,
        hub=_glue_hub("rte", *_SENTENCES),
        sizes=counts(2490, 277, 3000),
        published=gpt1("accuracy", 56.0, 2, "56.0 53.8 54.4"),
        glue_file="RTE.tsv",
    ),
    Task(
        "wnli",
        "entailment",
        ("not_entailment", "entailment"),
        "class",
        ("accuracy",),
        _pair_splits(_SENTENCES, "sentence1|sentence2", BINARY),
        _GLUE,
        hub=_glue_hub("wnli", *_SENTENCES),
        sizes=counts(635, 71, 146),
        glue_file="WNLI.tsv",
    ),
)
