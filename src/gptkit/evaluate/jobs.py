"""What an evaluation is asked for: its tasks with their data, and how each becomes the items of its protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gptkit.errors import UsageError, nearest
from gptkit.evaluate.gate.suites import SuiteTask, read_suite
from gptkit.evaluate.model import EvaluatedModel
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.recorded_data import recorded_data
from gptkit.evaluate.results import VERSION, Scored, scored
from gptkit.scoring.asking import score_protocols
from gptkit.scoring.protocols import GeneratedProtocol, Items, Protocol, RuleProtocol, ScoredProtocol
from gptkit.tasks.heads import head_protocol
from gptkit.tasks.own import TASK_FILE, is_task_file
from gptkit.tasks.reading import load_examples
from gptkit.tasks.table import TASKS, find_evaluation, find_task, names_of_evaluations, with_stride
from gptkit.tasks.task import Evaluation, Loaded, Task, loaded
from gptkit.text.examples import Example

DEFAULT = "perplexity"  # of a language model, where no task is named


@dataclass(frozen=True)
class Job:
    """A task to evaluate: by the head of a model that was fine-tuned on it (`task`), or zero-shot (`evaluation`)."""

    name: str
    protocols: tuple[Protocol, ...]
    examples: Loaded
    task: Task | None
    evaluation: Evaluation | None
    floor: float | None = None
    minimum: float | None = None


def known_names() -> list[str]:
    """Return every name that --task takes."""
    return [*dict.fromkeys([*names_of_evaluations(), *TASKS])]


def wanted_tasks(options: EvalOptions) -> tuple[SuiteTask, ...]:
    """Return the tasks of --suite or --task, none where neither is given; their names are not checked yet."""
    if options.suite is not None:
        return read_suite(options.suite)
    repeated = next((name for name in options.task if options.task.count(name) > 1), None)
    if repeated:
        raise UsageError(f"{repeated} is asked for twice", where="--task", fix="leave one of them out")
    return tuple(SuiteTask(name, options.data, None, None, None, "--task") for name in options.task)


def is_known(name: str) -> bool:
    """Return whether a name is a task's or an evaluation's, or that of a YAML file."""
    return is_task_file(name) or name in TASKS or find_evaluation(name) is not None


def refuse_unknown(wanted: Sequence[SuiteTask], own: str | None) -> None:
    """Raise UsageError for a name that is neither known nor `own`, the task that the model was fine-tuned on."""
    for one in wanted:
        if one.task != own and not is_known(one.task):
            near = nearest(one.task[:60], [*known_names(), *filter(None, [own])])
            fix = f"did you mean {near!r}?" if near else "gptkit eval -h and gptkit tasks list them"
            raise UsageError(f"no evaluation is called {one.task[:60]!r}", where=one.where, fix=fix)


def tasks_of(wanted: Sequence[SuiteTask], model: EvaluatedModel, options: EvalOptions) -> Sequence[SuiteTask]:
    """Return the tasks to evaluate: those wanted, else the one that the model was fine-tuned on, else a perplexity."""
    if wanted:
        refuse_unknown(wanted, model.config.task)
        return wanted
    name = model.own_task.name if model.is_fine_tuned else DEFAULT
    return (SuiteTask(name, options.data, None, None, None, "--task"),)


def prepare_job(wanted: SuiteTask, model: EvaluatedModel, options: EvalOptions, say: Callable[[str], None]) -> Job:
    """Read and check a task's examples; UsageError where neither the model's head nor a zero-shot row answers it."""
    task = _task_of(wanted.task, model, say)
    evaluation = find_evaluation(wanted.task)
    if task is not None and model.has_head_for(task):
        data = wanted.data or _data_of(task, model, say)
        examples = load_examples(task, _split(task, options), data)
        _refuse_unlabelled(task, examples)
        protocols: tuple[Protocol, ...] = (head_protocol(task, _split(task, options)),)
        evaluation = None
    elif evaluation is not None:
        evaluation = evaluation if options.stride is None else with_stride(evaluation, options.stride)
        examples, protocols, task = evaluation.load(wanted.data), evaluation.protocols, None
    else:
        raise _unfit(wanted, task, model)
    for note in examples.notes:
        say(f"{wanted.task}: {note}")
    limit = wanted.limit if wanted.limit is not None else options.limit
    if limit is not None and limit < len(examples.examples):
        examples = loaded(examples.examples[:limit], examples.notes)
    name = Path(wanted.task).stem if task is not None else wanted.task.partition("/")[0]
    return Job(name, protocols, examples, task, evaluation, wanted.floor, wanted.minimum)


def unscored_job(job: Job, model: EvaluatedModel) -> dict[str, Scored]:
    """Return what is known of a task's scores before they are computed, by "task/protocol"."""
    n, sha256 = len(job.examples.examples), job.examples.sha256
    return {
        f"{job.name}/{one.name}": Scored(n, sha256, _settings(one, model), one.per_token, {}, None)
        for one in job.protocols
    }


