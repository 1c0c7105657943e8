"""`gptkit finetune`: a labelled task in, a model with a head for it out; over seeds and variants if asked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from gptkit.console import Console
from gptkit.errors import AGAIN, UsageError
from gptkit.finetune import plan, report
from gptkit.finetune.dry_run import plan_finetune
from gptkit.finetune.inputs import Inputs, Split, predicted_splits, prepare_inputs, prepare_predicted
from gptkit.finetune.objective import double_heads_loss
from gptkit.finetune.options import FinetuneOptions
from gptkit.finetune.predictions import write_predictions
from gptkit.finetune.study import VARIANTS, over_seeds, study_result
from gptkit.model.configuration_gpt import quiet_transformers, read_config
from gptkit.model.loading import load_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.recipes import CONFIG, read_recipe
from gptkit.report.model_card import write_model, write_start
from gptkit.report.plots import draw_loss
from gptkit.system import files
from gptkit.system.run_layout import METRICS, directory_name
from gptkit.tasks.heads import head_difference, head_labels, logits_of, metrics_of
from gptkit.tasks.own import carried_task, write_task
from gptkit.tasks.table import TASKS, find_task
from gptkit.tasks.task import Task
from gptkit.training import checkpoints
from gptkit.training.finished_runs import lost_result, newest_model, read_result, readable_model
from gptkit.training.hardware import Hardware, hardware_of
from gptkit.training.job import TrainingJob
from gptkit.training.memory import keep_freed_memory
from gptkit.training.processes import main_process_first, make_accelerator, on_main_process
from gptkit.training.rules import Choices
from gptkit.training.run import TrainResult, finish_run, open_on_main, train_run
from gptkit.training.run_directory import RunDirectory, check_run
from gptkit.training.step import autocast
from gptkit.training.trackers import check_tracker


def run(options: FinetuneOptions, console: Console) -> dict[str, Any]:
    """Train, choose the epoch, predict; return what `--json` prints."""
    accelerator = make_accelerator(options.device)
    if options.model is None:
        options = dataclasses.replace(options, model=newest_model(console))
    hardware = hardware_of(accelerator.device)
    on_main_process(accelerator, lambda: _check(_as_recorded(options), hardware))
    if console.recipe_note:
        console.say(console.recipe_note)
    finished = read_result(options.out) if options.out is not None else None
    if finished is not None and _is_all_of(finished, options):
        return _finished(finished, options, plan.choices(options, hardware), accelerator, console)
    keep_freed_memory()
    weights = on_main_process(accelerator, lambda: readable_model(str(options.model), console))
    reading = dataclasses.replace(options, model=weights)
    inputs = main_process_first(accelerator, lambda: prepare_inputs(reading, console.say))
    plan.refuse_idle_run(options, inputs)
    if options.dry_run:
        return plan_finetune(options, inputs, plan.choices(options, hardware), accelerator, hardware, console)
    work = _Work(inputs, hardware, plan.choices(options, hardware), accelerator, console)
    with open_on_main(options, accelerator, command="finetune", name=Path(options.task).stem) as directory:
        console.run_directory = directory.path
        result = work.result(options, directory)
    _tell(result, inputs.task, console)
    return result


def _check(options: FinetuneOptions, hardware: Hardware) -> None:
    """Refuse what can be refused before any file is read."""
    check_run(options, command="finetune")
    check_tracker(options.report_to)
    plan.choices(options, hardware)
    plan.refuse_too_many_processes(options)
    _refuse_half_studies(options)
    _refuse_seeds_in_a_single_run(options)


def _as_recorded(options: FinetuneOptions) -> FinetuneOptions:
    """Return the options; those that predict with a finished run get its recorded data: the files may have moved."""
    if options.predict is None or options.out is None or read_result(options.out) is None:
        return options
    try:
        recorded = read_recipe(options.out / CONFIG, FinetuneOptions)
    except UsageError:
        return options  # `check_run` says what is wrong with it
    return dataclasses.replace(options, data=recorded.get("data"))


def _finished(
    result: dict[str, Any], options: FinetuneOptions, choices: Choices, accelerator: Accelerator, console: Console
) -> dict[str, Any]:
    """Show a finished run's result and predict with its model, which needs neither what it started from nor a YAML."""
    run = Path(result["run_dir"])
    console.say(f"{run} is finished; this is its result")
    if options.predict is not None:
        task = _described_task(options, run / "model")
        splits = main_process_first(accelerator, lambda: prepare_predicted(task, run / "model", options, console.say))
        with open_on_main(_as_recorded(options), accelerator, command="finetune", name=""):
            for name, split in splits.items():
                _predict(name, split, task, run, choices, accelerator, console)
    _tell(result, carried_task(run / "model") or find_task(options.task), console)
    return result


