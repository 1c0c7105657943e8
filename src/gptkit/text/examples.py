"""An example of a task: what both fine-tuning and zero-shot protocols read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One row of a task: its texts in the order of the format's fields, with "" for a missing question.

    `label` is the index of a class or choice, or a score; None if unlabelled. `where` is "path:line", `identifier` the
    row's name in a submission.
    """

    fields: tuple[str | tuple[str, ...], ...]
    label: int | float | None
    where: str
    identifier: str
