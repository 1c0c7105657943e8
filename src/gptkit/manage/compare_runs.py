"""`gptkit runs compare`: the options in which runs differ, their figures, and all losses in one picture."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.manage.options import RunsCompareOptions
from gptkit.manage.run_rows import describe, evaluation_in, find_run, metrics_of, parts, read_config, read_json
from gptkit.manage.runs import figure_of, shown, written
from gptkit.report.plots import draw_runs
from gptkit.system.files import translate_os_errors
from gptkit.system.run_layout import METRICS, MODEL, RESULT, START, validation_loss
from gptkit.training.metrics import newest_rows, read_rows

AXES = {"steps": "step", "tokens": "tokens", "seconds": "elapsed_seconds"}
FIGURES = ("bits_per_byte", "val_loss", "val_perplexity", "masked_loss", "train_loss")
COSTS = ("steps", "tokens", "train_seconds", "tokens_per_second")
EVALUATION = "gptkit.eval/1"  # the schema of what gptkit eval --output and --all-checkpoints write
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
NORMAL = 1.96  # standard errors that a 95% interval reaches to each side
LOWER_IS_BETTER = re.compile("loss|perplexity|bits_per|calibration_error")
PER_TOKEN = re.compile("^(val|masked)_loss|^val_perplexity|token_perplexity")
WIDEST = 3  # runs that become columns

Figures = dict[str, dict[str, Any]]  # name -> value and interval


def run(options: RunsCompareOptions, console: Console) -> dict[str, Any]:
    """Print what differs, draw the losses, and return what `--json` prints."""
    paths = [find_run(name, options.root) for name in options.runs]
    if len(paths) < 2 or len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UsageError("compare takes two or more different runs", where="RUN", fix="gptkit runs ls lists them")
    picture = _free_picture(options.out)
    rows = [describe(path) for path in paths]
    if unknown := next((row for row in rows if row["command"] is None), None):
        raise UsageError(f"this run cannot be compared: {unknown['reason']}", where=unknown["path"], fix="leave it out")
    names = [path.absolute().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    configs = [{"command": command, **config} for command, config in map(read_config, paths)]
    differing = {name: each for name, each in _by_name(configs).items() if any(value != each[0] for value in each)}
    figures = _by_name([_figures(path) for path in paths])
    if differing:
        texts = {name: [*map(written, each)] for name, each in differing.items()}
        _print("options that differ", "option", texts, names, console)
    else:
        console.say("the runs have the same options")
    if figures:
        same_text = len({_text_of(*each) for each in zip(paths, configs, strict=True)}) == 1
        same_unit = _have_same_tokenizer(paths) and {row["command"] for row in rows} == {"pretrain"}
        best_figures = [figure_of(row) or "n/a" for row in rows]
        _print_figures(figures, best_figures, paths, names, console, same_text=same_text, same_unit=same_unit)
    image = _draw(dict(zip(names, paths, strict=True)), configs, options.by, picture, console)
    best = f"gptkit runs show {shlex.quote(str(paths[0]))}"
    return {"runs": rows, "options": differing, "metrics": figures, "image": image, "next": best}


def _free_picture(out: Path | None) -> Path:
    """Return the file to write; UsageError for one that exists, which is never overwritten."""
    if out is None:
        names = itertools.chain(["compare.png"], (f"compare-{n}.png" for n in itertools.count(2)))
        return next(path for path in map(Path, names) if not os.path.lexists(path))
    where = f"--out {out}"
    if out.suffix.lower() != ".png":
        raise UsageError("the picture is a PNG file", where=where, fix="write FILE.png")
    if os.path.lexists(out):
        raise UsageError("the file already exists", where=where, fix="choose another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise UsageError("no such folder", where=where, fix="create it, or choose another")
    return out


def _by_name(of_runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return what the runs have by name, each with its value in every run, None where a run does not have it."""
    return {name: [of_run.get(name) for of_run in of_runs] for name in dict.fromkeys(itertools.chain(*of_runs))}


# --- figures ---


