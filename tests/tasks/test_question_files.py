"""Natural Questions' open form: questions, accepted answers, and the pairs that the model is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptkit.errors import InputError
from gptkit.tasks.benchmarks.question_answering import DEFAULT_FEW_SHOT, natural_questions


def write(path: Path, count: int, prefix: str) -> None:
    rows = [{"question": f"{prefix} {number}", "answer": [f"a{number}", "b"]} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_pairs_come_from_the_train_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "NQ-open.dev.jsonl", 3, "who")
    alone = natural_questions(str(tmp_path))
    assert alone.notes == ("no train file beside it: the model is shown five pairs of gptkit's own",)
    assert alone.examples[2].fields == ("who 2", ("a2", "b"), *map(tuple, zip(*DEFAULT_FEW_SHOT, strict=True)))
    write(tmp_path / "NQ-open.train.jsonl", 9, "when")
    seeded = natural_questions(str(tmp_path / "NQ-open.dev.jsonl"))
    assert seeded.notes == ()
    assert seeded.examples[0].fields[2:] == (tuple(f"when {n}" for n in range(5)), tuple(f"a{n}" for n in range(5)))
    assert seeded.sha256 != alone.sha256  # another context gives other answers


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "who"}', r"no 'answer' here \(keys: 'question'\) .*dev\.jsonl:2"),
        ('{"question": "who", "answer": "me"}', r"'answer' is no list of texts .*dev\.jsonl:2"),
        ('{"question": "who", "answer": []}', r"'answer' is no list of texts .*dev\.jsonl:2"),
        ('{"question": "who", "answer": [null]}', r"'answer' is missing, not a text .*dev\.jsonl:2"),
        ('{"question": "", "answer": ["me"]}', r"the text 'question' is empty .*dev\.jsonl:2"),
        ("who\tme", r"not valid JSON: .*dev\.jsonl:2"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "nq_open_dev.jsonl").write_text(f'{{"question": "who", "answer": ["me"]}}\n{line}\n')
    with pytest.raises(InputError, match=message):
        natural_questions(str(tmp_path))
