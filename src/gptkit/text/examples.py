"""One example of a labelled task, as its texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One row of a task: its texts in the order of the format's fields, a question that is not there being "".

    `label` is the index of a class or choice, or a score, None when unlabelled; `where` is "path:line"; `identifier` is
    what a submission names the row by.
    """

    fields: tuple[str | tuple[str, ...], ...]
    label: int | float | None
    where: str
    identifier: str
