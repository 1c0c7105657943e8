"""The task that a fine-tuned model carries: what a user's YAML said, and nothing outside the folder of --data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptkit.errors import InputError, UsageError
from gptkit.tasks.own import TASK_FILE, carried_task, read_task, write_task
from gptkit.tasks.table import TASKS, find_task
from gptkit.tasks.task import FORMAT_FIELDS, Task

WORD = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=12).filter(lambda word: word.strip())
FILE = st.sampled_from(["a.csv", "folder/b.tsv", "正面 1.jsonl", "*.PARQUET", "it's.csv"])


def with_fraction(splits: dict[str, str]) -> dict[str, object]:
    """Return splits of which dev, if there is a train to share, is a fraction."""
    return splits | {"dev": 0.25} if splits.keys() >= {"train", "dev"} else {**splits}


def carried(folder: Path, text: str) -> tuple[Task, Task]:
    """Return the task of a YAML text, and what a model carries of it."""
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    task = read_task(folder / "mine.yaml")
    write_task(folder, task)
    found = carried_task(folder)
    assert found is not None
    return task, found


@st.composite
def described(draw: st.DrawFn) -> str:
    """Return a YAML text of a task of any format, with any words."""
    format = draw(st.sampled_from(sorted(FORMAT_FIELDS)))
    values: dict[str, object] = {"name": "mine-1.0", "format": format}
    if format == "multiple-choice":
        values["choices"] = draw(st.integers(2, 9))
    elif draw(st.booleans()):
        values["labels"] = draw(st.lists(WORD, min_size=2, max_size=4, unique=True))
        values["metrics"] = ["matthews", "accuracy"]
    else:
        values["score_range"] = draw(st.tuples(st.floats(-1e9, 0), st.floats(1e-9, 1e9)).map(list))
    columns = {name: draw(st.one_of(WORD, st.lists(WORD, min_size=1, unique=True))) for name in FORMAT_FIELDS[format]}
    optional = {
        "splits": draw(
            st.dictionaries(st.sampled_from(["train", "dev", "test-2"]), FILE, min_size=1).map(with_fraction)
        ),
        "columns": columns | {"label": draw(WORD), "index": draw(WORD)},
        "hub": draw(st.sampled_from(["a/b", "hf:a/b:c"])),
        "data": draw(WORD),
    }
    return yaml.safe_dump(values | {key: value for key, value in optional.items() if draw(st.booleans())})


@given(text=described())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_model_carries_is_what_the_users_file_said(tmp_path: Path, text: str) -> None:
    task, found = carried(tmp_path, text)
    assert found == dataclasses.replace(task, folder=None)
    assert dataclasses.replace(find_task(str(tmp_path / TASK_FILE)), folder=None) == found  # it is a file for --task


def test_a_file_elsewhere_keeps_its_name_alone(tmp_path: Path) -> None:
    splits = "{train: /data/a.csv, dev: ../b.tsv, test: 'C:\\c.jsonl', more: deep/d.csv}"
    _, found = carried(tmp_path, f"format: classification\nlabels: [a, b]\nsplits: {splits}\n")
    assert [source.paths for (source,) in found.splits.values()] == [
        ("a.csv",),
        ("b.tsv",),
        ("c.jsonl",),
        ("deep/d.csv",),
    ]
    assert str(tmp_path) not in (tmp_path / TASK_FILE).read_text()


def test_gptkits_own_tasks_need_no_file(tmp_path: Path) -> None:
    write_task(tmp_path, TASKS["rte"])
    assert carried_task(tmp_path) is None


HOSTILE = [
    ("splits: {dev: /etc/dev.csv}\n", "'/etc/dev.csv' is not inside the folder of --data"),
    ("splits: {dev: ../../dev.csv}\n", "is not inside"),
    ("splits: {dev: 'a\\..\\dev.csv'}\n", "is not inside"),
    ("splits: {dev: 'C:dev.csv'}\n", "is not inside"),
    ("name: ../x\n", "not a valid name for a task"),
    ("labels: !!python/name:os.system x\n", "must not contain tags"),
    ("labels: &a [*a]\n", "must not contain anchors"),
    ("labels: " + "[" * 40 + "]" * 40 + "\n", "nests values too deeply"),
    ("extra: 1\n", "unknown key 'extra'"),
    ("# " + "x" * 1_000_000 + "\n", "larger than 1 MB"),
]


@pytest.mark.parametrize(("line", "says"), HOSTILE)
def test_a_strangers_file_is_refused_in_one_line(tmp_path: Path, line: str, says: str) -> None:
    labels = "" if line.startswith("labels") else "labels: [a, b]\n"
    (tmp_path / TASK_FILE).write_text(f"format: classification\n{labels}{line}")
    with pytest.raises((UsageError, InputError), match=says) as refusal:
        carried_task(tmp_path)
    assert str(tmp_path / TASK_FILE) in str(refusal.value.where)
    assert "\n" not in str(refusal.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / TASK_FILE).mkdir()
    with pytest.raises(UsageError, match="not a regular file"):
        carried_task(tmp_path)
    (tmp_path / TASK_FILE).rmdir()
    (tmp_path / TASK_FILE).symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match="file not found"):
        carried_task(tmp_path)
