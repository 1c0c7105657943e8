from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gptkit.finetune.report import write_predictions
from gptkit.tasks.heads import metrics_of, predictions_of, probabilities_of
from gptkit.tasks.table import TASKS
from gptkit.text.examples import Example

LOG3 = float(np.log(3))


def examples(n: int, label: int | float | None = None, identifier: str = "{}") -> list[Example]:
    return [
        Example(("text", "other"), label, f"test.tsv:{number + 2}", identifier.format(number)) for number in range(n)
    ]


def glue_lines(folder: Path, task: str, logits: list[list[float]], split: str = "test") -> list[str]:
    written = write_predictions(folder, TASKS[task], split, examples(len(logits)), np.array(logits, np.float32))
    assert written[0] == folder / f"predictions-{split}.jsonl"
    assert len(written) == 2
    return written[1].read_text(encoding="utf-8").splitlines()


def test_classes_and_choices_are_the_highest_logit() -> None:
    logits = np.array([[0.0, 1.0], [3.0, -1.0]], np.float32)
    assert predictions_of(TASKS["rte"], logits).tolist() == [1, 0]
    assert predictions_of(TASKS["copa"], logits).tolist() == [1, 0]


def test_scores_stay_in_their_range() -> None:
    logits = np.array([[-0.5], [2.25], [7.0]], np.float32)
    assert predictions_of(TASKS["stsb"], logits).tolist() == [0.0, 2.25, 5.0]


def test_a_soft_score_is_the_mean_of_its_distribution() -> None:
    logits = np.full((2, 6), -1e4, np.float32)
    logits[0, 3], logits[0, 4] = 0.0, LOG3  # 1/4 on 3, 3/4 on 4
    logits[1] = 0.0
    assert predictions_of(TASKS["stsb-soft"], logits) == pytest.approx([3.75, 2.5])


def test_probabilities_do_not_overflow() -> None:
    assert probabilities_of(np.array([[1e4, 1e4 - LOG3]], np.float64))[0] == pytest.approx([0.75, 0.25])


def test_metrics_are_those_of_the_task() -> None:
    logits = np.array([[2, 1], [0, 1], [0, 1], [1, 0]], np.float32)
    assert metrics_of(TASKS["mrpc"], logits, np.array([0, 1, 0, 0])) == {"f1": pytest.approx(2 / 3), "accuracy": 0.75}
    assert metrics_of(TASKS["mrpc"], logits, None) == {}
    assert list(metrics_of(TASKS["cola"], logits, np.array([0, 1, 0, 0]))) == ["matthews", "accuracy"]


def test_metrics_of_soft_scores_compare_the_means() -> None:
    targets = np.array([[1, 0, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 0, 1]], np.float32)
    logits = np.log(targets + 1e-9)
    found = metrics_of(TASKS["stsb-soft"], logits, targets)
    assert found == {"pearson": pytest.approx(1), "spearman": pytest.approx(1)}


def test_lines_name_classes_and_their_probabilities(tmp_path: Path) -> None:
    logits = np.array([[0.0, LOG3], [LOG3, 0.0]], np.float32)
    (path,) = write_predictions(tmp_path, TASKS["rte"], "dev", examples(2, label=1, identifier="r{}"), logits)
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert first["probabilities"] == pytest.approx([0.25, 0.75])
    assert {**first, "probabilities": 0} == {
        "id": "r0",
        "prediction": "not_entailment",
        "label": "not_entailment",
        "probabilities": 0,
        "labels": ["entailment", "not_entailment"],
        "premise": "text",
        "hypothesis": "other",
        "where": "test.tsv:2",
    }
    assert second["prediction"] == "entailment"


def test_an_unlabelled_choice_and_a_score(tmp_path: Path) -> None:
    write_predictions(tmp_path, TASKS["copa"], "test", examples(1), np.array([[0.0, LOG3]], np.float32))
    row = json.loads((tmp_path / "predictions-test.jsonl").read_text(encoding="utf-8"))
    assert (row["prediction"], "label" in row) == (1, False)
    write_predictions(tmp_path, TASKS["stsb"], "dev", examples(1, label=2.5), np.array([[6.0]], np.float32))
    row = json.loads((tmp_path / "predictions-dev.jsonl").read_text(encoding="utf-8"))
    assert row == {
        "id": "0",
        "prediction": 5.0,
        "label": 2.5,
        "first": "text",
        "second": "other",
        "where": "test.tsv:2",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions-dev.jsonl", "predictions-test.jsonl"]


@pytest.mark.parametrize(
    ("task", "spelled"),
    [
        ("rte", ["entailment", "not_entailment"]),
        ("qnli", ["entailment", "not_entailment"]),
        ("cola", ["0", "1"]),
        ("sst2", ["0", "1"]),
        ("mrpc", ["0", "1"]),
        ("qqp", ["0", "1"]),
        ("wnli", ["0", "1"]),
    ],
)
def test_the_server_s_spelling(task: str, spelled: list[str], tmp_path: Path) -> None:
    lines = glue_lines(tmp_path, task, [[1.0, 0.0], [0.0, 1.0]])
    assert lines == ["index\tprediction", f"0\t{spelled[0]}", f"1\t{spelled[1]}"]
    assert (tmp_path / str(TASKS[task].glue_file)).is_file()


def test_mnli_has_two_files(tmp_path: Path) -> None:
    logits = np.eye(3).tolist()
    expected = ["index\tprediction", "0\tentailment", "1\tneutral", "2\tcontradiction"]
    assert glue_lines(tmp_path, "mnli", logits) == glue_lines(tmp_path, "mnli", logits, "test-mismatched") == expected
    assert (tmp_path / "MNLI-m.tsv").read_bytes() == (tmp_path / "MNLI-mm.tsv").read_bytes()


def test_scores_for_the_server_have_three_decimals_within_the_range(tmp_path: Path) -> None:
    assert glue_lines(tmp_path, "stsb", [[-1.0], [2.34567], [9.0]])[1:] == ["0\t0.000", "1\t2.346", "2\t5.000"]


def test_rows_of_another_distribution_are_numbered_for_the_server(tmp_path: Path) -> None:
    rows = examples(2, identifier="108{}-77")
    write_predictions(tmp_path, TASKS["mrpc"], "test", rows, np.array([[0, 1], [1, 0]], np.float32))
    assert (tmp_path / "MRPC.tsv").read_text(encoding="utf-8") == "index\tprediction\n0\t1\n1\t0\n"
