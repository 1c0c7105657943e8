"""The table of tasks, and finding a split's files."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from gptkit.errors import InputError, UsageError
from gptkit.tasks.reading import hub_examples, load_examples
from gptkit.tasks.table import TASKS, find_task
from gptkit.tasks.task import FORMAT_FIELDS, Task
from gptkit.text.examples import Example


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_row_holds_together(task: Task) -> None:
    sources = [source for forms in task.splits.values() for source in forms]
    assert (task.target == "class") == bool(task.labels)
    assert (task.target == "choice") == (task.format == "multiple-choice") == (task.choices is not None)
    assert ("score" in task.target) == (task.score_range is not None)
    assert bool(sources) != task.is_demo
    assert set(task.sizes) == (set() if task.is_demo else set(task.splits))
    for source in sources:
        assert source.columns is not None
        assert len(source.columns.fields) == len(FORMAT_FIELDS[task.format])
        assert len(source.columns.labels) in (0, len(task.labels) or task.choices)
        assert set(source.columns.fields) <= set(source.header) or not source.header
    if task.hub is not None:
        assert set(task.hub.splits) == set(task.splits)
    if task.published is not None:
        assert task.published.measure == task.metrics[0]
        assert "table" in task.published.source


def test_the_figures_are_those_of_the_paper() -> None:
    figures = {name: round(100 * task.published.value, 1) for name, task in TASKS.items() if task.published}
    nli = {"mnli": 82.1, "snli": 89.9, "scitail": 88.3, "qnli": 88.1, "rte": 56.0}
    choices = {"story-cloze": 86.5, "race-middle": 62.9, "race-high": 57.4, "race": 59.0}
    others = {"cola": 45.4, "sst2": 91.3, "mrpc": 82.3, "stsb": 82.0, "stsb-soft": 82.0, "qqp": 70.3}
    assert figures == nli | choices | others
    ablation = [TASKS[name].ablation for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")]
    for variant, average in (("full", 74.7), ("no_pretraining", 59.9), ("no_aux", 75.0)):
        values = [row[variant] for row in ablation]
        assert sum(values) / 8 == pytest.approx(average, abs=0.06)


def test_the_real_files_have_the_published_counts(test_data: Path) -> None:
    for name in ("rte", "cola", "stsb", "stsb-soft"):
        task = TASKS[name]
        for split, count in task.sizes.items():
            loaded = load_examples(task, split, test_data / "tasks")
            assert len(loaded.examples) == count
            assert loaded.notes == ()
            labels = {one.label for one in loaded.examples}
            assert labels == {None} if split == "test" and task.labels else None not in labels
    rte = load_examples(TASKS["rte"], "dev", test_data / "tasks" / "RTE").examples
    assert (rte[0].label, rte[1].label, rte[0].identifier) == (1, 0, "0")
    assert rte[1].fields[1] == "Bacteria is winning the war against antibiotics."
    assert rte[0].where.endswith("RTE/dev.tsv:2")
    soft = load_examples(TASKS["stsb-soft"], "dev", test_data / "tasks")
    assert soft.sha256 == load_examples(TASKS["stsb"], "dev", test_data / "tasks").sha256


def test_a_folder_is_searched_in_any_case_and_the_error_lists_what_was_looked_for(tmp_path: Path) -> None:
    task, text = TASKS["rte"], "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n"
    with pytest.raises(InputError, match="no such file or folder"):
        load_examples(task, "train", tmp_path / "none")
    with pytest.raises(InputError, match=r"looked for train\.tsv, train\.jsonl\|\.csv.* rte/ .*found nothing"):
        load_examples(task, "train", tmp_path)
    inside = tmp_path / "Rte" / "TRAIN.TSV"
    inside.parent.mkdir()
    inside.write_text(text)
    [example] = load_examples(task, "train", tmp_path).examples
    assert example.where == f"{inside}:2"
    (tmp_path / "train.csv").write_text("premise,hypothesis,label\nc,d,1\n")
    [nearer] = load_examples(task, "train", tmp_path).examples
    assert (nearer.fields, nearer.label) == (("c", "d"), 1)
    for name in ("Train.tsv", "tRain.tsv"):
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="both match"):
        load_examples(task, "train", tmp_path)


def test_what_cannot_be_asked_for_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'scitail'"):
        find_task("scitial")
    with pytest.raises(UsageError, match=re.escape("no split 'train' (--task breaking-nli) - use test")):
        load_examples(TASKS["breaking-nli"], "train", tmp_path)
    with pytest.raises(UsageError, match=r"\(--data\) - pass --data DIR, .* or --data hf: for hf:nyu-mll/glue:rte"):
        load_examples(TASKS["rte"], "train", None)
    with pytest.raises(UsageError, match="story-cloze is not on the hub"):
        load_examples(TASKS["story-cloze"], "train", Path("hf:"))
    with pytest.raises(InputError, match="forbids network access"):
        load_examples(TASKS["rte"], "train", Path("hf:"))


def test_demo_tasks_need_no_data() -> None:
    made = (Example(("a", "", ("b", "c")), 1, "module.function", "0"),)
    task = dataclasses.replace(TASKS["demo-cloze"], make={"dev": made}.__getitem__)
    assert load_examples(task, "dev", None).examples == made


def test_the_hub_gives_the_same_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset, load_dataset

    rows = {"sentence1": ["a", "c"], "sentence2": ["b", "d"], "label": [0, 1], "idx": [7, 8]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "rte.parquet")
    asked = []

    def load(*named: object, split: str) -> object:
        asked.append((*named, split))
        return load_dataset("parquet", data_files=str(tmp_path / "rte.parquet"), split="train", cache_dir=str(tmp_path))

    probed: list[str] = []
    monkeypatch.setattr("gptkit.system.hub.require_hub", probed.append)
    monkeypatch.setattr("datasets.load_dataset", load)
    examples, notes = hub_examples(TASKS["rte"], "dev", "hf:")
    assert asked == [("nyu-mll/glue", "rte", "validation")]
    assert probed == ["hf:nyu-mll/glue:rte"]
    assert [(one.fields, one.label, one.identifier) for one in examples] == [(("a", "b"), 0, "7"), (("c", "d"), 1, "8")]
    assert examples[1].where == "hf:nyu-mll/glue:rte validation:2"
    assert notes == []

    def broken(*_: object, **__: object) -> object:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("datasets.load_dataset", broken)
    with pytest.raises(InputError, match="cannot be read: no route") as refusal:
        hub_examples(TASKS["rte"], "dev", "hf:my/rte")
    assert refusal.value.where == "hf:my/rte"
