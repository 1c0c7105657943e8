"""HellaSwag's row: which of four endings is the real one, in the two styles that published figures are in."""

from __future__ import annotations

import re

from gptkit.scoring.choices import Pair, choice_protocol, per_character, per_token, total
from gptkit.scoring.protocols import Evaluation, Published
from gptkit.tasks.hellaswag_files import hellaswag
from gptkit.text.examples import Example

_FIGURES = {"GPT-2 117M": 0.294463, "GPT-2 345M": 0.375224, "GPT-2 762M": 0.431986, "GPT-2 1542M": 0.488946}
_COMPLETION = tuple(Published(model, "accuracy", value, "karpathy/build-nanogpt") for model, value in _FIGURES.items())
_HARNESS = (
    Published("GPT-2 117M", "accuracy", 0.3114, "lm-evaluation-harness, acc_norm"),
    Published("GPT-2 1542M", "accuracy", 0.5089, "lm-evaluation-harness, acc_norm"),
)


def completion_pairs(example: Example) -> list[Pair]:
    """Return the context, and each ending after a space."""
    context, endings = example.fields[3:]
    return [(str(context), f" {ending}") for ending in endings]


def harness_pairs(example: Example) -> list[Pair]:
    """Return the activity and the context without the marks of WikiHow, and each ending likewise after a space."""
    activity, first, second, _, endings = example.fields
    context = _clean(f"{activity}: {first} {str(second).capitalize()}")
    return [(context, f" {_clean(ending)}") for ending in endings]


def _clean(text: str) -> str:
    """Return a text as lm-eval's hellaswag has it: [title] ends a sentence, other brackets go, spaces are single."""
    sentences = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", sentences).replace("  ", " ")


_CLEANED = "after the activity and the context, marks in brackets removed (lm-eval's hellaswag): "

HELLASWAG = Evaluation(
    "hellaswag",
    "how a description of everyday events goes on",
    "hellaswag_val.jsonl of github.com/rowanz/hellaswag (data/)",
    hellaswag,
    (
        choice_protocol(
            "completion",
            "the ending after the context as it is, the mean over its tokens (build-nanogpt)",
            completion_pairs,
            per_token,
            choices=4,
            published=_COMPLETION,
        ),
        choice_protocol(
            "harness",
            f"{_CLEANED}the sum over the ending, the first of a tie (acc)",
            harness_pairs,
            total,
            choices=4,
            ties="first",
        ),
        choice_protocol(
            "harness-norm",
            f"{_CLEANED}the sum over the ending by its length in characters, the first of a tie (acc_norm)",
            harness_pairs,
            per_character,
            choices=4,
            ties="first",
            published=_HARNESS,
        ),
    ),
    size=10042,
    texts=lambda example: (str(example.fields[3]), *example.fields[4]),
)
