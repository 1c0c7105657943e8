"""A split's examples: made here, read from --data, from the folder of a user's own task, or from the hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from gptkit.errors import InputError, UsageError
from gptkit.scoring.protocols import Protocol
from gptkit.system.hub import load_dataset
from gptkit.tasks.files import first_whole, not_found, require_folder, roots
from gptkit.tasks.labelled import read_examples, table_examples
from gptkit.tasks.rows import Table, arrow_rows
from gptkit.tasks.task import KINDS, Evaluation, HubSource, Loaded, Source, Task, loaded
from gptkit.text.examples import Example

OTHER_STEMS = {"dev": ("validation", "val")}


def load_examples(task: Task, split: str, data: str | Path | None) -> Loaded:
    """Return the examples of a split.

    `data` is a folder: DATA/file, else DATA/<task>/file, in any case; or hf: (the row's own data set of the hub), or
    hf:NAME[:CONFIG]. UsageError when the split or the data are not there to be read, InputError for bad files.
    """
    if split not in task.splits:
        fix = f"it has {', '.join(task.splits)}"
        raise UsageError(f"the task {task.name} has no split {split!r}", where=f"--task {task.name}", fix=fix)
    if task.make is not None:
        return loaded(task.make(split))
    folder = task.folder if data is None else data
    if folder is None:
        online = f"; or --data hf: for hf:{task.hub.path} of the hub" if task.hub else ""
        fix = f"give --data DIR, a folder of {_names_of(task, split)} from {task.data}{online}"
        raise UsageError(f"{task.name} needs its data", where="--data", fix=fix)
    if str(folder).startswith("hf:"):
        return loaded(*hub_examples(task, split, str(folder)))
    source, paths = find_source(task, split, Path(folder).expanduser())
    return loaded(*read_examples(task, split, source, paths))


def zero_shot(task: Task, split: str, about: str, *protocols: Protocol) -> Evaluation:
    """Return the evaluation of a split of a task, whose files and hub are the task's own."""
    load = partial(_load_labelled, task, split)
    return Evaluation(task.name, f"{about} ({split})", task.data, load, protocols, size=task.sizes.get(split))


def _load_labelled(task: Task, split: str, data: str | None) -> Loaded:
    found = load_examples(task, split, data)
    unlabelled = next((example for example in found.examples if example.label is None), None)
    if unlabelled is not None:
        raise InputError(f"no labels in {task.name}'s {split}", where=unlabelled.where, fix="give the labelled file")
    return found


def _names_of(task: Task, split: str) -> str:
    """Return the files that a split is looked for in."""
    official = dict.fromkeys(" + ".join(source.paths) for source in task.splits[split])
    generic = f"{split}{'|'.join(f'.{kind}' for kind in KINDS)}"
    return ", ".join([*official, generic])


def find_source(task: Task, split: str, folder: Path) -> tuple[Source, list[Path]]:
    """Return the first form of a split whose files are there, the authors' before the generic ones."""
    require_folder(folder)
    sources = [*task.splits[split], *_generic_sources(split)]
    found = first_whole(roots(folder, (task.name, *task.folders)), [source.paths for source in sources])
    if found is None:
        raise not_found(f"no file for the split {split!r} of {task.name}", folder, _names_of(task, split), task.name)
    return sources[found[0]], found[1]


def _generic_sources(split: str) -> Iterator[Source]:
    base, _, side = split.partition("-")
    for stem in (base, *OTHER_STEMS.get(base, ())):
        for joint in ("-", "_") if side else ("",):
            yield from (Source((f"{stem}{joint}{side}.{kind}",), kind) for kind in KINDS)


def hub_examples(task: Task, split: str, name: str) -> tuple[list[Example], list[str]]:
    """Return the examples of a split, and notes on dropped rows.

    `name` is hf: for the task's own data set, or hf:NAME[:CONFIG], whose columns are named like the task's own or like
    the format's fields.
    """
    hub = _hub_source(task, name)
    if split not in hub.splits:
        fix = f"it has {', '.join(hub.splits)}"
        raise UsageError(f"{hub.path} has no split for {split!r}", where=f"--data {name}", fix=fix)
    shown = f"hf:{hub.path}" + (f":{hub.configuration}" if hub.configuration else "")
    rows = load_dataset(shown, split=hub.splits[split])
    place = f"{shown} {hub.splits[split]}"
    batches = rows.with_format("arrow").iter(batch_size=4096)
    table = Table(tuple(rows.column_names), f"{place}:1", arrow_rows(place, batches), keyed=True)
    return table_examples(replace(task, hub=hub), split, Source((), "parquet"), table)


def _hub_source(task: Task, name: str) -> HubSource:
    path, _, configuration = name.removeprefix("hf:").partition(":")
    if path:
        own = task.hub or HubSource("", None, None)
        return replace(own, path=path, configuration=configuration or None)
    if task.hub is None:
        fix = f"give --data DIR with its files from {task.data}"
        raise UsageError(f"{task.name} is not on the hub", where="--data hf:", fix=fix)
    return task.hub
