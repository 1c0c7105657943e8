"""Summaries after TL;DR: (GPT-2 paper, section 3.6) and the paper's two baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gptkit.scoring.protocols import Evaluation, Generated, GeneratedProtocol, Items, Published, RuleProtocol
from gptkit.scoring.sentences import sentences
from gptkit.tasks.cnn_dailymail_files import cnn_dailymail
from gptkit.tasks.rouge import rouge_columns
from gptkit.text.examples import Example

KEPT_SENTENCES = 3
HINT = "\nTL;DR:"
MEASURES = ("rouge", "rouge1", "rouge2", "rougeL")
_SCORED = "ROUGE F1 with Porter's stemmer, ROUGE-L over sentences; their mean is what counts"
_RANDOM_THREE = 0.2098


def _published(model: str, *values: float) -> tuple[Published, ...]:
    source = "Radford et al. 2019, table 4"
    return tuple(Published(model, *pair, source) for pair in zip(MEASURES, values, strict=True))


def _article(example: Example) -> str:
    return str(example.fields[0])


def _with_hint(example: Example) -> str:
    return _article(example) + HINT


def _written(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    return _items(examples, [sentences(one.text)[:KEPT_SENTENCES] for one in texts])


def _first_three(examples: Sequence[Example]) -> Items:
    return _items(examples, [sentences(_article(one))[:KEPT_SENTENCES] for one in examples])


def _random_three(examples: Sequence[Example]) -> Items:
    return _items(examples, [_drawn(_article(one), number) for number, one in enumerate(examples)])


def _drawn(article: str, number: int) -> list[str]:
    """Return three sentences of an article in its order, drawn by the article's number."""
    every = sentences(article)
    kept = np.random.default_rng([0, number]).permutation(len(every))[:KEPT_SENTENCES]
    return [every[place] for place in sorted(kept)]


def _items(examples: Sequence[Example], summaries: Sequence[Sequence[str]]) -> Items:
    references = [[line for line in str(one.fields[1]).splitlines() if line.strip()] for one in examples]
    return Items(tuple(one.identifier for one in examples), rouge_columns(summaries, references))


def _from_model(name: str, about: str, prompt: Callable[[Example], str], *values: float) -> GeneratedProtocol:
    return GeneratedProtocol(
        name,
        f"{about}, 100 tokens drawn from the 2 likeliest, the first 3 sentences kept; {_SCORED}",
        MEASURES,
        published=_published("GPT-2 1542M", *values),
        chance=_RANDOM_THREE,
        prompt=prompt,
        items=_written,
        options={"top_k": 2, "max_new_tokens": 100},
    )


def _from_article(name: str, about: str, items: Callable[[Sequence[Example]], Items], *values: float) -> RuleProtocol:
    published = _published(name, *values)
    about = f"{about}, no model; {_SCORED}"
    return RuleProtocol(name, about, MEASURES, published=published, chance=_RANDOM_THREE, items=items)


CNN_DM = Evaluation(
    name="cnn-dm",
    about="summaries of CNN and Daily Mail articles",
    data="test-00000-of-00001.parquet of cnn_dailymail 3.0.0, or the authors' stories with all_test.txt",
    load=cnn_dailymail,
    protocols=(
        _from_model("tldr", "the article, then TL;DR:", _with_hint, 0.2140, 0.2934, 0.0827, 0.2658),
        _from_model("no-hint", "the article alone", _article, 0.1503, 0.2158, 0.0403, 0.1947),
        _from_article("lead-3", "the article's first 3 sentences", _first_three, 0.3155, 0.4038, 0.1766, 0.3662),
        _from_article("random-3", "3 random sentences of the article", _random_three, 0.2098, 0.2878, 0.0863, 0.2552),
    ),
    size=11_490,
    texts=lambda example: (str(example.fields[0]), str(example.fields[1])),
)