def _described_task(options: FinetuneOptions, model: Path) -> Task:
    """Return the task that --task names; where its YAML is gone, the one that the run's model carries."""
    carried, config = carried_task(model), read_config(model / "config.json")
    is_gone = options.task not in TASKS and not Path(options.task).expanduser().exists()
    task = carried if carried is not None and is_gone else find_task(options.task)
    score_range = None if carried is None else carried.score_range
    difference = head_difference(task, config.format, head_labels(config), score_range)
    if difference is not None:
        message = f"the task is no longer the one that the model was trained on: {difference}"
        raise UsageError(message, where=f"--task {options.task}", fix="start a new run with another --out")
    return task


def _refuse_half_studies(options: FinetuneOptions) -> None:
    for where, is_taken in (("--lm-coef 0", options.lm_coef == 0), ("--transfer-layers", options.transfer_layers)):
        if options.study == "ablation" and is_taken:
            raise UsageError("the study takes away by itself what this leaves out", where=where, fix="leave it out")


def _refuse_seeds_in_a_single_run(options: FinetuneOptions) -> None:
    several = options.seeds > 1 or options.study != "none"
    if several and options.out is not None and (options.out / METRICS).exists():
        where = str(options.out)
        raise UsageError("it holds a run of one seed; several need folders", where=where, fix="choose another --out")


@dataclass(frozen=True)
class _Work:
    """The runs of one command: they share their inputs, their arithmetic and the screen."""

    inputs: Inputs
    hardware: Hardware
    choices: Choices
    accelerator: Accelerator
    console: Console
    told: set[str] = field(default_factory=set)

    def result(self, options: FinetuneOptions, directory: RunDirectory) -> dict[str, Any]:
        """Return the result of a run, of its seeds, or of a study, from its directory where it is finished."""
        inputs = self.inputs
        if directory.result is not None and _is_all_of(directory.result, options):
            self.console.say(f"{directory.path} is finished; this is its result")
        elif options.study == "ablation":
            self._study(options, directory)
        elif options.seeds > 1 or (directory.path / f"seed-{options.seed}").exists():
            self._finish_several(directory, self._seeds(options, directory, directory.path))
        else:
            self._train(options, directory)
        for name in predicted_splits(inputs.task, options):
            _predict(
                name, inputs.splits[name], inputs.task, directory.path, self.choices, self.accelerator, self.console
            )
        result = on_main_process(self.accelerator, lambda: RunDirectory(directory.path, "finetune", lock=None).result)
        assert result is not None
        return result

    def _study(self, options: FinetuneOptions, directory: RunDirectory) -> None:
        """Run every variant over the seeds; the model is the full variant's best."""
        variants = {}
        for name, changes in VARIANTS.items():
            self.console.say(f"variant {name}")
            changed = dataclasses.replace(options, study="none", **changes)
            variants[name] = self._seeds(changed, directory, directory.path / name)
        self._finish_several(directory, study_result(self.inputs.task, variants))

    def _seeds(self, options: FinetuneOptions, directory: RunDirectory, root: Path) -> dict[str, Any]:
        """Run each seed in a directory of its own and return them as one."""
        results = []
        for seed in range(options.seed, options.seed + options.seeds):
            self.console.say(f"seed {seed}")
            child = root / f"seed-{seed}"
            one = dataclasses.replace(options, seed=seed, seeds=1, study="none", predict=None, out=child, resume="auto")
            one = dataclasses.replace(one, snapshots=options.snapshots or 0)  # of one model, not of every seed
            results.append(self._child(one))
        elapsed = results[-1]["elapsed_seconds"]
        return over_seeds(self.inputs.task, results) | {"run_dir": str(root), "elapsed_seconds": elapsed}

    def _child(self, options: FinetuneOptions) -> dict[str, Any]:
        with open_on_main(options, self.accelerator, command="finetune", name="") as directory:
            if directory.result is None:
                self._train(options, directory)
            result = on_main_process(self.accelerator, lambda: _without_checkpoints(directory))
        self._tell_seed(result)
        return result

    def _train(self, options: FinetuneOptions, directory: RunDirectory) -> None:
        """Train one model, go back to its best epoch, and write everything but predictions."""
        inputs = self.inputs
        model = inputs.model(options).to(self.accelerator.device)

        def make_job(choices: Choices) -> TrainingJob:
            return self._job(options, model, choices)

        trained = train_run(
            make_job,
            options,
            self.choices,
            self.hardware,
            directory,
            self.accelerator,
            self.console,
            write_start=lambda folder: self._write_start(folder, model),
        )
        assert trained.finish.best_step is not None
        checkpoints.load_weights(directory.checkpoints / directory_name(trained.finish.best_step), model)
        with quiet_transformers():
            on_main_process(self.accelerator, lambda: self._write(options, model, trained, directory))

    def _job(self, options: FinetuneOptions, model: GPTDoubleHeadsModel, choices: Choices) -> TrainingJob:
        inputs = self.inputs
        if choices.compile:
            model.compile_blocks(dynamic=True)  # its batches have some hundred shapes
        optimizer = plan.optimizer(options, inputs, model, choices.precision)
        for line in plan.rate_lines(options, inputs, optimizer):
            if line not in self.told:  # they are those of every seed and variant
                self.told.add(line)
                self.console.say(line)
        return TrainingJob(
            model=model,
            micro_batching=plan.cutting(options, inputs, model, self.hardware).at_most(choices.micro_batch),
            loss_function=double_heads_loss(options.lm_coef),
            optimizer=optimizer,
            schedule=plan.schedule(options, inputs),
            plan=plan.plan(options, inputs, model, choices),
            evaluate=plan.evaluation(inputs.task, model, inputs.dev),
            flops_per_token=plan.flops_per_token(options, inputs, model),
        )

    def _write_start(self, folder: Path, model: GPTDoubleHeadsModel) -> None:
        write_start(folder, model, self.inputs.tokenizer)
        write_task(folder, self.inputs.task)

    def _write(
        self, options: FinetuneOptions, model: GPTDoubleHeadsModel, trained: TrainResult, directory: RunDirectory
    ) -> None:
        """Write model, card, curve and, last, the result."""
        rows, inputs, finish = directory.rows(), self.inputs, trained.finish
        assert finish.best_step is not None
        figures = ("val_loss", *inputs.task.metrics)
        best, last = directory.row_of(finish.best_step, figures), directory.row_of(finish.step, figures)
        more = {"train_loss": last["loss"], "mfu": trained.mfu, "resumed_from": trained.resumed_from}
        result = report.run_result(options, inputs, directory.path, best, finish, **more)
        card = report.model_card(options, inputs, model, trained.choices, result, command=self.console.command_line)
        with files.translate_os_errors("writing the model", fix=AGAIN):
            with files.new_directory(directory.path / "model") as folder:
                write_model(folder, model, inputs.tokenizer, card)
                write_task(folder, inputs.task)
            names = {"ylabel": "loss of an example", "training": "training (L3)", "validation": "dev (classifier: L2)"}
            draw_loss(rows, directory.path / "loss.png", title=directory.path.name, **names)
        finish_run(directory, over_seeds(inputs.task, [result]))

    def _finish_several(self, directory: RunDirectory, result: dict[str, Any]) -> None:
        """Write the result of several runs, beside the best one's model."""

        def write() -> None:
            model = directory.path / "model"
            if lost := lost_result(directory.path):
                self.console.warn(f"the run was finished, but {lost}: its model and result are made again")
            doing = "copying the best model"
            with files.translate_os_errors(doing, fix=AGAIN), files.new_directory(model) as folder:
                files.copy_files(Path(result["model_dir"]), folder)
            finish_run(directory, {**result, "run_dir": str(directory.path), "model_dir": str(model)})

        on_main_process(self.accelerator, write)

    def _tell_seed(self, result: dict[str, Any]) -> None:
        metrics = ", ".join(f"{name} {report.shown(value, 100)}%" for name, value in result["metrics"].items())
        self.console.say(f"seed {result['seed']}: {metrics}")


