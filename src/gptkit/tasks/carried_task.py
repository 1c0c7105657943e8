"""task.yaml, which a fine-tuned model carries in its directory: the user's own task that it was trained on.

It says what the user's file said (see task_yaml.py), so it can be given to --task like one. A task of gptkit's own
needs no file: config.json has its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

from gptkit.errors import InputError
from gptkit.system.run_layout import described_in
from gptkit.tasks.formats import FORMAT_FIELDS
from gptkit.tasks.own import read_task
from gptkit.tasks.task import Task

TASK_FILE = "task.yaml"
YAML_BREAKS = re.compile("[\x85\u2028\u2029]")
_HEADER = "# The task that this model was fine-tuned on; gptkit eval reads it.\n"
_FIX = "copy the model again, or remove the file and name the task: --task FILE.yaml"


def write_task(directory: Path, task: Task) -> None:
    """Write a user's own task into a model's directory; a task of gptkit's own writes nothing."""
    if task.is_own:
        (directory / TASK_FILE).write_text(task_text(task), encoding="utf-8")


def carried_task(directory: Path) -> Task | None:
    """Return the task that a model's directory carries, None without a file; UsageError or InputError for a bad one.

    The file may be a stranger's: it names files inside the folder of --data and nowhere else. It may use a name that
    gptkit has given to a task of its own since it was written.
    """
    path = described_in(directory) / TASK_FILE
    if not path.exists() and not path.is_symlink():
        return None
    task = read_task(path, fix=_FIX)
    for file in _files(task):
        if file != _inside(file):
            message = f"the task's file {file[:60]!r} is not inside the folder of --data"
            raise InputError(message, where=str(path), fix=f"write {_inside(file)[:60]!r}")
    return replace(task, folder=None)


def task_text(task: Task) -> str:
    """Return the YAML that describes a user's own task; files elsewhere than in its folder keep their names alone."""
    import yaml

    values: dict[str, Any] = {
        "name": task.name,
        "format": task.format,
        "labels": list(task.labels),
        "score_range": list(task.score_range or ()),
        "target": task.target,
        "metrics": list(task.metrics),
        "choices": task.choices,
        "splits": _named_files(task),
        "columns": _named_columns(task),
        "hub": task.hub and ":".join(filter(None, (task.hub.path, task.hub.configuration))),
        "data": task.data,
    }
    given = {key: value for key, value in values.items() if value}
    text: str = yaml.safe_dump(given, sort_keys=False, allow_unicode=True, default_flow_style=None)
    if YAML_BREAKS.search(text):  # PyYAML would read them as spaces, unless they are escaped
        text = yaml.safe_dump(given, sort_keys=False, default_flow_style=None)
    return _HEADER + text


def _files(task: Task) -> Iterable[str]:
    return (file for sources in task.splits.values() for source in sources for file in source.paths)


def _named_files(task: Task) -> dict[str, str]:
    """Return the file of each split; none where the task's file left them out, and several kinds may do."""
    if any(len(sources) > 1 for sources in task.splits.values()):
        return {}
    return {split: _inside(source.paths[0]) for split, (source,) in task.splits.items()}


def _inside(file: str) -> str:
    """Return the path where it stays inside the folder it is relative to, else the file's name."""
    path = PureWindowsPath(file)  # which splits at both kinds of slashes
    return path.name if path.anchor or ".." in path.parts else file


def _named_columns(task: Task) -> dict[str, Any]:
    columns = next((source.columns for sources in task.splits.values() for source in sources), None)
    if columns is None:
        return {}
    names = (*FORMAT_FIELDS[task.format], "label", "index")
    named = dict(zip(names, (*columns.fields, columns.label, columns.identifier), strict=True))
    return {name: list(one) if isinstance(one, tuple) else one for name, one in named.items() if one}
