"""BLiMP's rows: is the acceptable sentence of a minimal pair the likelier one? All sets, or one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gptkit.errors import UsageError, suggest
from gptkit.scoring.choices import Pair, choice_protocol, total
from gptkit.scoring.protocols import Evaluation, Published
from gptkit.tasks.blimp_files import PHENOMENON_OF, blimp
from gptkit.text.examples import Example

_SOURCE = "BLiMP paper, table 3 as corrected in its repository"
_FIGURES = {"GPT-2 762M": 0.830, "Transformer-XL": 0.696, "LSTM": 0.698, "5-gram": 0.612}
_PUBLISHED = tuple(Published(model, "accuracy", value, _SOURCE) for model, value in _FIGURES.items())
_DATA = "<set>.jsonl of github.com/alexwarstadt/blimp (data/)"
_ABOUT = (
    "the whole sentence after the separator of documents, the sum over its tokens; a tie is wrong (7 pairs are alike)"
)
_HARNESS = "the same with a space before the sentence, and a tie is right, as in lm-eval's blimp"


def _pairs(example: Example) -> list[Pair]:
    return [("", sentence) for sentence in example.fields[1]]


def harness_pairs(example: Example) -> list[Pair]:
    """Return both sentences after a space: lm-eval sets one between a context, here an empty one, and each choice."""
    return [("", f" {sentence}") for sentence in example.fields[1]]


def _groups(examples: Sequence[Example]) -> Mapping[str, tuple[str, ...]]:
    sets = tuple(str(one.fields[0]) for one in examples)
    return {"phenomenon": tuple(PHENOMENON_OF[name] for name in sets), "set": sets}


BLIMP = Evaluation(
    "blimp",
    "which sentence of a minimal pair is acceptable English",
    _DATA,
    blimp,
    (
        choice_protocol("sum", _ABOUT, _pairs, total, choices=2, published=_PUBLISHED, groups=_groups),
        choice_protocol("harness", _HARNESS, harness_pairs, total, choices=2, ties="first", groups=_groups),
    ),
    size=67_000,
    texts=lambda example: tuple(example.fields[1]),
)


def blimp_set(name: str) -> Evaluation:
    """Return the row of one set, named blimp-<set>; UsageError with the nearest known name."""
    chosen = name.removeprefix("blimp-")
    if chosen not in PHENOMENON_OF:
        raise UsageError(f"BLiMP has no set {chosen!r}", where="--task", fix=suggest(chosen, PHENOMENON_OF))
    return Evaluation(
        f"blimp-{chosen}",
        f"BLiMP's set {chosen} ({PHENOMENON_OF[chosen]})",
        _DATA,
        lambda data: blimp(data, only=chosen),
        (
            choice_protocol("sum", _ABOUT, _pairs, total, choices=2),
            choice_protocol("harness", _HARNESS, harness_pairs, total, choices=2, ties="first"),
        ),
        size=1000,
        texts=BLIMP.texts,
    )
