"""The Children's Book Test's rows: which candidate makes the likeliest sentence after twenty others?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gptkit.scoring.choices import Pair, choice_protocol, label_of, total
from gptkit.scoring.protocols import Evaluation, Published
from gptkit.tasks.cbt_files import BLANK, cbt
from gptkit.tasks.detokenizers import detokenize_ptb
from gptkit.text.examples import Example

_MODELS = ("GPT-2 117M", "GPT-2 345M", "GPT-2 762M", "GPT-2 1542M", "best published before GPT-2")
_PAPER = {"CN": (0.8765, 0.9235, 0.9345, 0.9330, 0.857), "NE": (0.834, 0.871, 0.880, 0.8905, 0.823)}
_KINDS = {"CN": "common noun", "NE": "named entity", "V": "verb", "P": "preposition"}
_ABOUT = "P(candidate) x P(rest of the sentence | candidate) after the 20 sentences, on the validation split"


def cbt_pairs(example: Example, write: Callable[[str], str]) -> list[Pair]:
    """Return for each candidate what comes before the blank, and the candidate with the rest of its sentence.

    `write` makes written text of Treebank tokens. What it takes off the text before the blank because of a candidate
    ("do" and "n't") belongs to every continuation.
    """
    sentences, question, candidates = example.fields
    before = write(str(question)[: str(question).index(BLANK)])
    filled = [write(str(question).replace(BLANK, candidate)) for candidate in candidates]
    known = _common_start([before, *filled])
    told = "".join(f"{write(sentence)} " for sentence in sentences)
    return [(told + known, sentence[len(known) :]) for sentence in filled]


def _common_start(texts: Sequence[str]) -> str:
    places = enumerate(zip(*texts, strict=False))
    length = next((i for i, characters in places if len(set(characters)) > 1), min(map(len, texts)))
    return texts[0][:length]


def _whole(example: Example) -> tuple[str]:
    sentences, question, candidates = example.fields
    return (" ".join([*sentences, str(question).replace(BLANK, candidates[label_of(example)])]),)


def _as_it_is(text: str) -> str:
    return text


def _row(words: str) -> Evaluation:
    figures = zip(_MODELS, _PAPER.get(words, ()), strict=False)
    published = [Published(model, "accuracy", value, "GPT-2 paper, table 3") for model, value in figures]
    written, raw = partial(cbt_pairs, write=detokenize_ptb), partial(cbt_pairs, write=_as_it_is)
    about = f"{_ABOUT}; Treebank tokens written as text (OpenAI's de-tokenizer was never published)"
    return Evaluation(
        f"cbt-{words.lower()}",
        f"which {_KINDS[words]} is left out of a sentence of a children's book",
        f"cbtest_{words}_valid_2000ex.txt of CBTest.tgz (research.facebook.com)",
        partial(cbt, words=words),
        (
            choice_protocol("gpt2", about, written, total, choices=10, published=published),
            choice_protocol("raw", f"{_ABOUT}; Treebank tokens as they are", raw, total, choices=10),
        ),
        size=2000,
        texts=_whole,
    )


CBT_ROWS = tuple(_row(words) for words in _KINDS)
