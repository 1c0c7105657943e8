"""What a run directory says of itself, in any condition and without torch: a row of `gptkit runs ls`."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptkit.errors import GptkitError, InputError, UsageError, nearest
from gptkit.recipes import CONFIG, CONFIG_HEADER
from gptkit.system import run_layout
from gptkit.system.files import lock_holder, size_of
from gptkit.system.reading import LARGEST_YAML, read_json_object, read_text
from gptkit.system.run_layout import CHECKPOINTS, DIVERGED, METRICS, RESULT, all_steps
from gptkit.training.finished_runs import whole_result
from gptkit.training.metrics import NEWEST_BYTES, newest_rows

HEADER = re.compile(CONFIG_HEADER.format(command=r"(\w+)"))
FIELDS = ("command", "data", "state", "step", "steps", "metric", "value", "best_step", "bytes", "finished_at")
REMOVING = "being-removed-"  # prefix of the name of a run while gptkit runs rm removes it

Row = dict[str, Any]  # path, FIELDS, changed_at, and the reason: what is wrong, or who holds the lock


def find_run(name: str, root: Path) -> Path:
    """Return the path of a run given by its name under the root, or by its path; UsageError if there is neither."""
    places = [root / name] * (name not in ("", ".", "..")) + [Path(name)] * bool(name)
    if found := next(filter(exists, places[::-1] if "/" in name else places), None):
        return found
    near = nearest(name, [path.name for path in root.iterdir()]) if root.is_dir() else None
    fix = f"did you mean {near!r}?" if near else "gptkit runs ls lists them"
    raise UsageError("no such run", where=name or "RUN", fix=fix)


def exists(path: Path) -> bool:
    try:
        return path.is_symlink() or path.exists()
    except (OSError, ValueError):  # no permission to look; a NUL character
        return False


def describe(path: Path) -> Row:
    """Return the row of a run, or of anything else among the runs; it never raises."""
    row = {"path": str(path), **dict.fromkeys((*FIELDS, "changed_at", "reason"))}
    row |= {"state": "damaged", "bytes": size_of(path)}
    try:
        newest = path / METRICS if os.path.exists(path / METRICS) else path
        row["changed_at"] = datetime.fromtimestamp(newest.lstat().st_mtime, UTC).isoformat()
        for facts in _facts(path):
            row.update(facts)
    except GptkitError as error:
        row["reason"] = f"{error.message} ({error.where})" if error.where else error.message
    except OSError as error:
        row["reason"] = f"{error.strerror or error}".lower()
    return row


def _facts(path: Path) -> Iterator[Row]:
    """Yield what is found, in the order in which it is found; InputError says why nothing more is."""
    if not path.is_dir():
        kind = "a dangling link" if path.is_symlink() and not path.exists() else "a file"
        raise InputError(f"not a run: {kind}")
    holder, has_config = lock_holder(path), (path / CONFIG).exists()
    if holder:
        yield {"state": "running", "reason": f"in use by {holder}"}
    elif path.name.startswith(REMOVING):
        raise InputError(f"its removal was interrupted: gptkit runs rm {shlex.quote(str(path))} finishes it")
    elif not has_config:
        if any((child / CONFIG).is_file() for child in path.iterdir()):
            raise InputError(f"not a run, but a folder of runs: gptkit runs ls --root {shlex.quote(str(path))}")
        if read_json(path / RESULT).get("command") == "probe":
            raise InputError("not a run, but what gptkit probe wrote: open probe.html in it")
        raise InputError(f"not a run, or its {CONFIG} is missing")
    if not has_config:
        return
    command, config = read_config(path)
    yield {"command": command, "data": _data(command, config), "steps": config.get("steps")}
    if holder:
        done = _progress(path, command, config)
        yield done | {"reason": "; ".join(filter(None, [f"in use by {holder}", done["reason"]]))}
    elif not (path / RESULT).exists():
        yield {"state": "unfinished", **_progress(path, command, config)}
    else:
        result = whole_result(path)
        yield {"state": "finished", "finished_at": str(result["finished_at"])}
        yield {"step": result.get("steps"), "steps": result.get("steps")}
        best = metrics_of(result, "best") or {"step": result.get("best_step"), **result}
        figures = metrics_of(result) | {name: best.get(name) for name in ("bits_per_byte", "val_loss")}
        yield _main_figure(figures) | {"best_step": step if isinstance(step := best.get("step"), int) else None}


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the command that made a run and its options as YAML has them; InputError if config.yaml is damaged."""
    import yaml

    fix = "restore it from a copy"
    text = read_text(path / CONFIG, CONFIG, most=LARGEST_YAML, fix=fix)
    header, where = HEADER.match(text), str(path / CONFIG)
    if header is None or not text.endswith("\n"):
        raise InputError("truncated" if header else "not written by gptkit", where=where, fix=fix)
    loader, depth = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 0  # safe, and in C, as there may be 500
    if "\\uD" in text:  # a byte of a file's name that is not UTF-8, which C refuses
        loader = yaml.SafeLoader
    with contextlib.suppress(yaml.YAMLError, ValueError, AttributeError):
        for event in yaml.parse(text, Loader=loader):  # C would overflow its stack while it builds nested values
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > 2 or isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError
        values = yaml.load(text, Loader=loader)
        if all(isinstance(item, str | int | float | None) for value in values.values() for item in items_of(value)):
            return header[1], {str(key): value for key, value in values.items()}
    raise InputError("not flat `key: value` lines", where=where, fix=fix)


