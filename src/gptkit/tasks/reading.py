"""A split's examples: made here, read from --data, from the folder of a user's own task, or from the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptkit.errors import UsageError
from gptkit.tasks.file_search import existing_folder, find, not_found, roots
from gptkit.tasks.labelled import read_examples
from gptkit.tasks.task import KINDS, Source, Task
from gptkit.text.examples import Example

OTHER_STEMS = {"dev": ("validation", "val")}


@dataclass(frozen=True)
class Loaded:
    """A split, whole and checked; `notes` tell what was dropped, `sha256` is over the texts and labels."""

    examples: tuple[Example, ...]
    notes: tuple[str, ...]
    sha256: str


def load_examples(task: Task, split: str, data: str | Path | None) -> Loaded:
    """Return the examples of a split.

    `data` is a folder: DATA/file, else DATA/<task>/file, in any case; or hf: (the row's own data set of the hub), or
    hf:NAME[:CONFIG]. UsageError when the split or the data are not there to be read, InputError for bad files.
    """
    if split not in task.splits:
        fix = f"it has {', '.join(task.splits)}"
        raise UsageError(f"the task {task.name} has no split {split!r}", where=f"--task {task.name}", fix=fix)
    if task.is_demo:
        from gptkit.tasks.demo import demo_examples

        return loaded(demo_examples(task.name, split))
    folder = task.folder if data is None else data
    if folder is None:
        raise UsageError(f"{task.name} needs its data", where="--data", fix=_what_to_give(task, split))
    if str(folder).startswith("hf:"):
        from gptkit.tasks.hub import hub_examples

        return loaded(*hub_examples(task, split, str(folder)))
    source, paths = find_source(task, split, existing_folder(folder))
    return loaded(*read_examples(task, split, source, paths))


def _what_to_give(task: Task, split: str) -> str:
    online = f"; or --data hf: for hf:{task.hub.path} of the hub" if task.hub else ""
    return f"give --data DIR, a folder of {_names_of(task, split)} from {task.data}{online}"


def _names_of(task: Task, split: str) -> str:
    """Return the files that a split is looked for in."""
    official = dict.fromkeys(" + ".join(source.paths) for source in task.splits[split])
    generic = f"{split}{'|'.join(f'.{kind}' for kind in KINDS)}"
    return ", ".join([*official, generic])


def find_source(task: Task, split: str, folder: Path) -> tuple[Source, list[Path]]:
    """Return the first form of a split whose files are there, the authors' before the generic ones."""
    sources = [*task.splits[split], *_generic_sources(split)]
    for root in roots(folder, (task.name, *task.folders)):
        for source in sources:
            is_folder = source.kind == "race"
            paths = [path for pattern in source.paths if (path := find(root, pattern, folder=is_folder)) is not None]
            if len(paths) == len(source.paths):
                return source, paths
    raise not_found(f"no file for the split {split!r} of {task.name}", folder, _names_of(task, split), task.name)


def _generic_sources(split: str) -> Iterator[Source]:
    base, _, side = split.partition("-")
    for stem in (base, *OTHER_STEMS.get(base, ())):
        for joint in ("-", "_") if side else ("",):
            yield from (Source((f"{stem}{joint}{side}.{kind}",), kind) for kind in KINDS)


def loaded(examples: Sequence[Example], notes: Sequence[str] = ()) -> Loaded:
    """Return the examples with the hash of their texts and labels."""
    digest = hashlib.sha256()
    for one in examples:
        texts: list[str] = []
        for field in one.fields:  # no text holds a NUL
            texts += [field] if isinstance(field, str) else [str(len(field)), *field]
        digest.update("\0".join([*texts, repr(one.label), ""]).encode())
    return Loaded(tuple(examples), tuple(notes), digest.hexdigest())
