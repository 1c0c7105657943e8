"""`gptkit runs ls` and `show`: list runs, and show one."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.errors import GptkitError, UsageError
from gptkit.manage.options import RunsListOptions, RunsShowOptions
from gptkit.manage.run_rows import (
    Row,
    describe,
    exists,
    find_run,
    items_of,
    metrics_of,
    parts,
    read_config,
    read_json,
)
from gptkit.recipes import CONFIG
from gptkit.report.text import duration, figure, on_one_line, size
from gptkit.system import run_layout
from gptkit.system.files import size_of
from gptkit.system.run_layout import CHECKPOINTS, METRICS, RESULT, RUNS, SNAPSHOTS, all_steps, step_of
from gptkit.training.metrics import read_rows
from gptkit.training.saved_weights import saved_weights

BARS, MOST_BARS = "▁▂▃▄▅▆▇█", 24
MOST_REASONS = 5
PICTURES = ("loss.png", "zero-shot.png")


def run_list(options: RunsListOptions, console: Console) -> dict[str, Any]:
    """Print a table of everything under the root, and return what `--json` prints."""
    rows = sorted(rows_under(options.root), key=_when, reverse=True)
    if not rows:
        console.say(f"no runs under {options.root}")
        return {"runs": [], "next": "gptkit pretrain"}
    table = [[Path(row["path"]).name, *_cells(row)] for row in rows]
    console.table("", ("run", "what", "state", "best figure", "size", "age"), table)
    explained = [row for row in rows if row["reason"] and row["state"] != "running"]
    for row in explained[:MOST_REASONS]:
        console.say(f"{on_one_line(row['path'])}: {on_one_line(row['reason'])}")
    if len(explained) > MOST_REASONS:
        first = shlex.quote(explained[MOST_REASONS]["path"])
        console.say(f"{len(explained) - MOST_REASONS} more: gptkit runs show {first} says what is wrong with the first")
    newest = next((row for row in rows if row["command"]), rows[0])
    return {"runs": rows, "next": f"gptkit runs show {shlex.quote(newest['path'])}"}


def rows_under(root: Path) -> Iterator[Row]:
    """Yield a row for everything in a folder of runs but hidden files; nothing if ./runs does not exist."""
    if root == RUNS and not root.exists():
        return
    if (root / CONFIG).is_file():
        fix = f"gptkit runs show {shlex.quote(str(root))}"
        raise UsageError("this is a run, not a folder of runs", where=f"--root {root}", fix=fix)
    try:
        paths = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        fix = "pass the folder that holds the runs"
        raise UsageError(f"{error.strerror}".lower(), where=f"--root {root}", fix=fix) from None
    for path in paths:
        row = describe(path)
        if exists(path):  # it may have been removed meanwhile
            yield row


def _when(row: Row) -> float:
    for name in ("finished_at", "changed_at"):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return datetime.fromisoformat(row[name]).timestamp()
    return 0.0


def _cells(row: Row) -> list[str | None]:
    """Return a row's cells of the table: what, state, figure, size and age."""
    names = ", ".join(part.rstrip("/").rpartition("/")[2] for part in (row["data"] or "").split(", "))
    age = duration(max(0.0, round(time.time() - _when(row))))
    return [row["command"] and f"{row['command']} {names}", state_of(row), figure_of(row), size(row["bytes"]), age]


def state_of(row: Row) -> str:
    """Return the state with the step: finished 240, unfinished 120/240."""
    step, steps = (f"{row[name]:,}" if isinstance(row[name], int) else "" for name in ("step", "steps"))
    if row["state"] == "damaged" or not step:
        return str(row["state"])
    return f"{row['state']} {step}" + (f"/{steps}" if steps and row["state"] != "finished" else "")


def figure_of(row: Row) -> str | None:
    name = str(row["metric"]).replace("_per_", "/").replace("_", " ")  # as the progress of a run has it
    at = "" if row["best_step"] is None else f" at {row['best_step']:,}"
    return None if row["metric"] is None else f"{name} {shown(row['value'])}{at}"


