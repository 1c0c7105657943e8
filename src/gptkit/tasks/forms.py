"""The files of an evaluation, under the names that their authors give them, in a folder of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.errors import InputError, UsageError
from gptkit.tasks.cells import text_of
from gptkit.tasks.file_search import find, not_found, roots
from gptkit.text.examples import Example

Form = tuple[str, ...]  # file names that belong together; * stands for anything, / for a folder


def find_form(evaluation: str, data: str | None, forms: Sequence[Form], *, source: str) -> list[Path]:
    """Return the files of the first form that is whole in DATA or in DATA/<evaluation>, in any case.

    DATA may be the file itself where a form is a single one. UsageError without DATA, InputError when it holds no form;
    `source` says in its fix where the files come from.
    """
    wanted = "; ".join(dict.fromkeys(" + ".join(form) for form in forms))
    if data is None:
        fix = f"give --data DIR, a folder of {wanted} ({source})"
        raise UsageError(f"{evaluation} needs its data", where="--data", fix=fix)
    if data.startswith("hf:"):
        fix = f"give --data DIR, a folder of {wanted} ({source})"
        raise UsageError(f"{evaluation} is read from its authors' files, not from the hub", where="--data", fix=fix)
    folder = Path(data).expanduser()
    if folder.is_file() and any(len(form) == 1 for form in forms):
        return [folder]
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such file or folder"
        raise InputError(problem, where=f"--data {data}", fix=f"name the folder of {wanted} ({source})")
    for root in roots(folder, (evaluation,)):
        if found := form_in(root, forms):
            return found
    raise not_found(f"no file of {evaluation}", folder, wanted, evaluation)


def form_in(folder: Path, forms: Sequence[Form]) -> list[Path]:
    """Return the files of the first form that is whole in a folder, none without one."""
    for form in forms:
        paths = [path for name in form if (path := find(folder, name)) is not None]
        if len(paths) == len(form):
            return paths
    return []


def cell(row: Mapping[str, Any], key: str, where: str) -> Any:
    """Return what a row holds under a key; InputError when there is nothing of that name."""
    if key not in row:
        keys = ", ".join(map(repr, list(row)[:8])) or "none"
        raise InputError(f"no {key!r} here (keys: {keys})", where=where, fix=f"every row needs {key!r}")
    return row[key]


def text_cell(row: Mapping[str, Any], key: str, where: str) -> str:
    """Return the text that a row holds under a key; InputError when it is none, or empty."""
    return text_of(cell(row, key, where), key, where)


def refuse_repeated_examples(examples: Sequence[Example]) -> None:
    """Raise InputError where two examples have one identifier, by which two evaluations of them are paired."""
    seen: dict[str, str] = {}
    for one in examples:
        if one.identifier in seen:
            message = f"the id {one.identifier!r} is there twice, first at {seen[one.identifier]}"
            raise InputError(message, where=one.where, fix="keep one of the two")
        seen[one.identifier] = one.where
