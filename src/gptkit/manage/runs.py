"""`gptkit runs`: list runs and show one. What a run directory tells in any condition, read without torch."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.errors import GptkitError, InputError, UsageError, nearest
from gptkit.options import REQUIRED, OutputOptions, option
from gptkit.recipes import CONFIG, CONFIG_HEADER
from gptkit.report.text import duration, size
from gptkit.system.files import lock_holder, size_of
from gptkit.system.reading import LARGEST_YAML, read_json_object, read_text
from gptkit.system.run_layout import (
    CHECKPOINTS,
    DIVERGED,
    METRICS,
    MODEL,
    RESULT,
    SNAPSHOTS,
    WEIGHTS,
    all_steps,
    defect,
    described_in,
    is_committed,
    step_of,
)
from gptkit.training.finished_runs import RUNS, lost_result, read_result
from gptkit.training.metrics import newest_rows, read_rows

HEADER = re.compile(CONFIG_HEADER.format(command=r"(\w+)"))
FIELDS = ("command", "data", "state", "step", "steps", "metric", "value", "bytes", "finished_at")
MORE_FIELDS = ("changed_at", "reason")  # when it last changed; what is wrong, or who holds the lock
SAMPLE_TOKENS, SAMPLE_TOP_K = 40, 40
BARS, MOST_BARS = "▁▂▃▄▅▆▇█", 24
MOST_REASONS = 5
EVALUATION = "gptkit.eval/1"  # the schema of what gptkit eval --output and --all-checkpoints write
REMOVING = "being-removed-"  # prefix of the name of a run while gptkit runs rm removes it
PICTURES = ("loss.png", "zero-shot.png")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunsListOptions(OutputOptions):
    """List the runs, newest first: what they train on, how far they are, best figure, size and age."""

    root: Path = option(RUNS, "Folder of the runs.", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class RunsShowOptions(RunsListOptions):
    """Show one run: its options, figures, losses, saved weights, and the command that resumes or uses it."""

    run: str = option(REQUIRED, "A run: its name under --root, or its path.", argument=True, metavar="RUN")
    samples: bool = option(False, "Also generate a text with the weights of each step that the run kept.")


def run_list(options: RunsListOptions, console: Console) -> dict[str, Any]:
    """Print a table of everything under the root, and return what `--json` prints."""
    rows = sorted(rows_under(options.root), key=_when, reverse=True)
    if not rows:
        console.say(f"no runs under {options.root}")
        return {"runs": [], "next": "gptkit pretrain"}
    table = [[Path(row["path"]).name, *_cells(row)] for row in rows]
    console.table("", ("run", "what", "state", "best", "size", "age"), table)
    explained = [row for row in rows if row["reason"] and row["state"] != "running"]
    for row in explained[:MOST_REASONS]:
        console.say(f"{row['path']}: {row['reason']}")
    if len(explained) > MOST_REASONS:
        first = shlex.quote(explained[MOST_REASONS]["path"])
        console.say(f"{len(explained) - MOST_REASONS} more: gptkit runs show {first} says what is wrong with the first")
    return {"runs": rows, "next": f"gptkit runs show {shlex.quote(rows[0]['path'])}"}


def rows_under(root: Path) -> Iterator[Row]:
    """Yield a row for everything in a folder of runs but hidden files; nothing if ./runs is not there."""
    if root == RUNS and not root.exists():
        return
    if (root / CONFIG).is_file():
        raise UsageError("this is a run, not a folder of runs", where=f"--root {root}", fix=f"gptkit runs show {root}")
    try:
        paths = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        fix = "pass the folder that holds the runs"
        raise UsageError(f"{error.strerror}".lower(), where=f"--root {root}", fix=fix) from None
    for path in paths:
        row = describe(path)
        if _is_there(path):  # it may have been removed meanwhile
            yield row


def find_run(name: str, root: Path) -> Path:
    """Return the path of a run given by its name under the root, or by its path; UsageError if there is neither."""
    places = [root / name] * (name not in ("", ".", "..")) + [Path(name)] * bool(name)
    for path in places[::-1] if "/" in name else places:
        if _is_there(path):
            return path
    near = nearest(name, [path.name for path in root.iterdir()]) if root.is_dir() else None
    fix = f"did you mean {near!r}?" if near else "gptkit runs ls lists them"
    raise UsageError("no such run", where=name or "RUN", fix=fix)


def _is_there(path: Path) -> bool:
    try:
        return path.is_symlink() or path.exists()
    except (OSError, ValueError):  # no permission to look; a NUL character
        return False


# --- what a run directory tells ---


def describe(path: Path) -> Row:
    """Return the row of a run, or of whatever else lies among the runs; nothing about it is an error."""
    row = {"path": str(path), **dict.fromkeys(FIELDS + MORE_FIELDS), "state": "damaged", "bytes": size_of(path)}
    try:
        row["changed_at"] = _changed_at(path)
        for facts in _facts(path):
            row.update(facts)
    except GptkitError as error:
        row["reason"] = f"{error.message} ({error.where})"
    except OSError as error:
        row["reason"] = f"{error.strerror or error}".lower()
    return row


def _changed_at(path: Path) -> str:
    newest = path / METRICS if os.path.exists(path / METRICS) else path
    return datetime.fromtimestamp(newest.lstat().st_mtime, UTC).isoformat()


def _facts(path: Path) -> Iterator[Row]:
    """Yield what is found, in the order in which it is found."""
    if not path.is_dir():
        kind = "a dangling link" if path.is_symlink() and not path.exists() else "a file"
        yield {"reason": f"no run, but {kind}"}
        return
    if holder := lock_holder(path):
        yield {"state": "running", "reason": f"in use by {holder}"}
    if path.name.startswith(REMOVING) and not holder:
        yield {"reason": f"its removal was interrupted: gptkit runs rm {shlex.quote(str(path))} finishes it"}
        return
    if not (path / CONFIG).exists():
        if not holder:
            yield {"reason": _without_config(path)}
        return
    command, config = read_config(path)
    yield {"command": command, "data": _data(command, config), "steps": config.get("steps")}
    if holder:
        done = _progress(path, config)
        yield {**done, "reason": "; ".join(filter(None, [f"in use by {holder}", done["reason"]]))}
    elif not (path / RESULT).exists():
        yield {"state": "unfinished", **_progress(path, config)}
    elif (result := read_result(path)) is None:
        yield {"reason": lost_result(path)}
    else:
        metrics = result["metrics"] if isinstance(result.get("metrics"), dict) else {}
        yield {"state": "finished", "finished_at": str(result["finished_at"])}
        yield {"step": result.get("steps"), "steps": result.get("steps")}
        yield _best(metrics) or _best({name: result.get(name) for name in ("bits_per_byte", "val_loss")})


def _without_config(path: Path) -> str:
    inside = sum((child / CONFIG).is_file() for child in path.iterdir() if child.is_dir())
    if inside:
        return f"no run, but a folder of {inside}: gptkit runs ls --root {shlex.quote(str(path))}"
    return f"no run, or one without its {CONFIG}"


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the command that made a run and its options as YAML has them; InputError if config.yaml is damaged."""
    import yaml

    fix = "restore it from a copy"
    text = read_text(path / CONFIG, CONFIG, most=LARGEST_YAML, fix=fix)
    header, where = HEADER.match(text), str(path / CONFIG)
    if header is None or not text.endswith("\n"):
        message = "no config.yaml of gptkit" if header is None else "truncated"
        raise InputError(message, where=where, fix=fix)
    loader, depth = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 0  # in C, as there may be 500
    with contextlib.suppress(yaml.YAMLError, ValueError, AttributeError):
        for event in yaml.parse(text, Loader=loader):  # C would overflow its stack while it builds nested values
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > 2 or isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError
        values = yaml.load(text, Loader=loader)
        if all(isinstance(item, str | int | float | None) for value in values.values() for item in _items(value)):
            return header[1], {str(key): value for key, value in values.items()}
    raise InputError("not flat `key: value` lines", where=where, fix=fix)


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _data(command: str, config: Mapping[str, Any]) -> str:
    given = [str(item) for item in _items(config.get("data", [])) if item is not None]
    if command == "finetune":
        return ", ".join([str(config.get("task")), *given])
    return ", ".join(given) or "embedded corpus"


