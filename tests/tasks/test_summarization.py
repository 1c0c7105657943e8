"""Summaries: where sentences end, hand-worked ROUGE, and what of a text is scored."""

from __future__ import annotations

import sys

import pytest

from gptkit.errors import UsageError
from gptkit.scoring.measures import measure
from gptkit.scoring.protocols import Generated, GeneratedProtocol, RuleProtocol
from gptkit.scoring.written_answers import sentences
from gptkit.tasks.benchmarks.cnn_dailymail import CNN_DM, rouge_columns
from gptkit.text.examples import Example
from gptkit.text.words import RULE

ARTICLE = 'Mr. Smith of the U.S. Navy left. "He is gone!" she said. The price is 3.5 dollars... Why? Nobody\nknows'
PROTOCOLS = {one.name: one for one in CNN_DM.protocols}


def example(article: str, highlights: str, identifier: str = "0") -> Example:
    return Example((article, highlights), None, "x:1", identifier)


def test_sentences_end_at_marks_and_lines_but_not_after_titles_and_initials() -> None:
    assert sentences(ARTICLE) == [
        "Mr. Smith of the U.S. Navy left.",
        '"He is gone!"',
        "she said.",
        "The price is 3.5 dollars...",
        "Why?",
        "Nobody",
        "knows",
    ]
    assert sentences("It cost approx. five. Then J. K. Rowling came. M. Dupont aussi.") == [
        "It cost approx. five.",
        "Then J. K. Rowling came.",
        "M. Dupont aussi.",
    ]
    assert sentences("他走了。她说：“好！”真的？") == ["他走了。", "她说：“好！”", "真的？"]
    assert sentences(" \n ") == []


def test_rouge_by_hand() -> None:
    columns = rouge_columns([["the cat lay on the mat"]], [["the cat sat on the mat"]])
    assert columns["rouge1"][0] == pytest.approx(5 / 6)
    assert columns["rouge2"][0] == pytest.approx(3 / 5)
    assert columns["rougeL"][0] == pytest.approx(5 / 6)
    assert columns["rouge"][0] == pytest.approx((5 / 6 + 3 / 5 + 5 / 6) / 3)


def test_rouge_stems_words_and_joins_sentences_in_any_order() -> None:
    stemmed = rouge_columns([["Running dogs, 12"]], [["run DOG 12"]])
    assert stemmed["rouge1"][0] == 1
    lines = ["police arrested two men", "a court freed them"]
    swapped = rouge_columns([lines[::-1]], [lines])
    assert swapped["rougeL"][0] == 1  # of summaries; of the texts as one sequence it is 1/2
    assert swapped["rouge2"][0] == pytest.approx(6 / 7)
    assert rouge_columns([[]], [lines])["rouge"][0] == 0


def test_rouge_of_another_script_is_not_zero_but_undefined_beside_that_of_unicode_s_words() -> None:
    protocol = PROTOCOLS["tldr"]
    assert isinstance(protocol, GeneratedProtocol)
    russian = example("Кот спит.", "Кот спит дома.")
    found = measure(protocol.measures, protocol.items([russian], [Generated("Старый кот спит.", float("nan"))]))
    reason = "ROUGE reads only a to z and 0 to 9, 0 of the references' 11 letters and digits; unicode rouge compares "
    reason += RULE
    assert {name: entry.get("reason") for name, entry in found.items() if entry["value"] is None} == dict.fromkeys(
        protocol.measures, reason
    )
    # of three words each, two are the same, one pair of them side by side
    expected = {"rouge1": 2 / 3, "rouge2": 1 / 2, "rougeL": 2 / 3, "rouge": (2 / 3 + 1 / 2 + 2 / 3) / 3}
    values = {name: entry["value"] for name, entry in found.items() if entry["value"] is not None}
    assert values == {f"unicode_{name}": pytest.approx(value) for name, value in expected.items()}
    chinese = example("猫在睡。", "猫在家睡")
    found = measure(protocol.measures, protocol.items([chinese], [Generated("猫在睡", float("nan"))]))
    assert found["unicode_rouge1"]["value"] == pytest.approx(6 / 7)
    french = example("", "Le chat était déjà là, près de la fenêtre où il dort toujours l'après-midi")
    assert measure(["rouge1"], protocol.items([french], [Generated("Le chat", float("nan"))]))["rouge1"]["value"] > 0


def test_three_sentences_of_a_text_are_scored() -> None:
    protocol = PROTOCOLS["tldr"]
    assert isinstance(protocol, GeneratedProtocol)
    one = example("Cats sleep. Dogs bark.", "One two.\nThree four.", "a")
    assert protocol.prompt(one) == "Cats sleep. Dogs bark.\nTL;DR:"
    items = protocol.items([one], [Generated(" One. Two. Three four. One two three four.", float("nan"))])
    assert items.ids == ("a",)
    assert items.columns["rouge1"].tolist() == [1.0]
    no_hint = PROTOCOLS["no-hint"]
    assert isinstance(no_hint, GeneratedProtocol)
    assert no_hint.prompt(one) == "Cats sleep. Dogs bark."


def test_the_baselines_ask_no_model() -> None:
    lead, drawn = PROTOCOLS["lead-3"], PROTOCOLS["random-3"]
    assert isinstance(lead, RuleProtocol)
    assert isinstance(drawn, RuleProtocol)
    article = " ".join(f"Word{number} stands here." for number in range(40))
    same = [example(article, "word0 word1 word2", str(number)) for number in range(8)]
    first = lead.items(same).columns["rouge1"]
    assert first.tolist() == [pytest.approx(2 * 3 / (9 + 3))] * 8  # all 3 words of the highlight in 9
    random = drawn.items(same).columns["rouge1"]
    assert random.mean() < first.mean()
    assert (drawn.items(same[:5]).columns["rouge1"] == random[:5]).all()  # by the article's place alone


def test_a_missing_library_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UsageError, match=r"pip install 'gptkit\[eval\]'"):
        rouge_columns([], [])
