"""COPA: which of two events is the cause or the effect? As a SuperGLUE task, and zero-shot as in lm-eval."""

from __future__ import annotations

from gptkit.errors import InputError
from gptkit.scoring.choices import ChoiceProtocol, Pair
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import BINARY, Columns, HubSource, Source, Task, counts
from gptkit.text.examples import Example

ORDER = 8

_CAUSE, _EFFECT = "What was the cause of this?", "What happened as a result?"
_CONNECTIVES = {_CAUSE: "because", _EFFECT: "therefore"}
_FIELDS = ("premise", "question", ("choice1", "choice2"))
_COLUMNS = Columns(_FIELDS, "label", BINARY, "idx", replace={"cause": _CAUSE, "effect": _EFFECT})
COPA = Task(
    "copa",
    "multiple-choice",
    "SuperGLUE (super.gluebenchmark.com/tasks)",
    {
        "train": (Source(("train.jsonl",), "jsonl", _COLUMNS),),
        "dev": (Source(("val.jsonl",), "jsonl", _COLUMNS),),
        "test": (Source(("test.jsonl",), "jsonl", _COLUMNS),),
    },
    choices=2,
    hub=HubSource("aps/super_glue", "copa", _COLUMNS),
    sizes=counts(400, 100, 500),
)


def copa_pairs(example: Example) -> list[Pair]:
    """Return the premise with because or therefore for its full stop, and each choice starting in lower case."""
    premise, question, choices = example.fields
    if question not in _CONNECTIVES:
        fix = f"write one of: {' '.join(_CONNECTIVES)}"
        raise InputError(f"unknown question {str(question)[:60]!r}", where=example.where, fix=fix)
    context = f"{str(premise).strip().removesuffix('.')} {_CONNECTIVES[str(question)]}"
    return [(context, f" {choice[0].lower()}{choice[1:]}") for choice in choices]


_LM_EVAL = ChoiceProtocol(
    "lm-eval",
    "the choice's log-probability after the premise and because or therefore; ties go to the first (lm-eval)",
    pairs=copa_pairs,
    ties="first",
)

BENCHMARKS = (COPA, zero_shot(COPA, "dev", _LM_EVAL))