def _progress(path: Path, config: Mapping[str, Any]) -> Row:
    """Return the step and the newest figure of an unfinished run, from the end of metrics.jsonl; or its seeds."""
    if seeds := parts(path):
        done = sum((seed / RESULT).exists() for seed in seeds)
        planned = f" of {config.get('seeds')}" if config.get("study", "none") == "none" else ""
        return {"reason": f"{done}{planned} seeds finished"}
    rows = newest_rows(path / METRICS) if (path / METRICS).exists() else iter(())
    last = next(rows, {"step": 0})
    diverged = read_json(path / DIVERGED).get("step")
    reason = f"diverged at step {diverged:,}" if isinstance(diverged, int) and diverged > last["step"] else None
    found = {"step": last["step"], "steps": config.get("steps") or _planned_steps(path), "reason": reason}
    for row in itertools.chain([last], rows):
        if row.get("val_loss") is not None:
            names = list(row)[list(row).index("val_loss") :]  # what an evaluation measures stands at the end
            own = _best({name: row[name] for name in names if name not in ("val_loss", "val_perplexity")})
            return found | (own or _best({"val_loss": row["val_loss"]}))
    return found


def _planned_steps(path: Path) -> int | None:
    """Return the steps that a finetune run was to have, from its newest checkpoint; config.yaml has only its epochs."""
    newest = next(filter(is_committed, all_steps(path / CHECKPOINTS)), None)
    steps = read_json(newest / "state.json").get("steps") if newest else None
    return steps if isinstance(steps, int) else None


