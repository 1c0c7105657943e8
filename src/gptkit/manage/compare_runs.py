"""`gptkit runs compare`: the options in which runs differ, their figures, and all losses in one picture."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.manage.runs import (
    EVALUATION,
    Row,
    RunsListOptions,
    describe,
    find_run,
    parts,
    read_config,
    read_json,
    shown,
)
from gptkit.options import REQUIRED, option
from gptkit.report.plots import draw_runs
from gptkit.system.files import translate_os_errors
from gptkit.system.run_layout import METRICS, MODEL, RESULT, START
from gptkit.training.metrics import newest_rows, read_rows

PICTURE = Path("compare.png")
AXES = {"steps": ("step", "steps"), "tokens": ("tokens", "tokens"), "seconds": ("elapsed_seconds", "seconds")}
FIGURES = ("bits_per_byte", "val_loss", "val_perplexity", "masked_loss", "train_loss")
COSTS = ("steps", "tokens", "train_seconds", "tokens_per_second")
OF_SEEDS = ("metrics", "interval")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
NORMAL = 1.96  # standard errors that a 95% interval reaches to each side
WIDEST = 3  # runs that become columns


@dataclass(frozen=True, kw_only=True)
class RunsCompareOptions(RunsListOptions):
    """Compare runs: the options in which they differ, their figures, and all losses in one picture."""

    runs: tuple[str, ...] = option(REQUIRED, "Names under --root, or paths.", argument=True, metavar="RUN")
    by: Literal["steps", "tokens", "seconds"] = option("steps", "Horizontal axis of the picture.")
    out: Path | None = option(
        None, "Picture to write; never overwrites [default: compare.png, or compare-2.png ...].", metavar="FILE.png"
    )


def run(options: RunsCompareOptions, console: Console) -> dict[str, Any]:
    """Print what differs, draw the losses, and return what `--json` prints."""
    paths = [find_run(name, options.root) for name in options.runs]
    if len(paths) < 2 or len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UsageError("comparing takes two runs or more, each once", where="RUN", fix="gptkit runs ls lists them")
    picture = _free_picture(options.out)
    rows = [describe(path) for path in paths]
    for row in rows:
        if row["command"] is None:
            raise UsageError(f"this run cannot be compared: {row['reason']}", where=row["path"], fix="leave it out")
    names = _names(paths)
    differing = _differing([_options_of(path) for path in paths])
    figures = _figures_of(paths)
    is_one_tokenizer = len({_tokenizer_of(path) for path in paths} - {None}) < 2
    _print(names, differing, figures, console)
    for note in _notes(rows, paths, is_one_tokenizer=is_one_tokenizer):
        console.warn(note)
    lines = {name: _rows_of(path, console) for name, path in zip(names, paths, strict=True)}
    image = _draw(lines, rows, options.by, picture, is_one_tokenizer=is_one_tokenizer, console=console)
    best = f"gptkit runs show {shlex.quote(str(paths[0]))}"
    return {"runs": rows, "options": differing, "metrics": figures, "image": image, "next": best}


def _free_picture(out: Path | None) -> Path:
    """Return the file to write; UsageError for one that exists, which is never overwritten."""
    if out is None:
        names = itertools.chain([PICTURE], (Path(f"{PICTURE.stem}-{n}.png") for n in itertools.count(2)))
        return next(path for path in names if not os.path.lexists(path))
    if out.suffix.lower() != ".png":
        raise UsageError("the picture is a PNG file", where=f"--out {out}", fix="write FILE.png")
    if os.path.lexists(out):
        raise UsageError("the file already exists", where=f"--out {out}", fix="choose another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise UsageError("no such folder", where=f"--out {out}", fix="create it, or choose another")
    return out


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names, or their paths where two have the same name."""
    names = [path.absolute().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _options_of(path: Path) -> dict[str, Any]:
    command, config = read_config(path)
    return {"command": command, **config}


def _differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the options that are not the same in all runs, each with its value in every run, None where unset."""
    names = dict.fromkeys(name for config in configs for name in config)
    values = {name: [config.get(name) for config in configs] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


# --- figures ---


def _figures_of(paths: Sequence[Path]) -> dict[str, list[dict[str, Any] | None]]:
    """Return each figure with its value and 95% interval in every run, None where a run does not have it."""
    found = [_figures(path) for path in paths]
    names = dict.fromkeys(name for figures in found for name in figures)
    return {name: [figures.get(name) for figures in found] for name in names}


def _figures(path: Path) -> dict[str, dict[str, Any]]:
    """Return a run's figures: those of its result, else the newest of an unfinished run; then its stored evaluations.

    An interval is that over the seeds, or reaches 1.96 standard errors of the items to each side; None if unknown.
    """
    result = read_json(path / RESULT) or _newest_evaluation(path)
    metrics, intervals = ({**found} if isinstance(found := result.get(key), dict) else {} for key in OF_SEEDS)
    own = {name: result.get(name) for name in FIGURES + COSTS}
    figures: dict[str, dict[str, Any]] = {
        name: {"value": value, "interval": intervals.get(name)}
        for name, value in (metrics | own).items()
        if isinstance(value, int | float)
    }
    for file in sorted(path.glob("*.json")):
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # edited by hand
            if (stored := read_json(file)).get("schema") == EVALUATION:
                figures |= _evaluated(stored)
    return figures


def _newest_evaluation(path: Path) -> dict[str, Any]:
    """Return the figures of an unfinished run's newest evaluation, under the names of a result."""
    rows = newest_rows(path / METRICS) if (path / METRICS).is_file() else iter(())
    row = next((row for row in rows if row.get("val_loss") is not None), {})
    names = {"step": "steps", "loss": "train_loss"}
    metrics = {name: row[name] for name in list(row)[list(row).index("val_loss") + 1 :]} if row else {}
    return {names.get(name, name): value for name, value in row.items()} | {"metrics": metrics}


def _evaluated(stored: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics in an evaluation's file, the last step's in one along a run."""
    checkpoints = stored.get("checkpoints")
    results = (checkpoints[-1] if checkpoints else stored).get("results", {})
    found = {}
    for key, result in results.items():
        for name, metric in result["metrics"].items():
            value, error = metric["value"], metric.get("stderr")
            interval = None if error is None else [value - NORMAL * error, value + NORMAL * error]
            found[f"{key} {name}"] = {"value": value, "interval": interval}
    return found


# --- what people see ---


def _print(
    names: Sequence[str],
    differing: Mapping[str, Sequence[Any]],
    figures: Mapping[str, Sequence[Mapping[str, Any] | None]],
    console: Console,
) -> None:
    if differing:
        texts = {
            name: ["unset" if value is None else shown(value) for value in each] for name, each in differing.items()
        }
        _table("options that differ", "option", texts, names, console)
    else:
        console.say("the runs have the same options")
    if figures:
        texts = {name: [_shown(value) for value in each] for name, each in figures.items()}
        _table("figures, with 95% intervals where known", "figure", texts, names, console)


def _shown(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "n/a"
    interval = figure["interval"]
    return shown(figure["value"]) + (f" ({shown(interval[0])} to {shown(interval[1])})" if interval else "")


def _table(title: str, head: str, texts: Mapping[str, Sequence[str]], names: Sequence[str], console: Console) -> None:
    """Print a table whose columns are a few runs, or the items if there are many."""
    if len(names) <= WIDEST:
        console.table(title, (head, *names), [(item, *each) for item, each in texts.items()])
    else:
        rows = [(name, *each) for name, *each in zip(names, *texts.values(), strict=True)]
        console.table(title, ("run", *texts), rows)


def _notes(rows: Sequence[Row], paths: Sequence[Path], *, is_one_tokenizer: bool) -> list[str]:
    """Return what stands against comparing the runs."""
    notes = []
    if len({row["command"] for row in rows}) > 1:
        notes.append("losses of pretrain runs are per token, those of finetune runs per example")
    elif rows[0]["command"] == "pretrain" and not is_one_tokenizer:
        notes.append("the tokenizers differ, so losses per token are not comparable: compare bits per byte")
    splits = {read_json(path / RESULT).get("split_sha256") for path in paths} - {None}
    if len(splits) > 1:
        notes.append("the runs were not validated on the same text")
    return notes


def _tokenizer_of(path: Path) -> str | None:
    """Return a hash of a run's tokenizer, None without one."""
    for folder in (path / START, path / MODEL):
        files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
        if files:
            return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return None


def _rows_of(path: Path, console: Console) -> list[list[dict[str, Any]]]:
    """Return the rows of a run, of each of its seeds."""
    found = [read_rows(run / METRICS) for run in (path, *parts(path)) if (run / METRICS).is_file()]
    if not any(found):
        console.warn(f"{path} is not in the picture: it has no losses yet")
    return [rows for rows in found if rows]


def _draw(
    lines: Mapping[str, list[list[dict[str, Any]]]],
    rows: Sequence[Row],
    by: str,
    picture: Path,
    *,
    is_one_tokenizer: bool,
    console: Console,
) -> str | None:
    """Draw the losses, or bits per byte where the tokenizers differ; return the file, None without anything to draw."""
    commands = {row["command"] for row in rows}
    is_pretrain, (axis, xlabel) = commands == {"pretrain"}, AXES[by]
    if is_pretrain and not is_one_tokenizer:
        validation, names, ylabel = "bits_per_byte", {"bits_per_byte": "validation"}, "bits per byte"
    elif is_pretrain:
        validation, names, ylabel = "val_loss", {"val_loss": "validation", "loss": "training"}, "loss (nats per token)"
    elif "pretrain" in commands:
        validation, names, ylabel = "val_loss", {"val_loss": "validation", "loss": "training"}, "loss"
    else:
        has_auxiliary = any(read_config(Path(row["path"]))[1].get("lm_coef") for row in rows)
        names = {"val_loss": "dev (classifier: L2)", "loss": f"training ({'L3' if has_auxiliary else 'L2'})"}
        validation, ylabel = "val_loss", "loss per example"

    def points(row: Mapping[str, Any], figure: str) -> list[tuple[float, float]]:
        return [] if None in (row.get(axis), row.get(figure)) else [(row[axis], row[figure])]

    curves = {
        name: [{key: [point for row in seed for point in points(row, key)] for key in names} for seed in seeds]
        for name, seeds in lines.items()
    }
    curves = {name: seeds for name, seeds in curves.items() if any(any(seed.values()) for seed in seeds)}
    if not curves:
        console.say("no picture: no run has losses to draw")
        return None
    with translate_os_errors("drawing the picture", fix="choose another --out"):
        draw_runs(curves, picture, lines=names, validation=validation, xlabel=xlabel, ylabel=ylabel)
    console.say(f"picture: {picture}")
    return str(picture)
