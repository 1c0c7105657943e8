"""The Winograd row: which referent, put in the pronoun's place, makes the likelier sentence?"""

from __future__ import annotations

import re

from gptkit.scoring.choices import Pair, choice_protocol, per_token, total
from gptkit.scoring.protocols import Evaluation, Published
from gptkit.tasks.winograd_files import SIZE, winograd
from gptkit.text.examples import Example

_POSSESSIVE = ("my", "your", "his", "her", "its", "our", "their")
_LOWERED = ("a", "an", "the", *_POSSESSIVE, "he", "she", "it", "they", "this", "that", "these", "those", "some")
_GPT2 = (
    Published("GPT-2 1542M", "accuracy", 0.7070, "GPT-2 paper, section 3.4"),
    Published("best published before GPT-2", "accuracy", 0.637, "Trinh and Le 2018, 14 models together"),
    Published("best published before GPT-1", "accuracy", 0.626, "Trinh and Le 2018, one model of words"),
)


def substituted(example: Example) -> list[str]:
    """Return the referents as they stand in the pronoun's place: a possessive's with 's, a determiner in lower case.

    At the beginning of a sentence the first letter is a capital.
    """
    before, pronoun, after, referents = example.fields
    return [_fitted(referent, str(before), str(pronoun), str(after)) for referent in referents]


def _fitted(referent: str, before: str, pronoun: str, after: str) -> str:
    first, space, others = referent.partition(" ")
    if not before.strip() or re.search(r"""[.!?]["'”]?\s*$""", before):
        referent = referent[0].upper() + referent[1:]
    elif first.lower() in _LOWERED:
        referent = first.lower() + space + others
    return f"{referent}'s" if _owns(pronoun, after) and not referent.endswith("'s") else referent


def _owns(pronoun: str, after: str) -> bool:
    """Return whether the pronoun is a possessive: "her" is none at the end of a clause."""
    return pronoun.lower() in _POSSESSIVE and re.match(r"\s*[\w\"“]", after) is not None


def partial_pairs(example: Example) -> list[Pair]:
    """Return what stands up to the referent, and what follows it."""
    before, _, after, _ = example.fields
    return [(f"{before}{referent}", str(after)) for referent in substituted(example)]


def full_pairs(example: Example) -> list[Pair]:
    """Return what stands before the referent, and the referent with what follows it."""
    before, _, after, _ = example.fields
    return [(str(before), f"{referent}{after}") for referent in substituted(example)]


_ROW = "with the referent in the pronoun's place, the sum over "

WINOGRAD = Evaluation(
    "winograd",
    "whom or what a pronoun stands for: the 273 Winograd schemas",
    "WSCollection.xml of cs.nyu.edu/~davise/papers/WinogradSchemas, or wsc273.jsonl",
    winograd,
    (
        choice_protocol(
            "partial",
            f"{_ROW}what follows it (Trinh and Le; GPT-2)",
            partial_pairs,
            total,
            choices=2,
            published=_GPT2,
        ),
        choice_protocol("full", f"{_ROW}it and what follows it (Trinh and Le)", full_pairs, total, choices=2),
        choice_protocol(
            "gpt1",
            "with the referent in the pronoun's place, the mean over the tokens of what follows it (GPT-1, section 5; "
            "its figure 2 is on another set, Rahman and Ng's)",
            partial_pairs,
            per_token,
            choices=2,
        ),
    ),
    size=SIZE,
    texts=lambda example: ("".join(map(str, example.fields[:3])),),
)