def _best(figures: Mapping[str, Any]) -> Row:
    """Return the first figure that is a number."""
    numbers = ((name, value) for name, value in figures.items() if isinstance(value, int | float))
    return next(({"metric": name, "value": value} for name, value in numbers), {})


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


# --- for people ---


def _when(row: Row) -> float:
    for name in ("finished_at", "changed_at"):
        try:
            return datetime.fromisoformat(row[name]).timestamp()
        except (TypeError, ValueError, OverflowError):
            continue
    return 0.0


def _cells(row: Row) -> list[str | None]:
    """Return a row's cells of the table: what, state, figure, size and age."""
    names = ", ".join(part.rstrip("/").rpartition("/")[2] for part in (row["data"] or "").split(", "))
    age = duration(max(0.0, round(time.time() - _when(row))))
    what = row["command"] and f"{row['command']} {names}"
    return [what, state_of(row), _figure(row), size(row["bytes"]), age]


def state_of(row: Row) -> str:
    """Return the state with the step: finished 240, unfinished 120/240."""
    step, steps = (f"{row[name]:,}" if isinstance(row[name], int) else "" for name in ("step", "steps"))
    if row["state"] == "damaged" or not step:
        return str(row["state"])
    return f"{row['state']} {step}" if row["state"] == "finished" or not steps else f"{row['state']} {step}/{steps}"


def _figure(row: Row) -> str | None:
    name = str(row["metric"]).replace("_per_", "/").replace("_", " ")  # as the progress of a run has it
    return None if row["metric"] is None else f"{name} {shown(row['value'])}"