def items_of(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _data(command: str, config: Mapping[str, Any]) -> str:
    given = [str(item) for item in items_of(config.get("data", [])) if item is not None]
    if command == "finetune":
        task = str(config.get("task"))
        own = task.lower().endswith((".yaml", ".yml"))  # a user's task is known by its file's name
        return ", ".join([Path(task).stem if own else task, *given])
    return ", ".join(given) or "embedded corpus"


def _progress(path: Path, command: str, config: Mapping[str, Any]) -> Row:
    """Return the step and the best figure of an unfinished run, from metrics.jsonl; or its seeds."""
    if seeds := parts(path):
        done = sum((seed / RESULT).exists() for seed in seeds)
        planned = f" of {config.get('seeds')}" if config.get("study", "none") == "none" else ""
        return {"reason": f"{done}{planned} seeds finished"}
    rows = newest_rows(path / METRICS) if (path / METRICS).exists() else iter(())
    last, saved = next(rows, None), next(filter(run_layout.is_committed, all_steps(path / CHECKPOINTS)), None)
    step = max(last["step"] if last else 0, run_layout.step_of(saved) if saved else 0)
    diverged = read_json(path / DIVERGED).get("step")
    reason = f"diverged at step {diverged:,}" if isinstance(diverged, int) and diverged > step else None
    found = {"step": step, "steps": config.get("steps") or _planned_steps(saved), "reason": reason}
    return found | (_best_figure(path / METRICS, higher_is_better=command == "finetune") if last else {})


def _best_figure(metrics: Path, *, higher_is_better: bool) -> Row:
    """Return the main figure at the best evaluation of an unfinished run; of a long run the newest, without a step."""
    evaluated = [row for row in newest_rows(metrics, "val_loss") if row.get("val_loss") is not None]
    if not evaluated:
        return {}
    newest = _main_figure(evaluation_in(evaluated[0]))
    if metrics.stat().st_size > NEWEST_BYTES:
        return newest
    name, sign = newest["metric"], -1 if higher_is_better else 1
    known = [row for row in evaluated if row.get(name) is not None]
    best = min(known, key=lambda row: (sign * row[name], row["step"]))
    return {"metric": name, "value": best[name], "best_step": best["step"]}


def evaluation_in(row: Mapping[str, Any]) -> Row:
    """Return what an evaluation measured in a row of metrics.jsonl, which ends with it: val_loss comes last here."""
    measured = dict(itertools.dropwhile(lambda item: item[0] != "val_loss", row.items()))
    return {name: measured[name] for name in [*[*measured][1:], *[*measured][:1]] if name != "val_perplexity"}


def _planned_steps(checkpoint: Path | None) -> int | None:
    """Return the steps that a finetune run was to have, from its newest checkpoint; config.yaml has only its epochs."""
    steps = read_json(checkpoint / "state.json").get("steps") if checkpoint else None
    return steps if isinstance(steps, int) else None


def _main_figure(figures: Mapping[str, Any]) -> Row:
    """Return the first figure that is a number."""
    numbers = ((name, value) for name, value in figures.items() if isinstance(value, int | float))
    return next(({"metric": name, "value": value} for name, value in numbers), {})


def metrics_of(result: Mapping[str, Any], name: str = "metrics") -> dict[str, Any]:
    """Return the figures of a result by name, none if it was edited."""
    return dict(found) if isinstance(found := result.get(name), dict) else {}


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one if it has none."""
    try:
        return read_json_object(file)
    except GptkitError:
        return {}


def parts(path: Path) -> list[Path]:
    """Return the runs inside a run of several seeds or variants."""
    if os.path.exists(path / METRICS):  # False where access is denied, here and below
        return []
    return [config.parent for seeds in ("seed-*", "*/seed-*") for config in sorted(path.glob(f"{seeds}/{CONFIG}"))]