def _figures(path: Path) -> Figures:
    """Return a run's figures: those of its result, else the newest of an unfinished run; then its stored evaluations.

    An interval is that over the seeds, of one seed that over the items, or 1.96 standard errors of the items to each
    side; None if unknown.
    """
    result = read_json(path / RESULT) or _newest_evaluation(path)
    own = metrics_of(result) | {name: result.get(name) for name in FIGURES + COSTS}
    intervals = metrics_of(result, "interval") or metrics_of(result, "item_interval")
    figures: Figures = {
        name: {"value": value, "interval": intervals.get(name)}
        for name, value in own.items()
        if isinstance(value, int | float)
    }
    for file in sorted(path.glob("*.json")):
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # edited by hand
            if (stored := read_json(file)).get("schema") == EVALUATION:
                figures |= _evaluated(stored)
    return figures


def _newest_evaluation(path: Path) -> dict[str, Any]:
    """Return the figures of an unfinished run's newest evaluation, under the names of a result."""
    rows = newest_rows(path / METRICS, "_loss") if (path / METRICS).is_file() else iter(())
    row = next((row for row in rows if validation_loss(row) is not None), None)
    return row | {"steps": row["step"], "train_loss": row["loss"], "metrics": evaluation_in(row)} if row else {}


def _evaluated(stored: Mapping[str, Any]) -> Figures:
    """Return the metrics in an evaluation's file, the last step's in one along a run."""
    checkpoints = stored.get("checkpoints")
    found = {}
    for key, result in (checkpoints[-1] if checkpoints else stored).get("results", {}).items():
        for name, metric in result["metrics"].items():
            value, error = metric["value"], metric.get("stderr")
            interval = None if error is None else [value - NORMAL * error, value + NORMAL * error]
            figure = {"value": value, "interval": interval}
            found[f"{key} {name}"] = figure | {"data_sha256": result.get("data_sha256")}
    return found


# --- what people see ---


def _print_figures(
    figures: Mapping[str, Sequence[Mapping[str, Any] | None]],
    best_figures: Sequence[str],
    paths: Sequence[Path],
    names: Sequence[str],
    console: Console,
    **same: bool,
) -> None:
    """Print the runs' own figures and the evaluations that several have, and the command that makes the others."""
    texts, stars, alone = {"best": best_figures}, "", dict[int, list[str]]()
    for name, each in figures.items():
        known = [number for number, figure in enumerate(each) if figure and figure["value"] is not None]
        if _is_stored(name) and len(known) < 2:
            for number in known:
                alone.setdefault(number, []).append(name)
        elif known:
            best = _best(name, each, **same)
            texts[name] = [_with_interval(figure) + " *" * (number == best) for number, figure in enumerate(each)]
            stars = stars if best is None else "; * = best"
    if texts:
        _print(f"figures, with 95% intervals where known{stars}", "figure", texts, names, console)
    for number, left_out in alone.items():
        tasks = dict.fromkeys(name.partition("/")[0] for name in left_out)
        for other in paths:
            if other != paths[number] and "masked_loss" not in read_json(other / RESULT):
                words = (*itertools.chain(*(("--task", task) for task in tasks)), "--model", str(other))
                command = shlex.join(["gptkit", "eval", *words, "--output", str(other / "eval.json")])
                has = f"left out {len(left_out)} figure(s) that only {paths[number]} has"
                console.say(f"{has}; to measure {other}: {command}")


def _is_stored(name: str) -> bool:
    """Return whether a figure is of a stored evaluation: "TASK/PROTOCOL MEASURE"."""
    return " " in name


