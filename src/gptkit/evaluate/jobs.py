"""The tasks of an evaluation: read from --task or a suite, prepared with their data and protocols, and evaluated.

A suite is a YAML file of the tasks of a gate, with their data and bounds:

    tasks:
      - task: lambada              # a name, or a task's YAML file
        data: data/lambada         # optional: a file or folder, relative to this file, or hf:NAME
        limit: 1000                # only the first N examples
        floor: 0.01                # the smallest drop that counts, in the unit of the task's first measure
        minimum: 0.45              # bound on its first measure: from below, or from above where lower is better
      - task: wikitext2
        data: data/wikitext-2

Nothing in the file is executed.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.errors import InputError, UsageError, nearest
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.own_text import own_text
from gptkit.evaluate.results import VERSION, EvalResults, ProtocolResult, result_of
from gptkit.recipes import CONFIG
from gptkit.scoring.asking import score_protocols
from gptkit.scoring.choices import ending_protocols
from gptkit.scoring.protocols import GeneratedProtocol, Protocol, RuleProtocol, ScoredProtocol
from gptkit.scoring.running_text import ValidationProtocol
from gptkit.system.encodings import UTF8, UndecodableError, text_encoding
from gptkit.system.reading import Entry, read_yaml
from gptkit.system.run_layout import MODEL
from gptkit.tasks.heads import Head, HeadProtocol, head_protocol, task_metrics
from gptkit.tasks.own import TASK_FILE, is_task_file
from gptkit.tasks.reading import load_examples
from gptkit.tasks.table import TASKS, find_evaluation, find_task, names_of_evaluations, with_stride
from gptkit.tasks.task import Evaluation, Loaded, Task, loaded

if TYPE_CHECKING:
    from gptkit.evaluate.model import EvaluatedModel

DEFAULT = "perplexity"  # the task of a language model when none is named
_EXAMPLE = "write tasks: [{task: lambada}]"
_TWICE = "keep one, without /PROTOCOL for all its protocols; or use two suites for two texts"


@dataclass(frozen=True)
class TaskSpec:
    """A requested task. One of a suite has absolute paths, and its file:line as `where`."""

    task: str
    data: str | None
    limit: int | None = None
    floor: float | None = None
    minimum: float | None = None
    where: str = "--task"


@dataclass(frozen=True)
class Job:
    """A task to evaluate: zero-shot (`evaluation`), or with the head of a model that was fine-tuned on it.

    `floor` is the smallest drop that counts in each protocol's first measure (None: the measure's own floor).
    `minimum` bounds the first protocol's first measure: from below if higher is better, else from above.
    """

    name: str
    protocols: tuple[Protocol, ...]
    examples: Loaded
    evaluation: Evaluation | None = None
    floor: float | None = None
    minimum: float | None = None

    @property
    def usual(self) -> Protocol:
        """The protocol behind the figures that most papers report, which is shown first."""
        name = self.evaluation.usual if self.evaluation else ""
        return next((protocol for protocol in self.protocols if protocol.name == name), self.protocols[0])


def wanted_tasks(options: EvalOptions) -> tuple[TaskSpec, ...]:
    """Return the tasks of --suite or --task, empty if neither is given; their names are not checked yet."""
    if options.suite is not None:
        return read_suite(options.suite)
    repeated = next((name for name in options.task if options.task.count(name) > 1), None)
    if repeated:
        raise UsageError(f"{repeated} is named twice", where="--task", fix="leave one of them out")
    return tuple(TaskSpec(name, options.data) for name in options.task)


def read_suite(path: Path) -> tuple[TaskSpec, ...]:
    """Return the tasks of a suite; UsageError with file:line for anything wrong in it, but names are not checked."""
    root = read_yaml(path, "the suite", missing="pass a YAML file with a list of tasks")
    if root.kind != "MappingNode":
        fix = "begin it with `tasks:` and write the list under it"
        raise UsageError("the suite does not begin with `tasks:`", where=root.where, fix=fix)
    top = root.entries("the suite", ("tasks",))
    if "tasks" not in top:
        raise UsageError("no 'tasks' in the suite", where=root.where, fix=_EXAMPLE)
    tasks: dict[str, TaskSpec] = {}
    for entry in top["tasks"].items("tasks", fix=_EXAMPLE):
        entries = entry.entries("this task of the suite", ("task", "data", "limit", "floor", "minimum"))
        if "task" not in entries:
            raise UsageError("no 'task' in a task of the suite", where=entry.where, fix="write task: NAME")
        name = entries["task"].word("task")
        name = _beside(entries["task"], name) if is_task_file(name) else name
        data = entries["data"].word("data") if "data" in entries else None
        spec = TaskSpec(
            name,
            _beside(entries["data"], data) if data is not None and not data.startswith("hf:") else data,
            _limit(entries["limit"]) if "limit" in entries else None,
            _number(entries["floor"], "floor", least=0.0) if "floor" in entries else None,
            _number(entries["minimum"], "minimum", least=-math.inf) if "minimum" in entries else None,
            entry.where,
        )
        if tasks.setdefault(name, spec) is not spec:
            raise UsageError(f"the task {name[:60]!r} appears twice", where=entry.where, fix=_TWICE)
    return tuple(tasks.values())


def _beside(entry: Entry, word: str) -> str:
    """Resolve a path relative to the suite's folder."""
    try:
        return str(entry.path.resolve().parent / Path(word).expanduser())
    except RuntimeError:
        raise UsageError(f"no home directory for {word[:60]!r}", where=entry.where, fix="write the full path") from None