def shown(value: Any) -> str:
    """Return a figure with four digits, anything else as it is."""
    return figure(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def written(value: Any) -> str:
    """Return an option's value as a command line or recipe has it: all its digits, the items of a list."""
    if isinstance(value, bool):
        return str(value).lower()
    return "unset" if value in (None, [], ()) else ", ".join(map(str, items_of(value)))


def sparkline(values: Sequence[float]) -> str:
    """Return the first value, a line of blocks, and the last value."""
    count = min(len(values), MOST_BARS)
    edges = [number * len(values) // count for number in range(count + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]
    low, span = min(means), (max(means) - min(means)) or 1.0
    line = "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)
    return f"{shown(float(values[0]))} {line} {shown(float(values[-1]))}"


# --- runs show ---


def show(
    options: RunsShowOptions, console: Console, changed_options: Callable[[Path, str], dict[str, Any]]
) -> dict[str, Any]:
    """Print what a run directory says, and return what `--json` prints.

    `changed_options` returns the options in a config.yaml of a command that are not its defaults.
    """
    path = find_run(options.run, options.root)
    row = describe(path)
    config, changed = {}, {}
    if row["command"]:
        config = changed = read_config(path)[1]
        with contextlib.suppress(GptkitError):  # of another version
            changed = changed_options(path / CONFIG, row["command"])
    found = row | {
        "config": config,
        "changed": changed,
        "result": read_json(path / RESULT) or None,
        CHECKPOINTS: _saved(path / CHECKPOINTS),
        SNAPSHOTS: _saved(path / SNAPSHOTS),
        "runs": [describe(part) for part in parts(path)],
        "pictures": [str(path / name) for name in PICTURES if os.path.isfile(path / name)],
        "next": _next(path, row, config),
    }
    if options.samples:
        found["samples"] = list(_samples(path, row, console))
    _print(found, console)
    return found


def _next(path: Path, row: Row, config: Mapping[str, Any]) -> str:
    name = shlex.quote(str(path))
    if row["state"] == "unfinished":
        return f"gptkit {row['command']} --resume {name}"
    if row["state"] != "finished":
        return "gptkit runs ls"
    if config.get("objective") == "masked":
        return f"gptkit finetune --task demo-classification --model {name}"
    if row["command"] != "finetune":
        return f"gptkit generate --model {name}"
    data = config.get("data")
    return f"gptkit eval --model {name}" + (f" --data {shlex.quote(str(data))}" if data else "")


def _saved(folder: Path) -> list[Row]:
    def row(path: Path) -> Row:
        is_whole = run_layout.is_committed(path)
        return {"step": step_of(path), "path": str(path), "bytes": size_of(path), "committed": is_whole}

    with contextlib.suppress(OSError):
        return [*map(row, reversed(all_steps(folder)))]
    return []


def _print(found: Row, console: Console) -> None:
    path, result = Path(found["path"]), found["result"] or {}
    facts = {name: found[name] for name in ("command", "data")} | {"state": state_of(found), "reason": found["reason"]}
    facts |= {"best figure": figure_of(found)} | _after_best(found)
    facts |= {"size": size(found["bytes"]), "finished at": found["finished_at"]}
    for name in (CHECKPOINTS, SNAPSHOTS):
        steps = ", ".join(shown(saved["step"]) + " (incomplete)" * (not saved["committed"]) for saved in found[name])
        facts[name] = f"steps {steps}: {size(sum(saved['bytes'] for saved in found[name]))}" if steps else None
    facts |= {"picture": ", ".join(found["pictures"]) or None} | _losses(path)
    figures = {name: value for name, value in (result | metrics_of(result)).items() if isinstance(value, int | float)}

    def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        if listed := [*rows]:
            console.table(title, columns, listed)

    table(on_one_line(str(path)), ("item", "value"), [item for item in facts.items() if item[1] is not None])
    changed = [(name, written(value)) for name, value in found["changed"].items()]
    title = "options" if found["changed"] == found["config"] else "options that are not the defaults"
    table(title, ("option", "value"), changed)
    table("result", ("figure", "value"), [(name, shown(value)) for name, value in figures.items()])
    seeds = [(str(Path(one["path"]).relative_to(path)), state_of(one), figure_of(one)) for one in found["runs"]]
    table("seeds", ("run", "state", "figure"), seeds)
    samples = [(shown(sample["step"]), sample["text"]) for sample in found.get("samples", ())]
    table("samples: no prompt, the same seed", ("step", "text"), samples)


def _after_best(found: Row) -> Row:
    """Return the last figure of a pretrain run whose best step was an earlier one, and how to use the best weights."""
    step, end, last = found["best_step"], found["step"], (found["result"] or {}).get(found["metric"])
    is_known = isinstance(step, int) and isinstance(end, int) and last is not None
    if found["command"] != "pretrain" or found["state"] != "finished" or not is_known or step == end:
        return {}
    kept = run_layout.weights_nearest(step, Path(found["path"]), end=end)
    command = "" if found["metric"] == "masked_loss" else "gptkit generate "
    use = kept and f"step {step_of(kept):,}: {command}--model {shlex.quote(str(kept))}"
    return {"last figure": figure_of(found | {"value": last, "best_step": end}), "best weights kept": use}


def _losses(path: Path) -> dict[str, str]:
    """Return training and validation loss along the run as small lines."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(GptkitError):
        rows = read_rows(path / METRICS) if os.path.isfile(path / METRICS) else []
    names = {"loss": "training loss", "val_loss": "validation loss", "masked_loss": "validation loss of masked tokens"}
    found = {name: [row[key] for row in rows if row.get(key) is not None] for key, name in names.items()}
    return {name: sparkline(values) for name, values in found.items() if values}


def _samples(path: Path, row: Row, console: Console) -> Iterator[Row]:
    """Yield a text of each step whose weights the run kept: same seed, no prompt."""
    from gptkit.decoding.text_model import first_sample

    for step, folder in _weights(path, row, console).items():
        yield {"step": step, "path": str(folder), **first_sample(folder, console.say)}


def _weights(path: Path, row: Row, console: Console) -> dict[int, Path]:
    """Return the intact weights of a pretrain run by step; an error says why there are none."""
    if row["command"] != "pretrain":
        what = "a run of gptkit finetune" if row["command"] == "finetune" else "not a pretrain run"
        fix = "gptkit eval scores a classifier" if row["command"] == "finetune" else "choose another run"
        raise UsageError(f"samples are for language models, but this is {what}", where=str(path), fix=fix)
    saved, notes = saved_weights(path)
    for note in notes:
        console.warn(note)
    return saved
