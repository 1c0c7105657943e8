"""The model of a command that names none: that of the newest finished pretrain run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.training.results import newest_finished

RUNS = Path("runs")


def newest_model(console: Console) -> str:
    """Return the newest finished pretrain run under ./runs and say which; UsageError without one."""
    newest = newest_finished(RUNS, lambda result: result.get("command") == "pretrain")
    if newest is None:
        fix = "run gptkit pretrain first, or name a model: --model DIR, where a run lies elsewhere"
        raise UsageError(f"no finished pretrain run under ./{RUNS}", where="--model", fix=fix)
    console.say(f"model {newest}: the newest finished pretrain run under ./{RUNS}")
    return str(newest)


def newest_model_for(can_do: Callable[[dict[str, Any]], bool], what: str, console: Console) -> str:
    """Return the newest finished run under ./runs whose result says that it can do it; UsageError without one."""
    newest = newest_finished(RUNS, can_do)
    if newest is None:
        fix = "run gptkit pretrain first, or name a model: --model DIR, where a run lies elsewhere"
        raise UsageError(f"no finished run under ./{RUNS} can do {what}", where="--model", fix=fix)
    console.say(f"model {newest}: the newest finished run under ./{RUNS} that can do {what}")
    return str(newest)