def _limit(entry: Entry) -> int:
    word = entry.word("limit")
    if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) >= 1):
        raise UsageError("limit is not a whole number of at least 1", where=entry.where, fix="write limit: 1000")
    return int(word)


def _number(entry: Entry, key: str, *, least: float) -> float:
    try:
        value = float(entry.word(key))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= least):
        kind = "a number of at least 0" if least == 0 else "a number"
        raise UsageError(f"{key} is not {kind}", where=entry.where, fix=f"write {key}: 0.02")
    return value


def is_known(name: str) -> bool:
    """Return whether a name is that of a task, of a zero-shot evaluation or of a YAML file."""
    return is_task_file(name) or name in TASKS or find_evaluation(name) is not None


def scored_zero_shot(task: Task, trained_on: str | None) -> bool:
    """Return whether a model that was fine-tuned on another task, or none, compares a task's choices by likelihood."""
    return task.is_own and task.format == "multiple-choice" and task.name != trained_on


def refuse_unknown(wanted: Sequence[TaskSpec], own: str | None) -> None:
    """Raise UsageError for an unknown name or file; `own` is the task that the model was fine-tuned on."""
    for spec in wanted:
        if is_task_file(spec.task):
            find_task(spec.task)
        if spec.task != own and not is_known(spec.task):
            near = nearest(spec.task[:60], [*names_of_evaluations(), *TASKS, *filter(None, [own])])
            fix = f"did you mean {near!r}?" if near else "see gptkit tasks"
            raise UsageError(f"unknown task {spec.task[:60]!r}", where=spec.where, fix=fix)


def prepare_jobs(wanted: Sequence[TaskSpec], head: Head, options: EvalOptions, say: Callable[[str], None]) -> list[Job]:
    """Load the examples and protocols of the wanted tasks; torch is not imported.

    By default these are a fine-tuned model's own task, or the perplexity of the text that the model's run held out.
    UsageError for a task that neither the model's head nor a zero-shot protocol answers.
    """
    if not wanted:
        wanted = [TaskSpec(DEFAULT if head.format is None else head.own_task().name, options.data)]
        if head.format is not None and str(options.data).lower().endswith((".txt", ".txt.gz")):
            message = f"{head.task}, the task that the model was fine-tuned on, is not read from a plain text"
            raise UsageError(message, where="--data", fix="to score the text, add --task perplexity")
    refuse_unknown(wanted, head.task)
    jobs: dict[str, Job] = {}
    for spec in wanted:
        job = _prepare(spec, head, options, say)
        if jobs.setdefault(job.name, job) is not job:
            raise UsageError(f"the task {job.name[:60]!r} appears twice", where=spec.where, fix=_TWICE)
    if options.split != EvalOptions.split and all(job.evaluation for job in jobs.values()):
        message = f"{next(iter(jobs))} is evaluated zero-shot, without a choice of splits"
        raise UsageError(message, where="--split", fix="leave it out; --data names what is evaluated")
    return [*jobs.values()]


