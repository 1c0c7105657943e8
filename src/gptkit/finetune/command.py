"""`gptkit finetune`: train a pre-trained model with a task head, over several seeds or ablation variants if asked."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gptkit
from gptkit.console import Console
from gptkit.errors import AGAIN, UsageError
from gptkit.finetune import report
from gptkit.finetune.check import predicted_splits, refuse_contradictions
from gptkit.finetune.inputs import Inputs, Split, prepare_inputs, prepare_predicted
from gptkit.finetune.job import FinetuneRun, check_learning_rate_nonzero, plan_finetune
from gptkit.finetune.lm_tuning import Pretrain, tune_language_model
from gptkit.finetune.options import FinetuneOptions
from gptkit.finetune.peers import own_run, pretrained_peer
from gptkit.finetune.study import ULMFIT_PARTS, defined, over_seeds, study_result, variants_of
from gptkit.model.configuration_gpt import quiet_transformers
from gptkit.model.loading import load_model
from gptkit.model.model_types import ANY
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.recipes import CONFIG, read_recipe
from gptkit.report.model_card import write_model, write_start
from gptkit.report.plots import draw_loss
from gptkit.scoring.intervals import item_interval
from gptkit.scoring.measures import MEASURES, Columns
from gptkit.system import files
from gptkit.system.run_layout import directory_name
from gptkit.tasks.head_outputs import evaluate_head, logits_of
from gptkit.tasks.heads import Head, chance_of, items_of_logits, metrics_of
from gptkit.tasks.own import carried_task, write_task
from gptkit.tasks.table import TASKS, find_task
from gptkit.tasks.task import Task
from gptkit.text.examples import Example
from gptkit.training import checkpoints
from gptkit.training.finished_runs import lost_result, newest_model, read_result, readable_model
from gptkit.training.job import TrainingJob
from gptkit.training.memory import keep_freed_memory
from gptkit.training.rules import Choices
from gptkit.training.run import Session, TrainResult, train_run
from gptkit.training.run_directory import RunDirectory
from gptkit.training.step import autocast

SMALL = 30e6  # parameters; GPT-1's rate learns little in its 3 epochs


def run(options: FinetuneOptions, console: Console, *, pretrain: Pretrain) -> dict[str, Any]:
    """Train as the options say, keep the best epoch, predict; return what `--json` prints.

    `pretrain` tunes the language model first, if `lm_epochs` asks for it.
    """
    session = Session.start(options.device, console)
    if options.model is None:
        options = dataclasses.replace(options, model=newest_model(console))
    finished = read_result(options.out) if options.out is not None else None
    recorded = _as_recorded(options) if finished is not None else options
    # `auto` never compiles here: nearly every batch has a length of its own.
    choices = session.check(recorded, command="finetune")
    session.on_main(lambda: refuse_contradictions(options))
    if console.recipe_note:
        console.say(console.recipe_note)
    if finished is not None and len(finished["per_seed"]) == options.seeds:
        console.say(f"{finished['run_dir']} already finished; showing its result")
        return _show_finished(finished, options, recorded, choices, session)
    keep_freed_memory()
    weights = session.on_main(lambda: readable_model(str(options.model), console))
    reading = dataclasses.replace(options, model=weights)
    inputs = session.main_first(lambda: prepare_inputs(reading, console))
    check_learning_rate_nonzero(options, inputs)
    size = inputs.pretrained.num_parameters()
    if options.features != "none":
        console.say(f"only a linear head is trained, at --head-learning-rate {options.head_learning_rate:g}")
    elif size < SMALL and not inputs.task.is_demo and options.learning_rate <= FinetuneOptions.learning_rate:
        rate = f"a learning rate of {options.learning_rate:g} suits GPT-1's 117M parameters, and this model has"
        console.say(f"{rate} {size / 1e6:.3g}M: add --recipe demo-classification, which has settings for a small one")
    if options.study == "paper":
        session.on_main(lambda: own_run(inputs))
    if options.dry_run:
        if options.lm_epochs:
            console.say("the plan is of the classifier: tuning the language model first is not in it")
        if options.study == "paper":
            console.say("the plan is of fine-tuning the GPT: pre-training an LSTM and a masked model is not in it")
        return plan_finetune(options, inputs, choices, session)
    with session.open_run(options, command="finetune", name=Path(options.task).stem) as directory:
        console.run_directory = directory.path
        if options.lm_epochs:
            inputs = tune_language_model(options, inputs, directory.path, session, pretrain)
        result = _Runs(inputs, choices, session, pretrain).result(options, directory)
    report.print_result(result, inputs.task, console)
    return result


def _as_recorded(options: FinetuneOptions) -> FinetuneOptions:
    """Return the options; to predict with a finished run, with its recorded data: the files may have moved since."""
    assert options.out is not None
    if options.predict is None:
        return options
    try:
        recorded = read_recipe(options.out / CONFIG, FinetuneOptions)
    except UsageError:
        return options  # `check_run` reports what is wrong with it
    return dataclasses.replace(options, data=recorded.get("data"))


def _show_finished(
    result: dict[str, Any], options: FinetuneOptions, recorded: FinetuneOptions, choices: Choices, session: Session
) -> dict[str, Any]:
    """Show a finished run's result and predict with its model; the pre-trained model and a task's YAML may be gone."""
    run, console = Path(result["run_dir"]), session.console
    if options.predict is not None:
        task = _task_of(options, run / "model")
        splits = session.main_first(lambda: prepare_predicted(task, run / "model", options, console))
        with session.open_run(recorded, command="finetune", name="") as directory:
            result = _predict(splits, task, directory, recorded.epochs, choices, session)
    report.print_result(result, carried_task(run / "model") or find_task(options.task), console)
    return result


def _task_of(options: FinetuneOptions, model: Path) -> Task:
    """Return the task that --task names or, if its YAML is gone, the one saved with the run's model."""
    carried = carried_task(model)
    is_gone = options.task not in TASKS and not Path(options.task).expanduser().exists()
    task = carried if carried is not None and is_gone else find_task(options.task)
    difference = Head.of(model).difference_from(task)
    if difference is not None:
        message = f"the task differs from the one that the model was trained on: {difference}"
        raise UsageError(message, where=f"--task {options.task}", fix="start a new run with another --out")
    return task


