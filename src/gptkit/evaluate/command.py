"""`gptkit eval`: a model and tasks in, scores with their protocols out; and a verdict against a baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from gptkit.console import Console
from gptkit.errors import GptkitError, UsageError
from gptkit.evaluate.along import evaluate_along
from gptkit.evaluate.contamination import Overlap
from gptkit.evaluate.gate.report import Gate
from gptkit.evaluate.gate.suites import SuiteTask
from gptkit.evaluate.jobs import (
    Job,
    evaluate_job,
    is_known,
    prepare_job,
    refuse_unknown,
    tasks_of,
    unscored_job,
    wanted_tasks,
)
from gptkit.evaluate.model import EvaluatedModel
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.overlap import overlap_result, overlaps_with
from gptkit.evaluate.results import EvaluatedRun, eval_text
from gptkit.evaluate.tables import show_scores
from gptkit.model_files.files import model_directory
from gptkit.system import files
from gptkit.system.processor import refuse_emulated_bf16
from gptkit.tasks.evaluations import find_evaluation
from gptkit.tasks.heads import head_fits, output_labels
from gptkit.tasks.table import TASKS, find_task
from gptkit.training.finished_runs import newest_model_for, readable_model
from gptkit.training.memory import keep_freed_memory
from gptkit.training.processes import main_process_first, make_accelerator, on_main_process


def run(options: EvalOptions, console: Console) -> dict[str, Any]:
    """Score, tell, compare; return what `--json` prints, or raise GateFailed with it."""
    _check(options)
    keep_freed_memory()
    accelerator = make_accelerator(options.device)
    refuse_emulated_bf16(accelerator.device.type, options.precision)
    if options.precision == "auto":  # on every machine, as its numbers are compared with others'
        options = dataclasses.replace(options, precision="fp32")
    wanted = wanted_tasks(options)
    if options.all_checkpoints is not None:
        return evaluate_along(options.all_checkpoints, wanted, options, accelerator, console)
    gate = Gate(options)  # a baseline that cannot be read is refused before anything is computed
    asked = options.model or _newest(wanted, console)
    name = on_main_process(accelerator, lambda: readable_model(asked, console))
    model = EvaluatedModel(model_directory(name), options, accelerator, console)
    jobs = _jobs(tasks_of(wanted, model, options), model, accelerator, console)
    unscored = {key: one for job in jobs for key, one in unscored_job(job, model).items()}
    gate.check(EvaluatedRun(name, None, model.tokenizer_sha256, unscored), jobs)
    overlaps = overlaps_with(options.contamination, jobs, console) if options.contamination is not None else None
    scores = {key: one for job in jobs for key, one in evaluate_job(job, model).items()}
    present = EvaluatedRun(name, model.model_sha256, model.tokenizer_sha256, scores)
    return on_main_process(accelerator, lambda: _tell(present, jobs, overlaps, gate, options, console))


def _check(options: EvalOptions) -> None:
    """Refuse what can be refused before any file is read."""
    clashes = {
        "--suite, --task": options.suite is not None and bool(options.task),
        "--suite, --data": options.suite is not None and options.data is not None,
        "--all-checkpoints, --model": options.all_checkpoints is not None and options.model is not None,
        "--all-checkpoints, --baseline": options.all_checkpoints is not None and options.baseline is not None,
        "--all-checkpoints, --contamination": options.all_checkpoints is not None and options.contamination is not None,
        "--all-checkpoints, --junit": options.all_checkpoints is not None and options.junit is not None,
        "--all-checkpoints, --summary": options.all_checkpoints is not None and options.summary is not None,
    }
    for where, is_taken in clashes.items():
        if is_taken:
            raise UsageError("these do not go together", where=where, fix="leave one of them out")
    _refuse_overwriting(options)
    if options.floor is not None and options.baseline is None:
        raise UsageError("a floor is of a drop from a baseline", where="--floor", fix="name one: --baseline FILE")
    for flag, path in (("--output", options.output), ("--junit", options.junit), ("--summary", options.summary)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            problem = "a folder" if path.is_dir() else "no such folder"
            raise UsageError(
                f"{path} cannot be written: {problem}", where=flag, fix="name a file in a folder that exists"
            )


def _refuse_overwriting(options: EvalOptions) -> None:
    """Refuse a report under the name of what is read, or of another report."""
    names = ("output", "junit", "summary", "baseline", "suite", "data", "contamination")
    places = {name: Path(value).resolve() for name in names if (value := getattr(options, name)) is not None}
    for name in ("output", "junit", "summary"):
        for other, place in places.items():
            if other != name and places.get(name) == place and not _is_stream(place):
                raise UsageError(f"it would overwrite --{other}", where=f"--{name}", fix="name another file")


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _newest(wanted: Sequence[SuiteTask], console: Console) -> str:
    """Return the newest finished run that can do all of the tasks."""

    def can_do(result: dict[str, Any]) -> bool:
        return result.get("command") in ("pretrain", "finetune") and all(_suits(result, one.task) for one in wanted)

    try:
        return newest_model_for(can_do, ", ".join(one.task for one in wanted) or "an evaluation", console)
    except UsageError:
        refuse_unknown(wanted, None)  # a name that no model can do has another cure
        raise


def _suits(result: dict[str, Any], name: str) -> bool:
    """Return whether a finished run's model can do a task, by its head or zero-shot."""
    if find_evaluation(name) is not None or result.get("task") == name:
        return True
    if not is_known(name):
        return False
    task, trained_on = find_task(name), TASKS.get(str(result.get("task")))
    if trained_on is None:
        return result.get("task") == task.name
    return head_fits(task, trained_on.name, trained_on.format, output_labels(trained_on))


def _jobs(wanted: Sequence[SuiteTask], model: EvaluatedModel, accelerator: Accelerator, console: Console) -> list[Job]:
    options = model.options
    return main_process_first(accelerator, lambda: [prepare_job(one, model, options, console.say) for one in wanted])


def _tell(
    present: EvaluatedRun,
    jobs: Sequence[Job],
    overlaps: Mapping[str, Overlap] | None,
    gate: Gate,
    options: EvalOptions,
    console: Console,
) -> dict[str, Any]:
    """Write the scores before anything can fail, then show them below what the gate says of them."""
    if options.output is not None:
        _write(options.output, eval_text(present), console)
    try:
        outcome = gate.judge(present, jobs)
    except GptkitError:
        show_scores(present, jobs, console)
        raise
    if outcome is not None:
        gate.tell(outcome, present, console)
    show_scores(present, jobs, console)
    more: dict[str, Any] = {} if outcome is None else outcome.as_json()
    if overlaps is not None:
        more["contamination"] = overlap_result(overlaps, jobs, present.scores, console)
    if options.output is not None and more:
        _write(options.output, eval_text(present, more), console)
    result = {**present.as_json(), **more} | ({"output": str(options.output)} if options.output is not None else {})
    if outcome is not None:
        gate.finish(outcome, result, console)
    return result


def _write(path: Path, text: str, console: Console) -> None:
    with files.translate_os_errors("writing the results", fix="name another --output"):
        files.write_report(path, text)
    console.say(f"results and items: {path}")