def _predict(
    name: str, split: Split, task: Task, run: Path, choices: Choices, accelerator: Accelerator, console: Console
) -> None:
    """Write the predictions of a split by a finished run's model."""
    model = load_model(run / "model", head=GPTDoubleHeadsModel).to(accelerator.device)
    with autocast(accelerator.device.type, choices.precision):
        logits = logits_of(model, split.encoded)
    for path in on_main_process(accelerator, lambda: write_predictions(run, task, name, split.examples, logits)):
        console.say(f"predictions of {name}: {path}")
    for metric, value in metrics_of(task, logits, split.encoded.targets).items():
        console.say(f"{name}: {metric} {100 * value:.4g}%")


def _is_all_of(result: dict[str, Any], options: FinetuneOptions) -> bool:
    """Return whether a result holds as many seeds as are asked for."""
    return len(result["per_seed"]) == options.seeds


def _tell(result: dict[str, Any], task: Task, console: Console) -> None:
    """Show a result as a table, of a study as the paper's beside ours."""
    title = f"{result['run_dir']}: {task.name} dev, from {result['model']}"
    if "variants" in result:
        columns = ["variant", "paper", f"{task.metrics[0]} %", "std", "95% interval", "full gains", "95% interval"]
        console.table(title, columns, report.study_rows(task, result))
    else:
        columns = ["metric", "dev %", "std", "95% interval", "GPT-1 on test, %"]
        console.table(title, columns, report.result_rows(task, result))


def _without_checkpoints(directory: RunDirectory) -> dict[str, Any]:
    """Return the result of a finished run among several; its model stays, what only resuming needs goes."""
    if directory.checkpoints.exists():
        files.remove_directory(directory.checkpoints)
    assert directory.result is not None
    return directory.result
