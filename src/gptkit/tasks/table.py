"""The table of benchmarks: labelled tasks for fine-tuning and zero-shot evaluations, discovered in benchmarks/.

A new benchmark is a file there with its rows in BENCHMARKS. ORDER (50 if absent) is its place in the table.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gptkit.errors import UsageError, suggest
from gptkit.scoring.protocols import GeneratedProtocol
from gptkit.tasks import benchmarks
from gptkit.tasks.benchmarks.blimp import ONE_SET, PHENOMENON_OF, blimp_set
from gptkit.tasks.own import is_task_file, read_task
from gptkit.tasks.task import Evaluation, Task


def find_benchmarks() -> Iterator[Task | Evaluation]:
    """Yield the rows of every file in benchmarks/, in the order of the table."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    modules = [importlib.import_module(f"{benchmarks.__name__}.{name}") for name in names]
    for module in sorted(modules, key=lambda module: getattr(module, "ORDER", 50)):
        yield from getattr(module, "BENCHMARKS", ())


KINDS = ("texts", "choices", "written answers")


def kind_of(row: Evaluation) -> str:
    """Return what an evaluation asks of a model, one of KINDS."""
    if isinstance(row.protocols[0], GeneratedProtocol):
        return "written answers"
    return "texts" if row.sliding else "choices"


_ROWS = tuple(find_benchmarks())
_ZERO_SHOT = [row for row in _ROWS if isinstance(row, Evaluation)]
TASKS: dict[str, Task] = {row.name: row for row in _ROWS if isinstance(row, Task)}
EVALUATIONS: dict[str, Evaluation] = {row.name: row for kind in KINDS for row in _ZERO_SHOT if kind_of(row) == kind}


def find_task(name: str) -> Task:
    """Return the task of that name, or the one that a user's .yaml file describes (see own.py).

    Raises UsageError with the closest known name.
    """
    if name in TASKS:
        return TASKS[name]
    if is_task_file(name):
        return read_task(Path(name).expanduser(), taken=TASKS)
    fix = f"{suggest(name, TASKS)} (or pass the .yaml file of your own task)"
    raise UsageError(f"no task is called {name!r}", where="--task", fix=fix)


def find_evaluation(name: str) -> Evaluation | None:
    """Return the evaluation NAME, with only the protocol asked for in NAME/PROTOCOL; None if there is none."""
    name, _, wanted = name.partition("/")
    row = EVALUATIONS.get(name)
    if row is None and name.startswith(ONE_SET) and name.removeprefix(ONE_SET) in PHENOMENON_OF:
        row = blimp_set(name.removeprefix(ONE_SET))
    if row is None or not wanted:
        return row
    protocols = tuple(protocol for protocol in row.protocols if protocol.name == wanted)
    return replace(row, protocols=protocols) if protocols else None


def names_of_evaluations() -> list[str]:
    """Return every name that find_evaluation accepts."""
    rows = [*EVALUATIONS.values(), *map(blimp_set, PHENOMENON_OF)]
    return [name for row in rows for name in (row.name, *(f"{row.name}/{protocol.name}" for protocol in row.protocols))]


def with_stride(row: Evaluation, stride: int) -> Evaluation:
    """Return an evaluation of running text with only the protocol of this stride; any other unchanged."""
    return row if row.sliding is None else replace(row, protocols=(row.sliding(stride),))