def shown(value: Any) -> str:
    """Return a figure with four digits, anything else as it is."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def sparkline(values: Sequence[float]) -> str:
    """Return the first value, a line of blocks, and the last value."""
    wide = len(values) / min(len(values), MOST_BARS)
    bins = [values[int(start * wide) : int((start + 1) * wide)] for start in range(min(len(values), MOST_BARS))]
    means = [sum(each) / len(each) for each in bins]
    low, span = min(means), (max(means) - min(means)) or 1.0
    line = "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)
    return f"{shown(float(values[0]))} {line} {shown(float(values[-1]))}"


# --- runs show ---


def show(
    options: RunsShowOptions, console: Console, changed_options: Callable[[Path, str], dict[str, Any]]
) -> dict[str, Any]:
    """Print what a run directory tells, and return what `--json` prints.

    `changed_options` returns the options in a config.yaml of a command that are not its defaults.
    """
    path = find_run(options.run, options.root)
    row = describe(path)
    config, changed = {}, {}
    if row["command"]:
        config = read_config(path)[1]
        try:
            changed = changed_options(path / CONFIG, row["command"])
        except GptkitError:  # of another version
            changed = config
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
    if row["state"] == "finished" and row["command"] == "finetune":
        data = config.get("data")
        return f"gptkit eval --model {name}" + (f" --data {shlex.quote(str(data))}" if data else "")
    return f"gptkit generate --model {name}" if row["state"] == "finished" else "gptkit runs ls"


def _saved(folder: Path) -> list[Row]:
    try:
        steps = all_steps(folder)[::-1]
    except OSError:
        return []
    return [
        {"step": step_of(path), "path": str(path), "bytes": size_of(path), "committed": is_committed(path)}
        for path in steps
    ]


def _print(found: Row, console: Console) -> None:
    path, result = Path(found["path"]), found["result"] or {}
    facts = {name: found[name] for name in ("command", "data")} | {"state": state_of(found), "reason": found["reason"]}
    facts |= {"size": size(found["bytes"]), "finished at": found["finished_at"]}
    for name in (CHECKPOINTS, SNAPSHOTS):
        steps = ", ".join(shown(saved["step"]) + " (cut off)" * (not saved["committed"]) for saved in found[name])
        facts[name] = f"steps {steps}: {size(sum(saved['bytes'] for saved in found[name]))}" if steps else None
    facts |= {"picture": ", ".join(found["pictures"]) or None} | _losses(path)
    console.table(str(path), ("item", "value"), [(name, value) for name, value in facts.items() if value is not None])
    if found["changed"]:
        console.table("options that are not the defaults", ("option", "value"), list(found["changed"].items()))
    metrics = result["metrics"] if isinstance(result.get("metrics"), dict) else {}
    figures = {name: value for name, value in (result | metrics).items() if isinstance(value, int | float)}
    if figures:
        console.table("result", ("figure", "value"), [(name, shown(value)) for name, value in figures.items()])
    if found["runs"]:
        rows = [(str(Path(one["path"]).relative_to(path)), state_of(one), _figure(one)) for one in found["runs"]]
        console.table("seeds", ("run", "state", "best"), rows)
    if "samples" in found:
        table = [(shown(sample["step"]), sample["text"]) for sample in found["samples"]]
        console.table("samples: no prompt, the same seed", ("step", "text"), table)


def _losses(path: Path) -> dict[str, str]:
    """Return training and validation loss along the run as small lines."""
    try:
        rows = read_rows(path / METRICS) if os.path.isfile(path / METRICS) else []
    except GptkitError:
        return {}
    names = {"loss": "training loss", "val_loss": "validation loss"}
    found = {name: [row[key] for row in rows if row.get(key) is not None] for key, name in names.items()}
    return {name: sparkline(values) for name, values in found.items() if values}


def _samples(path: Path, row: Row, console: Console) -> Iterator[Row]:
    """Yield a text of each step whose weights the run kept: same seed, no prompt."""
    from gptkit.decoding.text_model import TextModel
    from gptkit.decoding.text_options import TextModelOptions

    for step, folder in _weights(path, row, console).items():
        vocab_size = read_json_object(described_in(folder) / "config.json").get("vocab_size", SAMPLE_TOP_K)
        options = TextModelOptions(max_new_tokens=SAMPLE_TOKENS, top_k=min(SAMPLE_TOP_K, vocab_size))
        model = TextModel(folder, options, tokens=SAMPLE_TOKENS, say=console.say)
        generation = model.generate([model.read(None, options)], [0], options, live=False)
        for _ in generation:
            pass
        yield {"step": step, "path": str(folder), **model.facts(generation.drafts[0])}


def _weights(path: Path, row: Row, console: Console) -> dict[int, Path]:
    """Return the intact weights of a pretrain run by step; an error says why there are none."""
    if row["command"] != "pretrain":
        what = f"a run of gptkit {row['command']}" if row["command"] else "no run of gptkit pretrain"
        fix = "gptkit eval scores a classifier" if row["command"] == "finetune" else "choose another run"
        raise UsageError(f"samples are for language models, but this is {what}", where=str(path), fix=fix)
    saved: dict[int, Path] = {}
    for folder in filter(is_committed, [*all_steps(path / CHECKPOINTS), *all_steps(path / SNAPSHOTS)]):
        if reason := defect(folder, files=WEIGHTS):
            console.warn(f"{folder} is skipped: {reason}")
        else:
            saved[step_of(folder)] = folder
    if row["state"] == "finished" and isinstance(row["step"], int):
        saved[row["step"]] = path / MODEL
    if not saved:
        fix = "wait for its first checkpoint, or set the recipe key `snapshots` for the next run"
        raise InputError("the run has kept no weights to sample from", where=str(path), fix=fix)
    if len(saved) == 1:
        console.say(f"only the weights of step {min(saved):,} were kept; the recipe key `snapshots` keeps more")
    return dict(sorted(saved.items()))