def evaluate_job(job: Job, model: EvaluatedModel) -> dict[str, Scored]:
    """Return what the model gets for a task, by "task/protocol"."""
    examples, found = job.examples.examples, {}
    if job.task is not None:
        found[job.protocols[0].name] = model.classify(job.task, examples)
    else:
        found = _zero_shot(job, examples, model)
    return {
        f"{job.name}/{one.name}": scored(one, found[one.name], job.examples.sha256, _settings(one, model))
        for one in job.protocols
    }


def _zero_shot(job: Job, examples: Sequence[Example], model: EvaluatedModel) -> dict[str, Items]:
    assert job.evaluation is not None
    by_likelihood = [one for one in job.protocols if isinstance(one, ScoredProtocol)]
    items = _by_likelihood(job, by_likelihood, examples, model) if by_likelihood else []
    found = {protocol.name: one for protocol, one in zip(by_likelihood, items, strict=True)}
    for protocol in job.protocols:
        if isinstance(protocol, GeneratedProtocol):
            written = model.write(protocol, examples)
            found[protocol.name] = replace(protocol.items(examples, written.texts), cut=written.cut)
        elif isinstance(protocol, RuleProtocol):
            found[protocol.name] = protocol.items(examples)
    return found


def _by_likelihood(
    job: Job, protocols: Sequence[ScoredProtocol], examples: Sequence[Example], model: EvaluatedModel
) -> list[Items]:
    assert job.evaluation is not None
    banned = () if job.evaluation.banned is None else job.evaluation.banned(model.encoder)

    def tell(line: str) -> None:
        model.tell_once(f"{job.name}: {line}")

    return score_protocols(protocols, examples, model.encoder, model.score, banned, tell=tell)


def _settings(protocol: Protocol, model: EvaluatedModel) -> dict[str, object]:
    own = protocol.settings(model.encoder) if isinstance(protocol, ScoredProtocol) else {}
    version = {VERSION: protocol.version} if protocol.version > 1 else {}
    return {**own, **version, "precision": model.options.precision}


def _task_of(name: str, model: EvaluatedModel, say: Callable[[str], None]) -> Task | None:
    if model.is_fine_tuned and name == model.config.task:
        if model.own_task.is_own:
            say(f"{name}: as {model.directory / TASK_FILE} describes it")
        return model.own_task
    return find_task(name) if name in TASKS or is_task_file(name) else None


def _data_of(task: Task, model: EvaluatedModel, say: Callable[[str], None]) -> str | None:
    """Return the folder that the model's run recorded, for its own task whose files nobody named."""
    if task.is_demo or task.folder is not None or task.name != model.config.task:
        return None
    folder = recorded_data(model.directory)
    if folder is not None:
        say(f"{task.name}: data of {folder}, where the model's run found it")
    return folder


def _unfit(wanted: SuiteTask, task: Task | None, model: EvaluatedModel) -> UsageError:
    """Return the error of a task that nothing answers; of a task of the same name or a user's own, with the reason."""
    trained_on = model.config.task or "no task"
    if task is not None and model.is_fine_tuned and task.is_own and (difference := model.difference_from(task)):
        fix = f"leave --task out to score it on {trained_on}, its own"
        return UsageError(f"{wanted.task} does not fit the model: {difference}", where=wanted.where, fix=fix)
    fix = f"fine-tune one: gptkit finetune --task {wanted.task}"
    return UsageError(f"this model was fine-tuned on {trained_on}, not {wanted.task}", where=wanted.where, fix=fix)


def _split(task: Task, options: EvalOptions) -> str:
    """Return the split to score: the only one of a task for evaluation alone."""
    return options.split if len(task.splits) > 1 else next(iter(task.splits))


def _refuse_unlabelled(task: Task, examples: Loaded) -> None:
    if any(one.label is None for one in examples.examples):
        message = f"the examples of {task.name} have no labels"
        raise UsageError(message, where="--split", fix="evaluate on a labelled split, such as dev")
