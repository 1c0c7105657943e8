"""Translation: hand-worked statistics of BLEU, whose sums are a corpus's score, and what the model is shown."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gptkit.scoring.measures import measure
from gptkit.scoring.protocols import Generated, GeneratedProtocol
from gptkit.scoring.resampling import BLEU_COLUMNS
from gptkit.tasks.benchmarks.wmt14 import bleu_columns
from gptkit.tasks.table import EVALUATIONS
from gptkit.text.examples import Example


def row(translation: str, reference: str) -> list[float]:
    columns = bleu_columns([translation], [reference])
    return [float(columns[name][0]) for name in BLEU_COLUMNS]


def test_statistics_by_hand() -> None:
    # the, cat: clipped to one each; "the cat" once of three pairs; nothing longer
    assert row("the cat the cat", "the cat sat on mat") == [2, 1, 0, 0, 4, 3, 2, 1, 4, 5]
    # 13a takes punctuation off words but leaves 3.5 whole; case counts
    assert row("Le prix : 3.5, dit-il.", "le prix : 3.5, dit-il.") == [6, 5, 4, 3, 7, 6, 5, 4, 7, 7]
    assert row("", "le prix") == [0, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_their_sums_are_the_corpus_score() -> None:
    from sacrebleu.metrics import BLEU

    random = np.random.default_rng(0)
    words = np.array(["le", "la", "chat", "chien", ",", "dort", "mange", ".", "vite", "bien"])
    references = [" ".join(random.choice(words, 12)) for _ in range(40)]
    translations = [" ".join(one.split()[: random.integers(4, 12)]) for one in references]
    sums = {name: float(column.sum()) for name, column in bleu_columns(translations, references).items()}
    precisions = [math.log(sums[f"bleu_matches_{n}"] / sums[f"bleu_totals_{n}"]) for n in (1, 2, 3, 4)]
    brevity = min(0.0, 1 - sums["bleu_reference_length"] / sums["bleu_length"])
    expected = BLEU(tokenize="13a").corpus_score(translations, [references]).score
    assert 100 * math.exp(sum(precisions) / 4 + brevity) == pytest.approx(expected)


def test_bleu_needs_white_space_between_words() -> None:
    [protocol] = EVALUATIONS["wmt14-en-fr"].protocols
    assert isinstance(protocol, GeneratedProtocol)
    one = Example(("How are you?", "你今天好吗？", ("Yes.",), ("是。",)), None, "x:1", "d 1")
    found = measure(protocol.measures, protocol.items([one], [Generated("你今天好吗？", math.nan)]))["bleu"]
    assert (found["value"], found["reason"][:45]) == (None, "white space separates only 1 of the 5 Unicode")


def test_example_pairs_go_before_the_sentence_and_one_sentence_is_scored() -> None:
    [protocol] = EVALUATIONS["wmt14-en-fr"].protocols
    assert isinstance(protocol, GeneratedProtocol)
    one = Example(("How are you?", "Comment allez-vous ?", ("Yes.", "No."), ("Oui.", "Non.")), None, "x:1", "d 1")
    assert protocol.prompt(one) == "Yes. = Oui.\nNo. = Non.\nHow are you? ="
    items = protocol.items([one], [Generated(" Comment allez-vous ? Bien. Merci.", math.nan)])
    assert items.columns["bleu_length"].tolist() == [3]
    assert items.columns["bleu_matches_3"].tolist() == [1]
