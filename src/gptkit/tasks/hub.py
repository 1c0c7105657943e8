"""Examples out of a data set of the hub, through `datasets`; asked for by --data hf: alone."""

from __future__ import annotations

from dataclasses import replace

from gptkit.errors import UsageError
from gptkit.system.hub import load_dataset
from gptkit.tasks.labelled import table_examples
from gptkit.tasks.rows import Table, arrow_rows
from gptkit.tasks.task import HubSource, Source, Task
from gptkit.text.examples import Example

SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def hub_examples(task: Task, split: str, name: str) -> tuple[list[Example], list[str]]:
    """Return the examples of a split, and notes on dropped rows.

    `name` is hf: for the task's own data set, or hf:NAME[:CONFIG], whose columns are named like the task's own or like
    the format's fields.
    """
    hub = _source(task, name)
    if split not in hub.splits:
        fix = f"it has {', '.join(hub.splits)}"
        raise UsageError(f"{hub.path} has no split for {split!r}", where=f"--data {name}", fix=fix)
    shown = f"hf:{hub.path}" + (f":{hub.configuration}" if hub.configuration else "")
    rows = load_dataset(shown, split=hub.splits[split])
    place = f"{shown} {hub.splits[split]}"
    batches = rows.with_format("arrow").iter(batch_size=4096)
    table = Table(tuple(rows.column_names), f"{place}:1", arrow_rows(place, batches), keyed=True)
    return table_examples(replace(task, hub=hub), split, Source((), "parquet"), table)


def _source(task: Task, name: str) -> HubSource:
    path, _, configuration = name.removeprefix("hf:").partition(":")
    if path:
        columns = task.hub.columns if task.hub else None
        splits = task.hub.splits if task.hub else SPLITS
        return HubSource(path, configuration or None, splits, columns)
    if task.hub is None:
        fix = f"give --data DIR with its files from {task.data}"
        raise UsageError(f"{task.name} is not on the hub", where="--data hf:", fix=fix)
    return task.hub
