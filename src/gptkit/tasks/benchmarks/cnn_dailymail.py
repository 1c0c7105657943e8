"""CNN/Daily Mail: summarization after TL;DR: (GPT-2 paper, section 3.6), and the paper's two baselines.

Reads the test articles with their highlights from the hub's files, or from the authors' stories.

    test*.parquet, test*.jsonl    one article per row: `article`, `highlights` (one sentence per line), optionally `id`
    all_test.txt                  one URL per line; its story is cnn/stories/SHA1(URL).story, or in dailymail/stories

A story is the article, one paragraph per line, then a line `@highlight` before each highlight.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gptkit.errors import InputError
from gptkit.scoring.measures import ROUGE
from gptkit.scoring.protocols import Column, Generated, GeneratedProtocol, Items, Published, RuleProtocol
from gptkit.scoring.written_answers import import_extra, sentences
from gptkit.tasks.files import find_files, lines, open_rows, refuse_duplicate_ids, text_cells
from gptkit.tasks.task import Evaluation, KeyedRows, Loaded, loaded
from gptkit.text.examples import Example
from gptkit.text.words import RULE, words_of

FILES = (("test*.parquet",), ("test*.jsonl",), ("all_test.txt",), ("url_lists/all_test.txt",))
STORY_FOLDERS = (".", "cnn/stories", "dailymail/stories", "stories", "cnn_stories", "dailymail_stories")
KEPT_SENTENCES = 3
HINT = "\nTL;DR:"
_HIGHLIGHT = "@highlight"
_SCORED = "ROUGE F1 with Porter stemming, ROUGE-L at summary level; the score is their mean"
_RANDOM_THREE = 0.2098


def cnn_dailymail(data: str | None) -> Loaded:
    """Return the examples, fields = (article, highlights), in the order of their file.

    UsageError without data; InputError, with file and line, for bad files.
    """
    [path] = find_files("cnn-dm", data, FILES, source="cnn_dailymail 3.0.0 of the hub, or the authors' stories")
    fix = "pass a .parquet or .jsonl with article and highlights, or all_test.txt beside the stories"
    examples = list(_stories(path) if path.suffix.lower() == ".txt" else _rows(open_rows(path, fix=fix)))
    if not examples:
        raise InputError("no article in this file", where=f"{path}:1", fix="fetch it again")
    refuse_duplicate_ids(examples)
    return loaded(examples)


def _rows(rows: KeyedRows) -> Iterator[Example]:
    for number, (where, row) in enumerate(rows):
        fields = tuple(text_cells(row, where, "article", "highlights"))
        yield Example(fields, None, where, str(row.get("id", number)))


def _stories(listed: Path) -> Iterator[Example]:
    root = listed.parent.parent if listed.parent.name == "url_lists" else listed.parent
    for where, url in lines(listed):
        name = hashlib.sha1(url.strip().encode()).hexdigest()
        path = next((file for folder in STORY_FOLDERS if (file := root / folder / f"{name}.story").is_file()), None)
        if path is None:
            fix = f"put {name}.story into {root}/cnn/stories or {root}/dailymail/stories"
            raise InputError("no story for this URL", where=where, fix=fix)
        yield Example(_story(path), None, f"{path}:1", name)


def _story(path: Path) -> tuple[str, str]:
    """Return a story's article and highlights, with one paragraph or highlight per line."""
    article: list[str] = []
    highlights: list[str] = []
    part = article
    for _, line in lines(path):
        text = line.strip()
        if text == _HIGHLIGHT:
            part = highlights
        elif text:
            part.append(text)
    for name, texts in (("article", article), (_HIGHLIGHT, highlights)):
        if not texts:
            raise InputError(f"this story has no {name}", where=f"{path}:1", fix="fetch it again, or drop its URL")
    return "\n".join(article), "\n".join(highlights)


def _published(model: str, *values: float) -> tuple[Published, ...]:
    source = "GPT-2 paper, table 4"
    return tuple(Published(model, *pair, source) for pair in zip(ROUGE, values, strict=True))


