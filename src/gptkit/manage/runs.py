"""`gptkit runs`: list runs and show one. Reads a run directory in any condition, without torch."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.errors import GptkitError, InputError, UsageError, nearest
from gptkit.options import REQUIRED, OutputOptions, option
from gptkit.recipes import CONFIG, CONFIG_HEADER
from gptkit.report.text import duration, on_one_line, size
from gptkit.system import run_layout
from gptkit.system.files import lock_holder, size_of
from gptkit.system.reading import LARGEST_YAML, read_json_object, read_text
from gptkit.system.run_layout import CHECKPOINTS, DIVERGED, METRICS, MODEL, RESULT, RUNS, SNAPSHOTS, all_steps, step_of
from gptkit.training.finished_runs import lost_result, read_result
from gptkit.training.metrics import NEWEST_BYTES, newest_rows, read_rows

HEADER = re.compile(CONFIG_HEADER.format(command=r"(\w+)"))
FIELDS = ("command", "data", "state", "step", "steps", "metric", "value", "best_step", "bytes", "finished_at")
SAMPLE_TOKENS, SAMPLE_TOP_K = 40, 40
BARS, MOST_BARS = "▁▂▃▄▅▆▇█", 24
MOST_REASONS = 5
REMOVING = "being-removed-"  # prefix of the name of a run while gptkit runs rm removes it
PICTURES = ("loss.png", "zero-shot.png")

Row = dict[str, Any]  # path, FIELDS, changed_at, and the reason: what is wrong, or who holds the lock


@dataclass(frozen=True, kw_only=True)
class RunsListOptions(OutputOptions):
    """List the runs, newest first: what they train on, how far they got, best figure, size and age."""

    root: Path = option(RUNS, "Folder of the runs.", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class RunsShowOptions(RunsListOptions):
    """Show one run: its options, figures, losses, saved weights, and the command that resumes or uses it."""

    run: str = option(REQUIRED, "A run: its name under --root, or its path.", argument=True, metavar="RUN")
    samples: bool = option(False, "Also generate a text with the weights of each saved step.")


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
        if _exists(path):  # it may have been removed meanwhile
            yield row


def find_run(name: str, root: Path) -> Path:
    """Return the path of a run given by its name under the root, or by its path; UsageError if there is neither."""
    places = [root / name] * (name not in ("", ".", "..")) + [Path(name)] * bool(name)
    if found := next(filter(_exists, places[::-1] if "/" in name else places), None):
        return found
    near = nearest(name, [path.name for path in root.iterdir()]) if root.is_dir() else None
    fix = f"did you mean {near!r}?" if near else "gptkit runs ls lists them"
    raise UsageError("no such run", where=name or "RUN", fix=fix)


def _exists(path: Path) -> bool:
    try:
        return path.is_symlink() or path.exists()
    except (OSError, ValueError):  # no permission to look; a NUL character
        return False


# --- what a run directory says ---


def describe(path: Path) -> Row:
    """Return the row of a run, or of whatever else lies among the runs; nothing about it is an error."""
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
    elif (result := read_result(path)) is None:
        yield {"reason": lost_result(path)}
    else:
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
    return value if isinstance(value, list | tuple) else [value]


def _data(command: str, config: Mapping[str, Any]) -> str:
    given = [str(item) for item in _items(config.get("data", [])) if item is not None]
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
    last = next(rows, None)
    step = last["step"] if last else 0
    diverged = read_json(path / DIVERGED).get("step")
    reason = f"diverged at step {diverged:,}" if isinstance(diverged, int) and diverged > step else None
    found = {"step": step, "steps": config.get("steps") or _planned_steps(path), "reason": reason}
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


def _planned_steps(path: Path) -> int | None:
    """Return the steps that a finetune run was to have, from its newest checkpoint; config.yaml has only its epochs."""
    newest = next(filter(run_layout.is_committed, all_steps(path / CHECKPOINTS)), None)
    steps = read_json(newest / "state.json").get("steps") if newest else None
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


# --- for people ---


def _when(row: Row) -> float:
    for name in ("finished_at", "changed_at"):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return datetime.fromisoformat(row[name]).timestamp()
    return 0.0


def _cells(row: Row) -> list[str | None]:
    """Return a row's cells of the table: what, state, figure, size and age."""
    names = ", ".join(part.rstrip("/").rpartition("/")[2] for part in (row["data"] or "").split(", "))
    age = duration(max(0.0, round(time.time() - _when(row))))
    return [row["command"] and f"{row['command']} {names}", state_of(row), _figure(row), size(row["bytes"]), age]


