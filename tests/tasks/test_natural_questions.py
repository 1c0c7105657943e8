"""Natural Questions' open form: questions, accepted answers, the pairs that the model is shown, what is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptkit.errors import InputError
from gptkit.scoring.protocols import Generated, GeneratedProtocol
from gptkit.tasks.benchmarks.natural_questions import (
    DEFAULT_FEW_SHOT,
    NATURAL_QUESTIONS,
    matches_any,
    natural_questions,
)
from gptkit.text.examples import Example


def write(path: Path, count: int, prefix: str) -> None:
    rows = [{"question": f"{prefix} {number}", "answer": [f"a{number}", "b"]} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_pairs_come_from_the_train_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "NQ-open.dev.jsonl", 3, "who")
    alone = natural_questions(str(tmp_path))
    assert len(alone.examples[0].fields) == len(NATURAL_QUESTIONS.fields)
    assert alone.notes == ("no train file beside it: using five few-shot pairs of gptkit's own",)
    assert alone.examples[2].fields == ("who 2", ("a2", "b"), *map(tuple, zip(*DEFAULT_FEW_SHOT, strict=True)))
    write(tmp_path / "NQ-open.train.jsonl", 9, "when")
    seeded = natural_questions(str(tmp_path / "NQ-open.dev.jsonl"))
    assert seeded.notes == ()
    assert seeded.examples[0].fields[2:] == (tuple(f"when {n}" for n in range(5)), tuple(f"a{n}" for n in range(5)))
    assert seeded.sha256 != alone.sha256  # another context gives other answers


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "who"}', r"no key 'answer' \(keys: 'question'\) .*dev\.jsonl:2"),
        ('{"question": "who", "answer": "me"}', r"'answer' is not a list of strings .*dev\.jsonl:2"),
        ('{"question": "who", "answer": []}', r"'answer' is not a list of strings .*dev\.jsonl:2"),
        ('{"question": "who", "answer": [null]}', r"'answer' is missing .*dev\.jsonl:2"),
        ('{"question": "", "answer": ["me"]}', r"'question' is empty .*dev\.jsonl:2"),
        ("who\tme", r"not valid JSON: .*dev\.jsonl:2"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "nq_open_dev.jsonl").write_text(f'{{"question": "who", "answer": ["me"]}}\n{line}\n')
    with pytest.raises(InputError, match=message):
        natural_questions(str(tmp_path))


def test_an_open_answer_is_right_or_wrong_with_its_confidence() -> None:
    [protocol] = NATURAL_QUESTIONS.protocols
    assert isinstance(protocol, GeneratedProtocol)
    asked = [
        Example(("who sang it", ("The Who", "Who"), ("when", "where"), ("1914", "Paris")), None, "x:1", str(number))
        for number in range(3)
    ]
    assert protocol.prompt(asked[0]) == "Q: when\nA: 1914\nQ: where\nA: Paris\nQ: who sang it\nA:"
    texts = [Generated(" the who\n\nQ:", 0.75), Generated("Queen", 0.5), Generated("", 0.0)]
    items = protocol.items(asked, texts)
    assert items.columns["exact_match"].tolist() == items.columns["correct"].tolist() == [1, 0, 0]
    assert items.columns["confidence"].tolist() == [0.75, 0.5, 0.0]


def test_exact_match_takes_the_nearest_answer() -> None:
    assert matches_any("The Beatles.", ["Wings", "beatles"]) == 1
    assert matches_any("Beatle", ["Wings", "beatles"]) == 0
