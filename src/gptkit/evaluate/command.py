"""`gptkit eval`: score a model on tasks, and gate it against a baseline."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gptkit.console import Console
from gptkit.errors import GateFailed, GptkitError, NothingComparable, UsageError
from gptkit.evaluate.all_checkpoints import evaluate_all_checkpoints
from gptkit.evaluate.contamination import Overlap, overlap_result, overlaps_with
from gptkit.evaluate.gate.pairing import EVAL_COMMAND, require_comparable
from gptkit.evaluate.gate.verdicts import Outcome, compare, not_comparable, show_outcome
from gptkit.evaluate.jobs import (
    Job,
    TaskSpec,
    evaluate_jobs,
    is_known,
    prepare_jobs,
    refuse_unknown,
    scored_zero_shot,
    wanted_tasks,
    without_scores,
)
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.results import EvalResults, eval_text, read_baseline
from gptkit.evaluate.show import show_scores
from gptkit.model_files import model_directory
from gptkit.scoring.measures import MEASURES
from gptkit.system import files
from gptkit.tasks.heads import Head, head_fits, output_labels
from gptkit.tasks.table import TASKS, find_evaluation, find_task
from gptkit.text.readers import check_files
from gptkit.training.finished_runs import newest_model, readable_model

REPORTS = ("junit", "summary")
WRITTEN = ("output", *REPORTS)  # options that name a file to write
# What decides whether a baseline is comparable.
SCORING = ("suite", "task", "data", "encoding", "limit", "split", "stride", "seed", "precision")


def run(options: EvalOptions, console: Console) -> dict[str, Any]:
    """Evaluate the model; return what `--json` prints, or raise GateFailed with it when the gate fails.

    Whatever can be wrong with the options, the model's directory and the data is found before torch is imported.
    """
    _check(options)
    if options.precision == "auto":  # on every machine: scores are compared between machines
        options = dataclasses.replace(options, precision="fp32")
    wanted = wanted_tasks(options)
    if options.all_checkpoints is not None:
        return evaluate_all_checkpoints(options.all_checkpoints, wanted, options, console)
    baseline = None if options.baseline is None else read_baseline(options.baseline)  # refused early
    name = readable_model(options.model or _newest(wanted, console), console)
    directory = model_directory(name)
    jobs = prepare_jobs(wanted, Head.of(directory), options, console.say)
    _refuse_unjudgeable(jobs, options)
    if options.contamination is not None and not options.contamination.startswith("hf:"):
        check_files([options.contamination])

    from gptkit.evaluate.model import open_model
    from gptkit.training.processes import on_main_process

    model = open_model(directory, options, console)
    if baseline is not None:
        planned = without_scores(jobs, model, name)
        try:
            require_comparable(planned, baseline, jobs)
        except NothingComparable as error:
            if options.output is None:  # which asks for the scores all the same
                on_main_process(
                    model.accelerator, functools.partial(_refuse, error, planned, baseline, jobs, options, console)
                )
            console.say(f"not comparable with the baseline; scoring anyway, for --output {options.output}")
    overlaps = overlaps_with(options.contamination, jobs, console) if options.contamination is not None else None
    present = evaluate_jobs(jobs, model, name)
    vocab_size = model.config.vocab_size
    return on_main_process(
        model.accelerator, lambda: _report(present, baseline, jobs, overlaps, vocab_size, options, console)
    )


def _check(options: EvalOptions) -> None:
    """Check everything that can be checked before any file is read, then remove the reports of an earlier run."""
    alone = {
        "suite": ("task", "data"),
        "all_checkpoints": ("model", "baseline", "contamination", "junit", "summary"),
    }
    for name, others in alone.items():
        for other in others:
            if getattr(options, name) is not None and getattr(options, other) not in (None, ()):
                where = f"--{name.replace('_', '-')}, --{other}"
                raise UsageError("these cannot be combined", where=where, fix="leave one of them out")
    if options.floor is not None and options.baseline is None:
        raise UsageError("--floor needs a baseline", where="--floor", fix="pass one: --baseline FILE")
    names = (*WRITTEN, "baseline", "suite", "data", "contamination")
    places = {name: Path(value).resolve() for name in names if (value := getattr(options, name)) is not None}
    for name in WRITTEN:
        path: Path | None = getattr(options, name)
        if path is None:
            continue
        is_stream = path.exists() and not path.is_file() and not path.is_dir()
        for other, place in places.items():
            if other != name and place == places[name] and not is_stream:
                raise UsageError(f"this file would overwrite --{other}", where=f"--{name}", fix="choose another file")
        if not is_stream:
            files.require_writable(path, f"--{name}")
    for name in REPORTS:
        if name in places and places[name].is_file():
            places[name].unlink(missing_ok=True)  # an earlier job's, which this one may not live to replace


def _refuse_unjudgeable(jobs: Sequence[Job], options: EvalOptions) -> None:
    """Refuse reports without a verdict, and a floor or minimum above 1 for a fraction: people write 2 for 2 points."""
    for name in REPORTS:
        if getattr(options, name) is not None and not _is_judged(jobs, options):
            fix = "pass --baseline FILE, or set a minimum in the suite"
            raise UsageError("no verdict to report: neither a baseline nor a minimum", where=f"--{name}", fix=fix)
    for job in jobs:
        first = job.protocols[0].measures[0]
        for name, bound in (("floor", job.floor), ("minimum", job.minimum)):
            if bound is not None and bound > 1 and MEASURES[first].unit == "percent":
                fix = f"write {bound / 100:g} for {bound:g}%"
                raise UsageError(f"a {name} of {bound:g}, but {first} ranges from 0 to 1", where=job.name, fix=fix)


def _is_judged(jobs: Sequence[Job], options: EvalOptions) -> bool:
    return options.baseline is not None or any(job.minimum is not None for job in jobs)


def _newest(wanted: Sequence[TaskSpec], console: Console) -> str:
    """Return the newest finished run whose model fits all tasks."""

    def suits(result: dict[str, Any]) -> bool:
        is_training = result.get("command") in ("pretrain", "finetune")
        return is_training and all(_can_answer(result, spec.task) for spec in wanted)

    try:
        names = ", ".join(spec.task for spec in wanted)
        return newest_model(console, suits, f"be evaluated on {names}" if wanted else "be evaluated")
    except UsageError:
        refuse_unknown(wanted, None)  # an unknown name has a different fix
        raise


def _can_answer(result: dict[str, Any], name: str) -> bool:
    """Return whether a finished run's model can answer a task, zero-shot or by its head."""
    if find_evaluation(name) is not None or result.get("task") == name:
        return True
    if not is_known(name):
        return False
    task, own = find_task(name), result.get("task")
    if scored_zero_shot(task, own) or task.name == own:
        return True
    trained_on = TASKS.get(str(own))
    return trained_on is not None and head_fits(task, own, trained_on.format, output_labels(trained_on))