def state_of(row: Row) -> str:
    """Return the state with the step: finished 240, unfinished 120/240."""
    step, steps = (f"{row[name]:,}" if isinstance(row[name], int) else "" for name in ("step", "steps"))
    if row["state"] == "damaged" or not step:
        return str(row["state"])
    return f"{row['state']} {step}" + (f"/{steps}" if steps and row["state"] != "finished" else "")


def _figure(row: Row) -> str | None:
    name = str(row["metric"]).replace("_per_", "/").replace("_", " ")  # as the progress of a run has it
    at = "" if row["best_step"] is None else f" at {row['best_step']:,}"
    return None if row["metric"] is None else f"{name} {shown(row['value'])}{at}"


def shown(value: Any) -> str:
    """Return a figure with four digits, anything else as it is."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def written(value: Any) -> str:
    """Return an option's value as a command line or recipe has it: all its digits, the items of a list."""
    if isinstance(value, bool):
        return str(value).lower()
    return "unset" if value in (None, [], ()) else ", ".join(map(str, _items(value)))


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
    facts |= {"best figure": _figure(found)} | _after_best(found)
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
    seeds = [(str(Path(one["path"]).relative_to(path)), state_of(one), _figure(one)) for one in found["runs"]]
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
    use = kept and f"step {step_of(kept):,}: gptkit generate --model {shlex.quote(str(kept))}"
    return {"last figure": _figure(found | {"value": last, "best_step": end}), "best weights kept": use}


def _losses(path: Path) -> dict[str, str]:
    """Return training and validation loss along the run as small lines."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(GptkitError):
        rows = read_rows(path / METRICS) if os.path.isfile(path / METRICS) else []
    names = {"loss": "training loss", "val_loss": "validation loss"}
    found = {name: [row[key] for row in rows if row.get(key) is not None] for key, name in names.items()}
    return {name: sparkline(values) for name, values in found.items() if values}


def _samples(path: Path, row: Row, console: Console) -> Iterator[Row]:
    """Yield a text of each step whose weights the run kept: same seed, no prompt."""
    from gptkit.decoding.text_model import TextModel
    from gptkit.decoding.text_options import TextModelOptions

    for step, folder in _weights(path, row, console).items():
        vocab_size = read_json_object(run_layout.described_in(folder) / "config.json").get("vocab_size", SAMPLE_TOP_K)
        options = TextModelOptions(max_new_tokens=SAMPLE_TOKENS, top_k=min(SAMPLE_TOP_K, vocab_size))
        model = TextModel(folder, options, tokens=SAMPLE_TOKENS, say=console.say)
        generation = model.generate([model.read(None, options)], [0], options, live=False)
        for _ in generation:
            pass
        yield {"step": step, "path": str(folder), **model.facts(generation.drafts[0])}


def _weights(path: Path, row: Row, console: Console) -> dict[int, Path]:
    """Return the intact weights of a pretrain run by step; an error says why there are none."""
    if row["command"] != "pretrain":
        what = "a run of gptkit finetune" if row["command"] == "finetune" else "not a pretrain run"
        fix = "gptkit eval scores a classifier" if row["command"] == "finetune" else "choose another run"
        raise UsageError(f"samples are for language models, but this is {what}", where=str(path), fix=fix)
    saved: dict[int, Path] = {}
    for folder in filter(run_layout.is_committed, [*all_steps(path / CHECKPOINTS), *all_steps(path / SNAPSHOTS)]):
        if reason := run_layout.defect(folder, files=run_layout.WEIGHTS):
            console.warn(f"{folder} is skipped: {reason}")
        else:
            saved[step_of(folder)] = folder
    if row["state"] == "finished" and isinstance(row["step"], int):
        saved[row["step"]] = path / MODEL
    if not saved:
        fix = "wait for its first checkpoint, or set the recipe key `snapshots` for the next run"
        raise InputError("the run has no saved weights to sample from", where=str(path), fix=fix)
    if len(saved) == 1:
        console.say(f"only the weights of step {min(saved):,} were kept; the recipe key `snapshots` keeps more")
    return dict(sorted(saved.items()))