class UnicodeWords:
    """A tokenizer of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(text.lower())


def uncounted(references: Sequence[Sequence[str]]) -> str:
    """Return why ROUGE, which reads a to z and 0 to 9 alone, is not defined for references; empty if it is."""
    text = "\n".join(line for reference in references for line in reference).lower()
    counted, letters = len(re.findall("[a-z0-9]", text)), sum(map(str.isalnum, text))
    if 5 * counted > 4 * letters:  # in French about one letter in twenty has an accent, in Vietnamese one in three
        return ""
    seen = f"ROUGE reads only a to z and 0 to 9, {counted:,} of the references' {letters:,} letters and digits"
    return f"{seen}; unicode rouge compares {RULE}"


def rouge_columns(
    summaries: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenizer: UnicodeWords | None = None
) -> dict[str, Column]:
    """Return the mean of F1 (0 to 1) of ROUGE-1, ROUGE-2 and ROUGE-L, and each of them, each (item,).

    Summaries and references are lists of sentences. Words are Porter-stemmed runs of a to z and 0 to 9, unless another
    `tokenizer` finds them. ROUGE-L is at summary level, a union over sentences (Lin 2004, section 3.2), as in the
    papers' tables; rouge-score calls it rougeLsum.
    """
    kinds = ["rouge1", "rouge2", "rougeLsum"]
    scorer = import_extra("rouge_score.rouge_scorer", "rouge-score").RougeScorer(kinds, True, tokenizer=tokenizer)
    rows = []
    for summary, reference in zip(summaries, references, strict=True):
        scores = scorer.score("\n".join(reference), "\n".join(summary))
        rows.append([scores[name].fmeasure for name in kinds])
    table = np.array(rows, dtype=np.float64).reshape(-1, len(kinds))  # (item, kind)
    return dict(zip(ROUGE, [table.mean(axis=1), *table.T], strict=True))


def _article(example: Example) -> str:
    return str(example.fields[0])


def _with_hint(example: Example) -> str:
    return _article(example) + HINT


def _written(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    return _items(examples, [sentences(text.text)[:KEPT_SENTENCES] for text in texts])


def _first_three(examples: Sequence[Example]) -> Items:
    return _items(examples, [sentences(_article(example))[:KEPT_SENTENCES] for example in examples])


def _random_three(examples: Sequence[Example]) -> Items:
    """Score three random sentences of each article, in its order, with the article's number as the seed."""
    drawn = []
    for number, example in enumerate(examples):
        every = sentences(_article(example))
        kept = np.random.default_rng([0, number]).permutation(len(every))[:KEPT_SENTENCES]
        drawn.append([every[place] for place in sorted(kept)])
    return _items(examples, drawn)


def _items(examples: Sequence[Example], summaries: Sequence[Sequence[str]]) -> Items:
    references = [[line for line in str(example.fields[1]).splitlines() if line.strip()] for example in examples]
    columns, undefined = rouge_columns(summaries, references), {}
    if reason := uncounted(references):
        undefined = dict.fromkeys(ROUGE, reason)
        by_unicode = rouge_columns(summaries, references, UnicodeWords())
        columns |= {f"unicode_{name}": column for name, column in by_unicode.items()}
    return Items(tuple(example.identifier for example in examples), columns, undefined=undefined)


def _from_model(name: str, about: str, prompt: Callable[[Example], str], *values: float) -> GeneratedProtocol:
    return GeneratedProtocol(
        name,
        f"100 tokens by top-k sampling (k = 2) after {about}, of which the first 3 sentences count; {_SCORED}",
        ROUGE,
        published=_published("GPT-2 1542M", *values),
        chance=_RANDOM_THREE,
        prompt=prompt,
        items=_written,
        options={"top_k": 2, "max_new_tokens": 100},
    )


def _from_article(name: str, about: str, items: Callable[[Sequence[Example]], Items], *values: float) -> RuleProtocol:
    published = _published(name, *values)
    about = f"{about}, without a model; {_SCORED}"
    return RuleProtocol(name, about, ROUGE, published=published, chance=_RANDOM_THREE, items=items)


CNN_DM = Evaluation(
    "cnn-dm",
    cnn_dailymail,
    (
        _from_model("tldr", "the article and TL;DR:", _with_hint, 0.2140, 0.2934, 0.0827, 0.2658),
        _from_model("no-hint", "only the article", _article, 0.1503, 0.2158, 0.0403, 0.1947),
        _from_article("lead-3", "the article's first 3 sentences", _first_three, 0.3155, 0.4038, 0.1766, 0.3662),
        _from_article("random-3", "3 random sentences of the article", _random_three, 0.2098, 0.2878, 0.0863, 0.2552),
    ),
    texts=lambda example: (str(example.fields[0]), str(example.fields[1])),
    fields=("article", "highlights"),
)

BENCHMARKS = (CNN_DM,)
