"""HellaSwag: which of four endings is the real one, scored in the two ways in which figures are published.

Reads the authors' validation set, hellaswag_val.jsonl.
"""

from __future__ import annotations

import re

from gptkit.errors import InputError
from gptkit.scoring.choices import ChoiceProtocol, Pair, per_character, per_token
from gptkit.scoring.protocols import Published
from gptkit.tasks.files import cells, checked_text, find_files, open_table
from gptkit.tasks.task import Evaluation, Loaded, loaded
from gptkit.text.examples import Example

_CONTEXT = ("activity_label", "ctx_a", "ctx_b", "ctx")
_ENDINGS = 4
_FIGURES = {"GPT-2 117M": 0.294463, "GPT-2 345M": 0.375224, "GPT-2 762M": 0.431986, "GPT-2 1542M": 0.488946}
_COMPLETION = tuple(Published(model, "accuracy", value, "karpathy/build-nanogpt") for model, value in _FIGURES.items())
_HARNESS = (
    Published("GPT-2 117M", "accuracy", 0.3114, "lm-evaluation-harness, acc_norm"),
    Published("GPT-2 1542M", "accuracy", 0.5089, "lm-evaluation-harness, acc_norm"),
)


def hellaswag(data: str | None) -> Loaded:
    """Return the labelled examples: fields = (activity, both parts of the context, the context, four endings)."""
    [path] = find_files("hellaswag", data, [("hellaswag_val.jsonl",)], source="github.com/rowanz/hellaswag, data/")
    examples = []
    for number, (where, row) in enumerate(open_table(path, "jsonl").rows):
        *texts, endings, label = cells(row, where, *_CONTEXT, "endings", "label")
        for key, text in zip(_CONTEXT, texts, strict=True):
            if (key, text) != ("ctx_b", ""):  # where the context is one sentence
                checked_text(text, key, where)
        if not isinstance(endings, list) or len(endings) != _ENDINGS:
            raise InputError("the endings are not a list of 4 strings", where=where, fix="fetch the file again")
        choices = tuple([checked_text(ending, f"ending {i + 1}", where) for i, ending in enumerate(endings)])
        if type(label) not in (int, str) or str(label) not in map(str, range(_ENDINGS)):
            raise InputError(f"unknown label {label!r}", where=where, fix="write 0 to 3; the test set has no labels")
        examples.append(Example((*texts, choices), int(label), where, str(number)))
    return loaded(examples)


def completion_pairs(example: Example) -> list[Pair]:
    """Return the context, and each ending after a space."""
    context, endings = example.fields[3:]
    return [(str(context), f" {ending}") for ending in endings]


def harness_pairs(example: Example) -> list[Pair]:
    """Return the activity and the context, and each ending after a space, all without WikiHow's markup."""
    activity, first, second, _, endings = example.fields
    context = _clean(f"{activity}: {first} {str(second).capitalize()}")
    return [(context, f" {_clean(ending)}") for ending in endings]


def _clean(text: str) -> str:
    """Return a text as in lm-eval's hellaswag: [title] ends a sentence, other brackets and double spaces go."""
    sentences = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", sentences).replace("  ", " ")


_CLEANED = "the ending's log-probability after activity and context without bracketed markup (lm-eval's hellaswag)"
_TIES = "ties go to the first ending"
_PROTOCOLS = (
    ChoiceProtocol(
        "completion",
        "the ending's mean log-probability per token after the context, both unchanged (build-nanogpt)",
        published=_COMPLETION,
        chance=1 / 4,
        pairs=completion_pairs,
        score=per_token,
    ),
    ChoiceProtocol(
        "harness", f"{_CLEANED}; not divided (acc); {_TIES}", chance=1 / 4, pairs=harness_pairs, ties="first"
    ),
    ChoiceProtocol(
        "harness-norm",
        f"{_CLEANED}; divided by its length in characters (acc_norm); {_TIES}",
        published=_HARNESS,
        chance=1 / 4,
        pairs=harness_pairs,
        score=per_character,
        ties="first",
    ),
)
HELLASWAG = Evaluation(
    "hellaswag",
    hellaswag,
    _PROTOCOLS,
    texts=lambda example: (str(example.fields[3]), *example.fields[4]),
    fields=("activity", "context a", "context b", "context", "ending"),
    usual="harness-norm",
)

BENCHMARKS = (HELLASWAG,)
