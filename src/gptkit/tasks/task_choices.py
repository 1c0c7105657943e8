"""Rows of labelled tasks without training: GPT-1's heuristics (its section 5) and lm-eval's COPA."""

from __future__ import annotations

from functools import partial

from gptkit.errors import InputError
from gptkit.scoring.choices import Pair, Score, choice_protocol, per_token, total
from gptkit.scoring.protocols import Evaluation, Protocol, Published
from gptkit.tasks.reading import Loaded, load_examples
from gptkit.tasks.table import find_task
from gptkit.text.examples import Example

BEST = "best published before GPT-1"
_CONNECTIVES = {"What was the cause of this?": "because", "What happened as a result?": "therefore"}


def task_row(name: str, split: str, about: str, protocols: tuple[Protocol, ...]) -> Evaluation:
    """Return the evaluation of a split of a task, whose files and hub are the task's own."""
    task = find_task(name)
    return Evaluation(
        name,
        f"{about} ({split})",
        task.data,
        partial(_labelled, name, split),
        protocols,
        size=task.sizes.get(split),
    )


def _labelled(name: str, split: str, data: str | None) -> Loaded:
    """Return the examples, all with a label."""
    loaded = load_examples(find_task(name), split, data)
    unlabelled = next((one for one in loaded.examples if one.label is None), None)
    if unlabelled is not None:
        raise InputError(f"no labels in {name}'s {split}", where=unlabelled.where, fix="give the labelled file")
    return loaded


def ending_pairs(example: Example) -> list[Pair]:
    """Return the context (with the question where there is one), and each choice after a space."""
    context, question, choices = example.fields
    told = f"{context} {question}" if question else str(context)
    return [(told, f" {choice}") for choice in choices]


def copa_pairs(example: Example) -> list[Pair]:
    """Return the premise without its full stop and with because or therefore, and each choice in lower case."""
    premise, question, choices = example.fields
    if question not in _CONNECTIVES:
        fix = f"the question is one of: {' '.join(_CONNECTIVES)}"
        raise InputError(f"unknown question {str(question)[:60]!r}", where=example.where, fix=fix)
    context = f"{str(premise).strip().removesuffix('.')} {_CONNECTIVES[str(question)]}"
    return [(context, f" {choice[0].lower()}{choice[1:]}") for choice in choices]


def sentiment_pairs(example: Example) -> list[Pair]:
    """Return the sentence with ` very`, and the two words that are compared."""
    context = f"{str(example.fields[0]).strip()} very"
    return [(context, " negative"), (context, " positive")]


def _best(accuracy: float, source: str) -> tuple[Published, ...]:
    return (Published(BEST, "accuracy", accuracy, source),)


def _endings(score: Score, name: str, about: str, published: tuple[Published, ...] = ()) -> Protocol:
    return choice_protocol(name, about, ending_pairs, score, choices=2, published=published)


def _race(name: str, best: float) -> Evaluation:
    protocol = choice_protocol(
        "gpt1",
        "the answer after document and question, the mean over its tokens",
        ending_pairs,
        per_token,
        choices=4,
        published=_best(best, "GPT-1 paper, table 3 (9 models together)"),
    )
    return task_row(name, "test", "examination questions on a passage", (protocol,))


_SUM, _MEAN = (
    "the ending after the story, the sum over its tokens",
    "the ending after the story, the mean over its tokens",
)
_STORY_CLOZE = _best(0.776, "GPT-1 paper, table 3")
_STORY = (_endings(total, "sum", _SUM, _STORY_CLOZE), _endings(per_token, "mean", _MEAN, _STORY_CLOZE))
_DEMO = (_endings(total, "sum", _SUM), _endings(per_token, "mean", _MEAN))
_COPA = choice_protocol(
    "lm-eval",
    "the choice after the premise and because or therefore, the sum over its tokens, the first of a tie (lm-eval)",
    copa_pairs,
    total,
    choices=2,
    ties="first",
)
_SST2 = choice_protocol(
    "gpt1",
    "positive or negative, whichever is likelier after the sentence and the word very",
    sentiment_pairs,
    total,
    choices=2,
    published=_best(0.932, "GPT-1 paper, table 4"),
)

TASK_CHOICE_ROWS = (
    task_row("story-cloze", "test", "which of two endings a story of four sentences has", _STORY),
    _race("race", 0.533),
    _race("race-middle", 0.602),
    _race("race-high", 0.503),
    task_row("copa", "dev", "which of two events is the cause or the effect", (_COPA,)),
    task_row("sst2", "dev", "is a sentence of a film review positive", (_SST2,)),
    task_row("demo-cloze", "test", "which of two endings a docstring of the embedded corpus has", _DEMO),
)