def _prepare(spec: TaskSpec, head: Head, options: EvalOptions, say: Callable[[str], None]) -> Job:
    task, evaluation = None, find_evaluation(spec.task)
    if head.format is not None and spec.task == head.task:
        task = head.own_task()
        if task.is_own:
            say(f"{spec.task}: described by {head.directory / TASK_FILE}")
    elif spec.task in TASKS or is_task_file(spec.task):
        task = find_task(spec.task)
    protocols: tuple[Protocol, ...]
    if task is not None and (head.answers(task) or scored_zero_shot(task, head.task)):
        name, evaluation = task.name, None
        is_default = options.split == EvalOptions.split  # a task for evaluation only has one split, whatever its name
        split = next(iter(task.splits)) if is_default and len(task.splits) == 1 else options.split
        source = Path(spec.data).name if spec.data and Path(spec.data).is_file() else f"the {split} split"
        if not head.answers(task):
            _suited(ending_protocols(), head, spec)  # refuse before anything is read
        examples, protocols = _labelled(task, split, spec, head, options, say), (head_protocol(task, source),)
        if not head.answers(task):
            protocols = ending_protocols(choices=len(examples.examples[0].fields[-1]))
    elif evaluation is not None:
        name = spec.task.partition("/")[0]
        examples, protocols, evaluation = _zero_shot(evaluation, spec, head, options)
    else:
        raise _unanswerable(task, spec, head)
    for note in examples.notes:
        say(f"{spec.task}: {note}")
    limit = spec.limit if spec.limit is not None else options.limit
    if limit is not None and limit < len(examples.examples):
        examples = loaded(examples.examples[:limit], examples.notes)
    floor = spec.floor if spec.floor is not None else options.floor
    return Job(name, protocols, examples, evaluation, floor, spec.minimum)


def _labelled(
    task: Task, split: str, spec: TaskSpec, head: Head, options: EvalOptions, say: Callable[[str], None]
) -> Loaded:
    """Return the examples that the model's head answers, from --data or from where the model's run found them.

    Files of --data that are not UTF-8 are read in the encoding that the run was given.
    """
    recorded = None if spec.data else _recorded_data(task, head, say)
    data, encoding = recorded or (spec.data, options.encoding)
    try:
        with text_encoding(encoding):
            examples = load_examples(task, split, data)
    except UndecodableError:
        encoding = _recorded_options(task, head).get("encoding") or UTF8
        if recorded or encoding == options.encoding:
            raise
        say(f"{task.name}: not {options.encoding}, so read as {encoding}, as recorded by the model's run")
        with text_encoding(encoding):
            examples = load_examples(task, split, data)
    if any(example.label is None for example in examples.examples):
        message = f"the {split} split of {task.name} has no labels"
        fix = f"evaluate on a labelled split, such as dev; finetune --predict {split} labels this one"
        raise UsageError(message, where="--split", fix=fix)
    return examples


def _zero_shot(
    evaluation: Evaluation, spec: TaskSpec, head: Head, options: EvalOptions
) -> tuple[Loaded, tuple[Protocol, ...], Evaluation]:
    """Return the examples of an evaluation and its protocols; by default the perplexity is of the run's own text."""
    name = spec.task.partition("/")[0]
    if options.stride is not None:
        if evaluation.sliding is not None and spec.task != name:
            message = f"--stride chooses the protocol sliding-{options.stride}, not {spec.task}"
            raise UsageError(message, where="--stride", fix=f"pass --task {name}, or leave --stride out")
        evaluation = with_stride(evaluation, options.stride)
    protocols = _suited(evaluation.protocols, head, spec)
    if name == DEFAULT and spec.data is None:
        examples, own = own_text(head.directory)
        protocols = tuple(own if isinstance(each, ValidationProtocol) else each for each in protocols)
    else:
        examples = evaluation.load(spec.data)
        protocols = tuple(each for each in protocols if not isinstance(each, ValidationProtocol))
    if not protocols:
        message = f"{spec.task} is for the text that the model's own run held out"
        raise UsageError(message, where="--data", fix=f"leave it out, or pass --task {name}")
    if examples.is_variant:
        protocols = tuple(replace(protocol, published=()) for protocol in protocols)
    return examples, protocols, evaluation


def _suited(protocols: Sequence[Protocol], head: Head, spec: TaskSpec) -> tuple[Protocol, ...]:
    """Return the protocols that go with the model's objective; UsageError if none does."""
    found = tuple(each for each in protocols if each.masked in (head.is_masked, None))
    if found:
        return found
    problem, fix = f"{spec.task} is for masked language models", "leave out what follows the /"
    if head.is_masked:
        problem = f"a masked model predicts no next token, so it cannot answer {spec.task}"
        fix = "pass --task blimp, or a model that was fine-tuned on a task"
    raise UsageError(problem, where=spec.where, fix=fix)


def _unanswerable(task: Task | None, spec: TaskSpec, head: Head) -> UsageError:
    """Return the error for a task that neither the model's head nor a zero-shot protocol answers."""
    problem = f"the model was fine-tuned on {head.task}, not {spec.task}"
    if head.format is None:
        problem = f"the model is not fine-tuned, and {spec.task} has no zero-shot protocol"
    place = Path(spec.data or "")  # of one of the files that fine-tuning reads, or of all
    files = ("--data", str(place.parent) if place.is_file() else spec.data) if spec.data else ()
    fix = f"fine-tune one: {shlex.join(['gptkit', 'finetune', '--task', spec.task, *files])}"
    if task is not None and head.format is not None and task.is_own and (difference := head.difference_from(task)):
        problem = f"{spec.task} does not fit the model: {difference}"
        fix = f"leave it out to evaluate the model on its own task, {head.task}"
    return UsageError(problem, where=spec.where, fix=fix)


