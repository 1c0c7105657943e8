"""Errors in the options of `gptkit pretrain`, found before torch is imported."""

from __future__ import annotations

from pathlib import Path

from gptkit.errors import UsageError
from gptkit.model_files import LSTM, MASKED, GPTShape, model_directory, model_presets, model_type, shape_file
from gptkit.pretrain.options import PretrainOptions
from gptkit.system.reading import read_json_object
from gptkit.text.corpora import check_corpus
from gptkit.text.tokenizers.kinds import check_tokenizer
from gptkit.training.finished_runs import read_result
from gptkit.training.metrics import check_tracker
from gptkit.training.options import config_path, refuse_too_many_processes
from gptkit.training.run_directory import check_run

DEFAULT_MODEL, DEFAULT_TOKENIZER = "laptop", "bpe:4096"


def check(options: PretrainOptions) -> None:
    """Raise UsageError or InputError for options that contradict each other or name what is not there."""
    check_run(options, command="pretrain")
    check_tracker(options.report_to)
    if options.accelerate_config is not None:
        config_path(options.accelerate_config)
    if options.out is not None and read_result(options.out) is not None:
        return  # a finished run needs neither its text nor the model that it began with
    name = options.model or DEFAULT_MODEL
    if not name.startswith("hf:"):
        is_shape = name in model_presets() or not Path(name).is_dir()
        config = shape_file(name) if is_shape else model_directory(name) / "config.json"
        shape = read_json_object(config) if config.is_file() else {}  # an unfinished run has none of its own
        refuse_other_objective(options.objective, model_type(shape), has_weights=not is_shape)
        n_positions = shape.get("n_positions", GPTShape.n_positions)
        if config.is_file() and type(n_positions) is int and n_positions > 0:
            block_sizes(options, n_positions)
    if options.tokenizer is not None:
        check_tokenizer(options.tokenizer)
    check_corpus(options.data, options.validation)


def refuse_other_objective(objective: str, kind: str, *, has_weights: bool) -> None:
    """Raise UsageError unless the objective can train a model of this type; a GPT's shape goes with both."""
    if objective == "causal" and kind == MASKED:
        message = "this model predicts masked tokens, not the next one"
        raise UsageError(message, where="--model", fix="pass --objective masked")
    if objective == "masked" and (kind == LSTM or (has_weights and kind != MASKED)):
        message = "this model reads from left to right, which --objective masked does not"
        raise UsageError(message, where="--model", fix="pass a GPT's preset, to train a masked model from scratch")


def block_sizes(options: PretrainOptions, n_positions: int) -> tuple[int, int]:
    """Return (tokens per block, blocks per step); UsageError if they do not fit the model or the processes."""
    length = options.sequence_length or n_positions
    if length > n_positions:
        message = f"{length} tokens exceed the model's {n_positions} positions"
        raise UsageError(message, where="--sequence-length", fix=f"pass {n_positions} or less")
    rows, rest = divmod(options.tokens_per_step, length)
    if rest or not rows:
        nearest = max(1, round(options.tokens_per_step / length)) * length
        message = f"{options.tokens_per_step} is not a multiple of the sequence length {length}"
        raise UsageError(message, where="--tokens-per-step", fix=f"pass {nearest}")
    fix = f"pass --tokens-per-step {options.processes * length}, or --num-processes {rows}"
    refuse_too_many_processes(rows, options.processes, where="--num-processes", fix=fix)
    return length, rows