def _text_of(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a run's own figures were measured on, as far as it is recorded."""
    facts = (config["command"], config.get("task"), read_json(path / RESULT).get("split_sha256"))
    return (*map(str, facts), str(config.get("data")) if "task" in config else "")


def _best(name: str, figures: Sequence[Mapping[str, Any] | None], *, same_text: bool, same_unit: bool) -> int | None:
    """Return which run has the best figure; None if they are not comparable, or the best two intervals overlap.

    Without intervals only figures of whole validation texts are compared, not a classifier's of a few examples.
    """
    present = [(figure, number) for number, figure in enumerate(figures) if figure and figure["value"] is not None]
    same_data = len({figure.get("data_sha256") for figure, _ in present}) == 1 if _is_stored(name) else same_text
    differs = PER_TOKEN.search(name) is not None and not same_unit
    if name == "train_loss" or not same_data or differs or len(present) < 2:
        return None
    present.sort(key=lambda item: item[0]["value"], reverse=not LOWER_IS_BETTER.search(name))
    (first, number), (second, _) = present[:2]
    if name not in FIGURES and not (first["interval"] and second["interval"]):
        return None
    lows, highs = zip(*(each["interval"] or [each["value"]] * 2 for each in (first, second)), strict=True)
    return None if max(lows) <= min(highs) else number


def _with_interval(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "n/a"
    interval = figure["interval"]
    return shown(figure["value"]) + (f" ({shown(interval[0])} to {shown(interval[1])})" if interval else "")


def _print(title: str, head: str, texts: Mapping[str, Sequence[str]], names: Sequence[str], console: Console) -> None:
    """Print a table whose columns are a few runs, or the items if there are many."""
    if len(names) <= WIDEST:
        console.table(title, (head, *names), [(item, *each) for item, each in texts.items()])
    else:
        console.table(title, ("run", *texts), [*zip(names, *texts.values(), strict=True)])


def _draw(
    paths: Mapping[str, Path], configs: Sequence[Mapping[str, Any]], by: str, picture: Path, console: Console
) -> str | None:
    """Draw the losses, or bits per byte where the tokenizers differ; return the file, None without anything to draw.

    Warns of what makes the runs incomparable.
    """
    commands, axis = {config["command"] for config in configs}, AXES[by]
    lines, ylabel = {"val_loss": "validation", "loss": "training"}, "loss (nats per token)"
    if "finetune" in commands:
        tuned = [config for config in configs if config["command"] == "finetune"]
        coefficients = [config.get("lm_coef") for config in tuned]
        has_ablation = any(config.get("study", "none") != "none" for config in tuned)
        is_mixed = any(coefficients) and (has_ablation or 0 in coefficients)
        training = "L3; L2 where lm_coef is 0" if is_mixed else "L3" if any(coefficients) else "L2"
        lines = {"val_loss": "dev (classifier: L2)", "loss": f"training ({training})"}
        ylabel = "loss per example"
        if len(commands) > 1:
            console.warn("losses of pretrain runs are per token, those of finetune runs per example")
            lines = {"val_loss": "validation (finetune: L2)", "loss": f"training (finetune: {training})"}
            ylabel = "loss (pretrain: per token; finetune: per example)"
    elif not _have_same_tokenizer(paths.values()):
        console.warn("the tokenizers differ, so losses per token are not comparable: compare bits per byte")
        if by != "seconds":
            console.warn(f"equal {by} are then different amounts of text: --by seconds compares costs")
        lines, ylabel = {"bits_per_byte": "validation"}, "bits per byte"
    if len({config.get("objective", "causal") for config in configs}) > 1:
        console.warn("losses of masked tokens and of next tokens are not comparable")
    if len({read_json(path / RESULT).get("split_sha256") for path in paths.values()} - {None}) > 1:
        console.warn("the runs were not validated on the same text")
    curves = {}
    for name, path in paths.items():
        files = [part / METRICS for part in (path, *parts(path)) if (part / METRICS).is_file()]
        seeds = [{figure: _points(rows, axis, figure) for figure in lines} for rows in map(read_rows, files)]
        if any(any(seed.values()) for seed in seeds):
            curves[name] = seeds
        else:
            console.warn(f"{path} is not in the picture: {_missing(path)}")
    if not curves:
        console.say("no picture: no run has losses to draw")
        return None
    with translate_os_errors("drawing the picture", fix="choose another --out"):
        draw_runs(curves, picture, lines=lines, validation=next(iter(lines)), xlabel=by, ylabel=ylabel)
    console.say(f"picture: {picture}")
    return str(picture)


def _missing(path: Path) -> str:
    """Return why a run has nothing to draw."""
    if not (path / METRICS).is_file() or not read_rows(path / METRICS):
        return "it has no losses yet"
    if unknown := (read_json(path / RESULT).get("unknown_tokens") or {}).get("validation"):
        return f"its bits per byte are n/a, as {unknown:,} tokens of its validation text are unknown to its tokenizer"
    return "it has no evaluation with bits per byte"


def _points(rows: Sequence[dict[str, Any]], axis: str, figure: str) -> list[tuple[float, float]]:
    known = (row | ({figure: validation_loss(row)} if figure == "val_loss" else {}) for row in rows)
    return [(row[axis], row[figure]) for row in known if None not in (row.get(axis), row.get(figure))]


def _have_same_tokenizer(paths: Iterable[Path]) -> bool:
    return len({*map(_tokenizer_of, paths)} - {None}) < 2


def _tokenizer_of(path: Path) -> str | None:
    """Return a hash of a run's tokenizer, None without one."""
    for folder in (path / START, path / MODEL):
        if files := [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]:
            return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return None
