"""Find a model to use: a finished run's result, the newest finished run, the newest weights of an unfinished run."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.model_files import LSTM, MASKED, model_directory, model_files, model_type
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import (
    MODEL,
    RESULT,
    RUNS,
    START,
    WEIGHTS,
    defect,
    is_committed,
    is_undescribed,
    is_unfinished,
    newest_weights,
    step_of,
)

NEEDED = {"command", "run_dir", "model_dir", "seed", "finished_at"}
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either set of files
NEEDED_OF = {"finetune": {"task", "model", "metrics", "per_seed"}}


def read_result(path: Path) -> dict[str, Any] | None:
    """Return a finished run's result; None for an unfinished run, and for one whose result or model is damaged."""
    try:
        return whole_result(path)
    except InputError:
        return None


def lost_result(path: Path) -> str | None:
    """Return what is damaged or missing in a run that was finished, else None."""
    try:
        if os.path.exists(path / RESULT):  # False if another user's directory denies access
            whole_result(path)
    except InputError as error:
        return f"{error.message} ({error.where})"
    return None


def whole_result(path: Path) -> dict[str, Any]:
    """Return a finished run's result, with its paths as they are now; InputError says what is damaged or missing."""
    result = read_json_object(path / RESULT)
    missing = (NEEDED | NEEDED_OF.get(str(result.get("command")), set())) - result.keys()
    if missing:
        raise InputError(f"{min(missing)} is missing", where=str(path / RESULT))
    if not any(all((path / MODEL / name).is_file() for name in names) for names in TOKENIZERS):
        raise InputError("the tokenizer is missing", where=str(path / MODEL))
    for file in model_files(path / MODEL)[1:]:
        try:
            with safe_open(file, framework="numpy"):
                pass  # opening checks the file's length against its header
        except (SafetensorError, OSError) as error:
            raise InputError(f"damaged: {error}", where=str(file)) from None
    return result | {"run_dir": str(path), "model_dir": str(path / MODEL)}


def newest_finished(root: Path, suits: Callable[[dict[str, Any]], bool], warn: Callable[[str], object]) -> Path | None:
    """Return the run directly under `root` that finished last, by its `finished_at`, among those whose result suits.

    `warn` is called for each finished run that is damaged.
    """
    finished: list[tuple[datetime, Path]] = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        result = read_result(path) or {}
        if not result and (reason := lost_result(path)):
            warn(f"{path} is not used: {reason}")
        try:
            at = datetime.fromisoformat(str(result.get("finished_at")))
        except ValueError:
            continue
        if at.tzinfo is not None and suits(result):
            finished.append((at, path))
    return max(finished)[1] if finished else None


def newest_model(
    console: Console,
    can_do: Callable[[dict[str, Any]], bool] | None = None,
    what: str | None = None,
    *,
    command: str = "pretrain",
) -> str:
    """Return the newest finished run under ./runs, and say which; raises UsageError if there is none.

    `can_do` decides by the result whether a run can do `what`; without them it must be a run of `command`. It is never
    the pre-training of a masked model, which few commands take.
    """
    suits = can_do or (lambda result: result.get("command") == command)
    newest = newest_finished(RUNS, lambda result: "masked_loss" not in result and suits(result), console.warn)
    kind, able = (f"{command} run", "") if what is None else ("run", f" can {what}")
    if newest is None:
        unfinished = next(filter(is_unfinished, sorted(RUNS.glob("*"))), None)
        fix = f"run gptkit {command} first, or pass a model or a run elsewhere: --model DIR"
        if unfinished is not None:
            fix += f"; {unfinished} is unfinished: gptkit runs show {unfinished.name}"
        raise UsageError(f"no finished {kind} under ./{RUNS}{able}", where="--model", fix=fix)
    console.say(f"model {newest}: the newest finished {kind} under ./{RUNS}{able and ' that' + able}")
    return str(newest)


def is_gpt(model: str) -> bool:
    """Return whether a model that was read is a GPT, which inspect and convert take."""
    file = Path(model) / "config.json"
    return not file.is_file() or model_type(read_json_object(file)) not in (LSTM, MASKED)


def unread_model(name: str) -> Path | None:
    """Return the directory that a model's name stands for; None for hf: and for unfinished runs, which take reading.

    Raises what `model_directory` raises.
    """
    return None if name.startswith("hf:") or is_unfinished(Path(name)) else model_directory(name)


def require_described(path: Path, name: str) -> None:
    """Raise InputError for a checkpoint or snapshot without a config.json: outside its run, or of an early version."""
    if not is_undescribed(path):
        return
    message = f"a checkpoint or snapshot works only inside its run, whose {START}/ has the configuration and tokenizer"
    fix = "for a folder that can be moved: gptkit convert runs/mine/snapshots/step-000100 exported --to hf"
    raise InputError(message, where=name, fix=fix)


def readable_model(name: str, console: Console) -> str:
    """Return the directory to read for a model's name: the newest intact weights of an unfinished run, else the name.

    Raises InputError if the run has no weights yet, or none intact, and for a damaged checkpoint or snapshot.
    """
    path = Path(name)
    require_described(path, name)
    if is_committed(path) and (reason := defect(path, files=WEIGHTS)):
        raise InputError(f"the weights cannot be used: {reason}", where=name, fix="choose another step of the run")
    if name.startswith("hf:"):
        return name
    if not is_unfinished(path):
        seeds = sorted([*path.glob("seed-*"), *path.glob("*/seed-*")])
        if seeds and not (path / MODEL).is_dir():
            fix = f"let it finish, or pass one of its seeds: --model {seeds[0]}"
            raise InputError("the run has not finished all of its seeds", where=str(path), fix=fix)
        is_described = any((folder / "config.json").exists() for folder in (path, path / MODEL))
        if (path / RESULT).exists() and (path / START).is_dir() and not is_described:
            fix = "rerun the run's command, or pass one of its checkpoints or snapshots"
            raise InputError(f"the run was finished, but its {MODEL}/ is gone", where=str(path), fix=fix)
        return name
    newest, damaged = newest_weights(path)
    for line in damaged:
        console.warn(line)
    if newest is None and damaged:
        fix = "restore a checkpoint, or choose another model"
        raise InputError("none of the run's saved weights are intact", where=name, fix=fix)
    if newest is None:
        raise InputError("the run has not saved any weights yet", where=name, fix="wait for its first checkpoint")
    require_described(newest, name)
    console.say(f"model {name}: the run is unfinished, using its weights of step {step_of(newest):,} ({newest})")
    return str(newest)
