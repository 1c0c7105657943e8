"""The model of a command that names none: that of the newest finished pretrain run."""

from __future__ import annotations

from pathlib import Path

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.training.results import newest_finished

RUNS = Path("runs")


def newest_model(console: Console) -> str:
    """Return the newest finished pretrain run under ./runs and say which; UsageError without one."""
    newest = newest_finished(RUNS, "pretrain")
    if newest is None:
        fix = "run gptkit pretrain first, or name a model: --model DIR, where a run lies elsewhere"
        raise UsageError(f"no finished pretrain run under ./{RUNS}", where="--model", fix=fix)
    console.say(f"model {newest}: the newest finished pretrain run under ./{RUNS}")
    return str(newest)
