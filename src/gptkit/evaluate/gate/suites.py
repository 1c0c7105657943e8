"""A suite: the tasks that a gate rests on, with their data and bounds, written down in YAML:

    tasks:
      - task: lambada              # a name, or a task's YAML file
        data: data/lambada         # a file or folder beside this file, or hf:NAME; may be left out
        limit: 1000                # only the first N examples
        floor: 0.01                # the smallest drop that counts, in the unit of the task's first measure
        minimum: 0.45              # what its first measure must reach; where lower is better, must not exceed
      - task: wikitext2
        data: data/wikitext-2

Nothing in the file is executed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from gptkit.errors import UsageError
from gptkit.system.reading import Entry, read_yaml

KEYS = ("task", "data", "limit", "floor", "minimum")
YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class TaskSpec:
    """A task that is asked for; of a suite, paths are made absolute by its folder, and `where` is its file:line."""

    task: str
    data: str | None
    limit: int | None = None
    floor: float | None = None
    minimum: float | None = None
    where: str = "--task"


def read_suite(path: Path) -> tuple[TaskSpec, ...]:
    """Return the tasks of a suite; UsageError with file:line for whatever is wrong, but names are not checked."""
    root = read_yaml(path, "a suite", missing="name a YAML file with a list of tasks")
    top = root.entries("a suite", ("tasks",))
    if "tasks" not in top:
        raise UsageError("no 'tasks' in the suite", where=root.where, fix="write tasks: [{task: lambada}]")
    tasks: list[TaskSpec] = []
    for entry in top["tasks"].items("tasks"):
        task = _task(entry)
        if any(other.task == task.task for other in tasks):
            fix = "keep one of them: results are named after their task"
            raise UsageError(f"the task {task.task[:60]!r} is there twice", where=task.where, fix=fix)
        tasks.append(task)
    return tuple(tasks)


def _task(entry: Entry) -> TaskSpec:
    entries = entry.entries("a task of the suite", KEYS)
    if "task" not in entries:
        raise UsageError("no 'task' in a task of the suite", where=entry.where, fix="write task: NAME")
    name = entries["task"].word("task")
    if name.endswith(YAML):
        name = _beside(entries["task"], name)
    return TaskSpec(
        name,
        _data(entries["data"]) if "data" in entries else None,
        _limit(entries["limit"]) if "limit" in entries else None,
        _number(entries["floor"], "floor", least=0.0) if "floor" in entries else None,
        _number(entries["minimum"], "minimum", least=-math.inf) if "minimum" in entries else None,
        entry.where,
    )


def _data(entry: Entry) -> str:
    word = entry.word("data")
    return word if word.startswith("hf:") else _beside(entry, word)


def _beside(entry: Entry, word: str) -> str:
    """Return a path that is relative to the suite's folder."""
    try:
        return str(entry.path.resolve().parent / Path(word).expanduser())
    except RuntimeError:
        raise UsageError(f"no home directory for {word[:60]!r}", where=entry.where, fix="write the path out") from None


def _limit(entry: Entry) -> int:
    word = entry.word("limit")
    if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) >= 1):
        raise UsageError("limit is not a whole number from 1", where=entry.where, fix="write limit: 1000")
    return int(word)


def _number(entry: Entry, key: str, *, least: float) -> float:
    try:
        value = float(entry.word(key))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= least):
        kind = "a number from 0" if least == 0 else "a number"
        raise UsageError(f"{key} is not {kind}", where=entry.where, fix=f"write {key}: 0.02")
    return value