@dataclass(frozen=True)
class _Runs:
    """The runs of one command, which share inputs, precision and processes."""

    inputs: Inputs
    choices: Choices
    session: Session
    pretrain: Pretrain
    reported: set[str] = field(default_factory=set)  # lines on learning rates, which all seeds and variants share

    def result(self, options: FinetuneOptions, directory: RunDirectory) -> dict[str, Any]:
        """Train one run, its seeds or a study, write the predictions, and return the result."""
        inputs, session = self.inputs, self.session
        if options.study != "none":
            self._study(options, directory)
        elif options.seeds > 1 or (directory.path / f"seed-{options.seed}").exists():
            seeds = self._seeds(options, directory.path)
            session.on_main(lambda: self._combine(directory, seeds, options.epochs))
        else:
            self._train(options, directory)
        splits = {name: inputs.splits[name] for name in predicted_splits(inputs.task, options)}
        return _predict(splits, inputs.task, directory, options.epochs, self.choices, session)

    def _study(self, options: FinetuneOptions, directory: RunDirectory) -> None:
        """Train every variant, those of another model after pre-training it, and write the study's result."""
        session, variants, items = self.session, {}, {}
        planned = variants_of(options.study, options.lm_epochs)
        kinds = [changes["model"] for changes in planned.values() if "model" in changes]
        peers = {kind: pretrained_peer(kind, self.inputs, session, self.pretrain) for kind in kinds}
        for name, changes in planned.items():
            session.console.say(f"variant {name}")
            changed, runs = dataclasses.replace(options, **{"study": "none", **changes}), self
            if "model" in changes:
                changed = dataclasses.replace(changed, model=str(peers[changes["model"]]))
                inputs = session.main_first(partial(prepare_inputs, changed, session.console))
                runs = dataclasses.replace(self, inputs=inputs)
            variants[name] = runs._seeds(changed, directory.path / name)
            models = (_tuned(seed["model_dir"], session) for seed in variants[name]["per_seed"])
            items[name] = [runs._dev_items(model, self.choices, runs.inputs) for model in models]
            recipe = directory.path / name / f"seed-{options.seed}" / CONFIG
            variants[name]["rerun"] = shlex.join(
                ["gptkit", "finetune", "--recipe", str(recipe), "--out", f"again-{name}"]
            )
        study = study_result(self.inputs.task, variants, items)
        session.on_main(lambda: self._combine(directory, study, options.epochs))
        session.on_main(lambda: report.draw_study(study, self.inputs.task, directory.path / "study.png"))

    def _seeds(self, options: FinetuneOptions, root: Path) -> dict[str, Any]:
        """Train each seed in its own directory and return their combined result; finished ones keep no checkpoints."""
        results, say = [], self.session.console.say
        for seed in range(options.seed, options.seed + options.seeds):
            say(f"seed {seed}")
            own: dict[str, Any] = {"seed": seed, "out": root / f"seed-{seed}", "resume": "auto"}
            own["snapshots"] = options.snapshots or 0  # by default only a single run has some
            seed_options = dataclasses.replace(options, seeds=1, study="none", predict=None, **own)
            with self.session.open_run(seed_options, command="finetune", name="") as directory:
                if directory.result is None:
                    self._train(seed_options, directory)
                result = self.session.on_main(partial(_without_checkpoints, directory))
            metrics = ", ".join(f"{name} {report.shown(name, value)}" for name, value in result["metrics"].items())
            say(f"seed {result['seed']}: {metrics}")
            results.append(result)
        elapsed = results[-1]["elapsed_seconds"]
        return over_seeds(self.inputs.task, results) | {"run_dir": str(root), "elapsed_seconds": elapsed}

    def _train(self, options: FinetuneOptions, directory: RunDirectory) -> None:
        """Train one model, restore its best epoch, and write everything except predictions."""
        inputs, session = self.inputs, self.session
        model = inputs.model(options)
        model.to(session.accelerator.device)
        if options.features != "none":
            inputs = session.main_first(lambda: self.inputs.with_states(model, session.console))
        run = FinetuneRun(options, inputs, model, session.hardware)

        def make_job(choices: Choices) -> TrainingJob:
            job = run.job(choices)
            for line in run.rate_lines(job.optimizer):
                if line not in self.reported:
                    self.reported.add(line)
                    session.console.say(line)
            return job

        def write_description(folder: Path) -> None:
            write_start(folder, run.model, inputs.tokenizer)
            write_task(folder, inputs.task)

        trained = train_run(make_job, options, self.choices, directory, session, write_start=write_description)
        assert trained.finish.best_step is not None
        checkpoints.load_weights(directory.checkpoints / directory_name(trained.finish.best_step), run.model)
        items = self._dev_items(run.model.train(False), trained.choices, inputs)
        with quiet_transformers():
            session.on_main(lambda: self._write(run, trained, items, directory))

    def _dev_items(self, model: GPTDoubleHeadsModel, choices: Choices, inputs: Inputs) -> Columns:
        """Return the scored examples of dev."""
        dev = inputs.splits["dev"]
        with autocast(self.session.accelerator.device.type, choices.precision):
            logits = evaluate_head(model, dev.encoded).logits
        return items_of_logits(inputs.task, dev.examples, logits).columns

    def _write(self, run: FinetuneRun, trained: TrainResult, items: Columns, directory: RunDirectory) -> None:
        """Write the model with its card, the loss curve and, last, the result with the best step's figures."""
        rows, inputs, finish = directory.rows(), run.inputs, trained.finish
        assert finish.best_step is not None
        figures = ("val_loss", *inputs.task.metrics)
        best, last = directory.row_of(finish.best_step, figures), directory.row_of(finish.step, figures)
        own = {
            "run_dir": str(directory.path),
            "model_dir": str(directory.path / "model"),
            "task": inputs.task.name,
            "model": inputs.model_name,
            "metrics": {name: best[name] for name in inputs.task.metrics},
            **_beside(inputs.task, inputs.splits["dev"].examples, items),
            "val_loss": best["val_loss"],
            "best_step": finish.best_step,
            "best_epoch": -(-finish.best_step // run.steps_per_epoch),
            "lm_coef": run.options.lm_coef,
            "transfer_layers": run.options.transfer_layers,
            **{name: getattr(run.options, name) for name in ULMFIT_PARTS},
            "lm": inputs.lm if run.options.lm_epochs else None,
            "features": run.options.features,
            **({} if run.model.mix is None else {"mix": run.model.mix.learnt()}),
            "n_train": len(inputs.train),
            "n_eval": len(inputs.dev),
            "steps": finish.step,
            "tokens": finish.tokens,
            "tokens_per_second": finish.tokens_per_second,
            "train_seconds": finish.train_seconds,
            "train_loss": last["loss"],
            "mfu": trained.mfu,
            "resumed_from": trained.resumed_from,
            "data_sha256": inputs.identity["data_sha256"],
            "seed": run.options.seed,
            "version": gptkit.__version__,
        }
        result = over_seeds(inputs.task, [own])
        command = self.session.console.command_line
        card = report.card_of(run, trained.choices, result, command=command)
        with files.translate_os_errors("writing the model", fix=AGAIN):
            with files.new_directory(directory.path / "model") as folder:
                write_model(folder, run.model, inputs.tokenizer, card)
                write_task(folder, inputs.task)
            title = f"{inputs.task.name}: {directory.path.name}"
            names = {"ylabel": "loss (mean per example)", "metric": inputs.task.metrics[0]}
            draw_loss(rows, directory.path / "loss.png", title, **names, **_losses(run.options.lm_coef))
        directory.finish(result)

    def _combine(self, directory: RunDirectory, result: dict[str, Any], epochs: int) -> None:
        """Write the result of several runs, with a copy of the best one's model, whose card says what all scored."""
        model = directory.path / "model"
        if lost := lost_result(directory.path):
            self.session.console.warn(f"the run was finished, but {lost}: rebuilding its model and result")
        with files.translate_os_errors("copying the best model", fix=AGAIN), files.new_directory(model) as folder:
            files.copy_files(Path(result["model_dir"]), folder)
            report.update_card(folder, result, self.inputs.task, epochs)
        directory.finish({**result, "run_dir": str(directory.path), "model_dir": str(model)})


def _losses(lm_coef: float) -> dict[str, str]:
    """Return what the curves of loss.png are called, in the symbols of the GPT-1 paper (3.2) where there are two."""
    if lm_coef == 0:
        return {"training": "training: task loss", "validation": "dev: task loss"}
    both = f"L3 = L2 + {lm_coef:g} L1 (task + language-model loss)"
    return {"training": f"training: {both}", "validation": "dev: L2 (task loss)"}


def _tuned(model: str | Path, session: Session) -> GPTDoubleHeadsModel:
    """Return a fine-tuned model on the session's device."""
    tuned = load_model(Path(model), head=GPTDoubleHeadsModel, types=ANY)
    tuned.to(session.accelerator.device)
    return tuned


def _predict(
    splits: Mapping[str, Split], task: Task, directory: RunDirectory, epochs: int, choices: Choices, session: Session
) -> dict[str, Any]:
    """Write a finished run's predictions of splits, add their figures to its card and result, and return the result."""
    result, run = session.on_main(lambda: directory.result), directory.path
    assert result is not None
    predicted = dict(result.get("predicted", {}))
    for name, split in splits.items():
        earlier, path = predicted.get(name, {}).get("data_sha256", split.sha256), run / f"predictions-{name}.jsonl"
        if earlier != split.sha256 and path.exists():
            fix = "move the file away" + ", or give the new data a split of another name" * task.is_own
            raise UsageError(f"it holds predictions for other data than {name} has now", where=str(path), fix=fix)
    for name, split in splits.items():
        model = _tuned(run / "model", session)
        with autocast(session.accelerator.device.type, choices.precision):
            logits = logits_of(model, split.encoded)
        for path in session.on_main(partial(report.write_predictions, run, task, name, split.examples, logits)):
            session.console.say(f"predictions of {name}: {path}")
        predicted[name] = {"n": len(split.examples), "data_sha256": split.sha256}
        if split.encoded.targets is not None and name != "dev":  # whose figures the result has
            metrics = metrics_of(task, logits, split.encoded.targets)
            items = items_of_logits(task, split.examples, logits).columns
            predicted[name] |= {"metrics": {key: defined(value) for key, value in metrics.items()}}
            predicted[name] |= _beside(task, split.examples, items)
    if splits:
        result |= {"predicted": predicted}
        session.on_main(lambda: directory.amend(result))
        session.on_main(lambda: report.update_card(run / "model", result, task, epochs))
    return result


def _beside(task: Task, examples: Sequence[Example], items: Columns) -> dict[str, Any]:
    """Return what metrics of labelled examples stand beside: the intervals over the items, and chance."""
    chance = chance_of(task, examples)
    return {
        "item_interval": {name: item_interval(MEASURES[name], items) for name in task.metrics},
        "chance": {name: chance[name] for name in task.metrics if name in chance},
    }


def _without_checkpoints(directory: RunDirectory) -> dict[str, Any]:
    if directory.checkpoints.exists():
        files.remove_directory(directory.checkpoints)
    assert directory.result is not None
    return directory.result
