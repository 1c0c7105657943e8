"""Which of our protocols are tasks of lm-eval's, and what its samples say of an item."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptkit.tasks.blimp import harness_pairs as blimp_pairs
from gptkit.tasks.hellaswag import harness_pairs
from gptkit.tasks.task_choices import copa_pairs
from gptkit.tasks.wikitext import lm_eval_page, lm_eval_text
from gptkit.text.examples import Example

Doc = Mapping[str, Any]
Sample = Mapping[str, Any]
Asked = tuple[str, ...]  # the texts of an item's requests, context and continuation in turn


@dataclass(frozen=True)
class Task:
    """One of our protocols, `ours` being a pattern of "task/protocol", as lm-eval has it.

    `theirs` makes a pattern of lm-eval's task names from the match; they may be several, which are parts of ours.
    `doc` and `examples` name a document of either side by its text; `asked` are the texts that we score for it.
    Examples are those of one document, mostly one. `columns` are read from a sample.
    """

    ours: str
    theirs: Callable[[re.Match[str]], str]
    doc: Callable[[Doc], str]
    examples: Callable[[Sequence[Example]], str]
    asked: Callable[[Sequence[Example]], Asked]
    columns: Mapping[str, Callable[[Sample], float]]
    by_document: bool = False


def task_of(key: str) -> tuple[Task, str] | None:
    """Return the task that "task/protocol" is of lm-eval's, with a pattern of its names there; None: it has none."""
    for task in LM_EVAL_TASKS:
        if match := re.fullmatch(task.ours, key):
            return task, task.theirs(match)
    return None


def _text(examples: Sequence[Example]) -> str:
    return str(examples[0].fields[0])


def _last_word(examples: Sequence[Example]) -> Asked:
    context, space, word = _text(examples).rpartition(" ")
    return context, space + word


def _pair_of_doc(doc: Doc) -> str:
    return "\n".join([str(doc["UID"]), str(doc["sentence_good"]), str(doc["sentence_bad"])])


def _pair(examples: Sequence[Example]) -> str:
    return "\n".join([_text(examples), *_two(examples)])


def _sentences(examples: Sequence[Example]) -> Asked:
    return tuple(text for pair in blimp_pairs(examples[0]) for text in pair)


def _premise_of_doc(doc: Doc) -> str:
    return "\n".join([doc["premise"], doc["choice1"], doc["choice2"]])


def _premise(examples: Sequence[Example]) -> str:
    premise, _, choices = examples[0].fields
    return "\n".join([str(premise), *choices])


def _causes(examples: Sequence[Example]) -> Asked:
    return tuple(text for pair in copa_pairs(examples[0]) for text in pair)


def _two(examples: Sequence[Example]) -> tuple[str, ...]:
    return tuple(examples[0].fields[1])


def _ending_of_doc(doc: Doc) -> str:
    return "\n".join([doc["activity_label"], doc["ctx_a"], doc["ctx_b"], *doc["endings"]])


def _ending(examples: Sequence[Example]) -> str:
    activity, first, second, _, endings = examples[0].fields
    return "\n".join([str(activity), str(first), str(second), *endings])


def _endings(examples: Sequence[Example]) -> Asked:
    return tuple(text for pair in harness_pairs(examples[0]) for text in pair)


def _hellaswag(protocol: str, metric: str) -> Task:
    columns = {"correct": lambda sample: sample[metric]}
    return Task(f"hellaswag/{protocol}", lambda match: "hellaswag", _ending_of_doc, _ending, _endings, columns)


def _page(examples: Sequence[Example]) -> list[str]:
    return lm_eval_page([str(one.fields[0]) for one in examples])


_CORRECT: Mapping[str, Callable[[Sample], float]] = {"correct": lambda sample: sample["acc"]}

LM_EVAL_TASKS = (
    Task(
        "lambada/last-word",
        lambda match: "lambada_openai|lambada_standard",
        lambda doc: str(doc["text"]),
        _text,
        _last_word,
        {**_CORRECT, "nll": lambda sample: -sample["perplexity"]},
    ),
    Task("blimp/harness", lambda match: "blimp_.+", _pair_of_doc, _pair, _sentences, _CORRECT),
    Task("copa/lm-eval", lambda match: "copa", _premise_of_doc, _premise, _causes, _CORRECT),
    Task("blimp-(.+)/harness", lambda match: f"blimp_{re.escape(match[1])}", _pair_of_doc, _pair, _sentences, _CORRECT),
    _hellaswag("harness", "acc"),
    _hellaswag("harness-norm", "acc_norm"),
    Task(
        r"wikitext(?:2|103)/documents",
        lambda match: "wikitext",
        lambda doc: str(doc["page"]).strip(),
        lambda examples: "".join(_page(examples)).strip(),
        lambda examples: ("".join(lm_eval_text(_page(examples))),),
        {
            "nll": lambda sample: -sample["word_perplexity"][0],
            "words": lambda sample: sample["word_perplexity"][1],
            "bytes": lambda sample: sample["byte_perplexity"][1],
        },
        by_document=True,
    ),
)
