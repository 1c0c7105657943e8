"""The table of evaluations: texts, choices and written answers, each with its protocols; and names to ask for them."""

from __future__ import annotations

from dataclasses import replace

from gptkit.scoring.protocols import Evaluation
from gptkit.tasks.blimp_files import PHENOMENON_OF
from gptkit.tasks.choice_rows import CHOICE_ROWS, blimp_set
from gptkit.tasks.generated_rows import GENERATED_ROWS
from gptkit.tasks.text_rows import TEXT_ROWS

EVALUATIONS: dict[str, Evaluation] = {row.name: row for row in (*TEXT_ROWS, *CHOICE_ROWS, *GENERATED_ROWS)}
_ONE_SET = "blimp-"


def find_evaluation(name: str) -> Evaluation | None:
    """Return the row called NAME, with one protocol alone for NAME/PROTOCOL; None for a name that no row has."""
    name, _, wanted = name.partition("/")
    row = EVALUATIONS.get(name)
    if row is None and name.removeprefix(_ONE_SET) in PHENOMENON_OF and name.startswith(_ONE_SET):
        row = blimp_set(name.removeprefix(_ONE_SET))
    if row is None or not wanted:
        return row
    protocols = tuple(one for one in row.protocols if one.name == wanted)
    return replace(row, protocols=protocols) if protocols else None


def names_of_evaluations() -> list[str]:
    """Return every name that find_evaluation knows."""
    rows = [*EVALUATIONS.values(), *(blimp_set(name) for name in PHENOMENON_OF)]
    return [name for row in rows for name in (row.name, *(f"{row.name}/{one.name}" for one in row.protocols))]