def _report(
    present: EvalResults,
    baseline: EvalResults | None,
    jobs: Sequence[Job],
    overlaps: Mapping[str, Overlap] | None,
    vocab_size: int,
    options: EvalOptions,
    console: Console,
) -> dict[str, Any]:
    """Write the scores before anything can fail, then print the verdict and the scores; return the JSON."""
    if options.output is not None:
        _write(options.output, eval_text(present))
        console.say(f"results and items: {options.output}")
    more: dict[str, Any] = {}
    outcome, refusal = None, None
    try:
        if _is_judged(jobs, options):
            outcome = compare(present, baseline, jobs)
    except NothingComparable as error:
        assert baseline is not None
        refusal, outcome = error, not_comparable(present, baseline, jobs, error)
        _name_command(error, baseline, options)
    except GptkitError:
        show_scores(present, jobs, console, vocab_size)
        raise
    if outcome is not None:
        show_outcome(outcome, present.model, options, console)
        more = outcome.as_json()
    show_scores(present, jobs, console, vocab_size)
    if overlaps is not None:
        more["contamination"] = overlap_result(overlaps, jobs, present, console)
    if options.output is not None and more:
        _write(options.output, eval_text(present, more))
    result = {**present.as_json(), **more} | ({"output": str(options.output)} if options.output is not None else {})
    if refusal is not None:
        refusal.result = result
        raise refusal
    message = "" if outcome is None else outcome.headline if options.json else outcome.short
    if outcome is not None and outcome.verdict == "n/a":
        fix = "gate a task or protocol whose first measure is defined for this text"
        raise NothingComparable(message, result=result, fix=fix)
    if outcome is not None and outcome.verdict == "fail":
        raise GateFailed(message, result=result, fix=_cure(outcome, options))
    return result


def _refuse(
    error: NothingComparable,
    present: EvalResults,
    baseline: EvalResults,
    jobs: Sequence[Job],
    options: EvalOptions,
    console: Console,
) -> NoReturn:
    """Report that the runs cannot be compared, before anything is scored, and raise the error with the JSON."""
    outcome = not_comparable(present, baseline, jobs, error)
    show_outcome(outcome, present.model, options, console)
    error.result = outcome.as_json()
    _name_command(error, baseline, options)
    raise error


def _name_command(error: NothingComparable, baseline: EvalResults, options: EvalOptions) -> None:
    """Write the command that evaluates the baseline's model as this run is evaluated into the fix of an error."""
    words, usual = ["gptkit", "eval", "--model", baseline.model or "MODEL"], EvalOptions(precision="fp32")
    for name in SCORING:
        if (value := getattr(options, name)) != getattr(usual, name):
            for each in value if isinstance(value, tuple) else (value,):
                words += [f"--{name}", str(each)]
    command = shlex.join([*words, "--output", str(options.baseline)])
    error.fix = (error.fix or "").replace(EVAL_COMMAND, command)


def _cure(outcome: Outcome, options: EvalOptions) -> str:
    """Return what to do about a failed gate."""
    cures = ["see what changed in the model"]
    if any(found.verdict == "fail" for found in outcome.comparison.values()):
        cures.append("write a new baseline with --output if the drop is intended")
    if any(found.verdict == "fail" for found in outcome.minimums.values()):
        cures.append(f"change `minimum` in {options.suite}")
    return f"{', '.join(cures[:-1])}, or {cures[-1]}"


def _write(path: Path, text: str) -> None:
    with files.translate_os_errors("writing the results", fix="choose another --output"):
        files.write_report(path, text)