def without_scores(jobs: Sequence[Job], model: EvaluatedModel, name: str) -> EvalResults:
    """Return a model's results as far as they are known before scoring: what decides whether they are comparable."""
    results = {}
    for job in jobs:
        for protocol in job.protocols:
            n = 0 if isinstance(protocol, GeneratedProtocol) else len(job.examples.examples)  # 0: only known afterwards
            settings = _settings(protocol, model)
            result = ProtocolResult(n, job.examples.sha256, settings, protocol.per_token, {}, None)
            results[f"{job.name}/{protocol.name}"] = result
    return EvalResults(name, None, model.tokenizer_sha256, results)


def evaluate_jobs(jobs: Sequence[Job], model: EvaluatedModel, name: str) -> EvalResults:
    """Return the results of a model, reported under `name`."""
    results = {key: result for job in jobs for key, result in _evaluate(job, model).items()}
    return EvalResults(name, model.model_sha256, model.tokenizer_sha256, results)


def _evaluate(job: Job, model: EvaluatedModel) -> dict[str, ProtocolResult]:
    """Return the model's results on a task by "task/protocol"."""
    examples, scored, results = job.examples.examples, {}, {}
    if by_likelihood := [protocol for protocol in job.protocols if isinstance(protocol, ScoredProtocol)]:
        banned = job.evaluation.banned(model.encoder) if job.evaluation and job.evaluation.banned else ()
        found = score_protocols(
            by_likelihood,
            examples,
            model.encoder,
            model.score,
            banned,
            warn=lambda line: model.warn_once(f"{job.name}: {line}"),
        )
        scored = {protocol.name: items for protocol, items in zip(by_likelihood, found, strict=True)}
    for protocol in job.protocols:
        values = {}
        if isinstance(protocol, HeadProtocol):
            items = model.classify(protocol.task, examples)
            values = task_metrics(protocol.task, items.columns["prediction"], items.columns["reference"])
        elif isinstance(protocol, GeneratedProtocol):
            generated = model.generate(protocol, examples)
            items = replace(protocol.items(examples, generated.texts), cut=generated.truncated)
        elif isinstance(protocol, RuleProtocol):
            items = protocol.items(examples)
        else:
            items = scored[protocol.name]
        settings = _settings(protocol, model)
        results[f"{job.name}/{protocol.name}"] = result_of(protocol, items, job.examples.sha256, settings, values)
    return results


def _settings(protocol: Protocol, model: EvaluatedModel) -> dict[str, object]:
    own = protocol.settings(model.encoder) if isinstance(protocol, ScoredProtocol) else {}
    version = {VERSION: protocol.version} if protocol.version > 1 else {}
    return {**own, **version, "precision": model.options.precision}


def _recorded_data(task: Task, head: Head, say: Callable[[str], None]) -> tuple[str, str] | None:
    """Return the data folder recorded in the config.yaml of the model's run, and the encoding of its files.

    None unless `task` is the model's own.
    """
    recipe = _recorded_options(task, head)
    name = recipe.get("task")
    if name is None:
        return None
    folder = recipe.get("data") or (str(Path(name).parent) if Path(name).is_absolute() else None)
    if folder is None or str(folder).startswith("hf:"):
        return None
    if not Path(folder).is_dir():
        message = f"{task.name} cannot be read from where the model's run found it: no such folder"
        raise InputError(message, where=folder, fix="put it back, or pass --data DIR")
    say(f"{task.name}: data from {folder}, as recorded by the model's run")
    return folder, recipe.get("encoding") or UTF8


def _recorded_options(task: Task, head: Head) -> dict[str, str | None]:
    """Return what the model's run recorded of its task and data; empty unless `task` is the model's own."""
    directory = head.directory.absolute()
    if task.is_demo or task.folder is not None or task.name != head.task or directory.name != MODEL:
        return {}
    try:
        recipe = read_yaml(directory.parent / CONFIG, "the recipe", missing="pass --data DIR")
        entries = recipe.entries("the recipe", ())
        return {key: entries[key].scalar() for key in ("task", "data", "encoding") if key in entries}
    except UsageError:
        return {}  # a model outside a run, or a damaged config.yaml
