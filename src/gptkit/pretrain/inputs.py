"""Inputs of a pre-training run: the tokenized text, and the model before its first step."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gptkit.console import Console
from gptkit.errors import GptkitError, UsageError
from gptkit.model.configuration_gpt import GPTConfig, MaskedConfig, mask_token_of
from gptkit.model.loading import class_of, config_from, load_model, set_special_tokens
from gptkit.model.model_types import ANY
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import model_directory, model_presets
from gptkit.pretrain.check import DEFAULT_MODEL, DEFAULT_TOKENIZER, block_sizes, refuse_other_objective
from gptkit.pretrain.options import PretrainOptions
from gptkit.system.run_layout import START
from gptkit.text.blocks import PreparedText, TrainingBlocks, prepare
from gptkit.text.corpora import Corpus, hub_characters, open_corpus
from gptkit.text.tokenizers.any_tokenizer import separator_id, unknown_note
from gptkit.text.tokenizers.kinds import needs_training, training_note
from gptkit.text.tokenizers.loading import cached_tokenizer, load_tokenizer, tokenizer_in
from gptkit.training import rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

BEGINNING = 30  # characters of the text that are shown, to see that it was decoded correctly
MAX_PLAN_BYTES = 50_000_000  # a dry run tokenizes no larger text, so that it takes seconds


@dataclass(frozen=True)
class Inputs:
    """The tokenized text, and the model before its first step.

    A dry run has the model on the meta device and does not tokenize a large text: `text` is then None, and `tokenizer`
    too if it would be trained on it.
    """

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase | None
    text: PreparedText | None
    model: GPTForCausalLM
    vocabulary: int
    sequence_length: int
    rows_per_step: int
    from_scratch: bool


def prepare_inputs(options: PretrainOptions, console: Console, *, for_plan: bool = False) -> Inputs:
    """Read the model, the tokenizer and the text that the options name, and log what was found.

    Whatever needs no text is checked first. The console's recipe note comes before the rest, once the options are
    known to be valid. Raises UsageError or InputError before anything is trained or written. A large text is not
    tokenized `for_plan`, and so not checked.
    """
    n_positions, tokenizer, model = _prerequisites(options)
    sequence_length, rows_per_step = block_sizes(options, n_positions)
    characters = hub_characters(options.steps * options.tokens_per_step)
    corpus = open_corpus(options.data, options.validation, hub_characters=characters)
    about = f"data: {corpus.description}; {corpus.train.about_bytes / 1e6:.2f} MB to train on"
    beginning = next((piece.text[:BEGINNING] for piece in corpus.train.pieces()), "")
    begins = f"text begins: {json.dumps(beginning, ensure_ascii=False)}"
    for line in (*filter(None, [console.recipe_note]), about, begins, *corpus.notes):
        console.say(line)
    spec, text = options.tokenizer or DEFAULT_TOKENIZER, None
    is_tokenized = not for_plan or corpus.train.about_bytes <= MAX_PLAN_BYTES
    if tokenizer is None and (is_tokenized or not spec.startswith("bpe:")):
        tokenizer = _trained_tokenizer(spec, corpus, options.out, console.say)
    if is_tokenized:
        assert tokenizer is not None
        text = prepare(corpus, tokenizer)
        if not for_plan:
            tokens = f"{len(text.train):,} training tokens and {len(text.validation):,} for validation"
            console.say(f"{tokens}, in {text.train.path.parent}")
        for side, stream in (("training", text.train), ("validation", text.validation)):
            if stream.unknown:
                console.warn(unknown_note(f"the {side} text", stream.unknown, len(stream)))
        TrainingBlocks(text.train.ids, sequence_length, options.seed)  # raises if the text is too short
    from_scratch = model is None
    vocabulary = int(spec.removeprefix("bpe:")) if tokenizer is None else len(tokenizer)
    if model is None or for_plan:
        config = model.config if model else _config_from_scratch(options, vocabulary)
        torch.manual_seed(options.seed)
        with torch.device("meta") if for_plan else nullcontext():
            model = class_of(config, GPTForCausalLM)(config)
    rules.choose_compile_for(options.compile, model)  # raises for an LSTM
    if tokenizer is not None:
        _refuse_more_entries(tokenizer, model)
        set_special_tokens(model, tokenizer)
    if options.dropout is not None:
        model.set_dropout(options.dropout)
    if options.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return Inputs(
        corpus=corpus,
        tokenizer=tokenizer,
        text=text,
        model=model,
        vocabulary=vocabulary,
        sequence_length=sequence_length,
        rows_per_step=rows_per_step,
        from_scratch=from_scratch,
    )


def _prerequisites(
    options: PretrainOptions,
) -> tuple[int, PreTrainedTokenizerBase | None, GPTForCausalLM | None]:
    """Return (positions, tokenizer, model), as far as they are known before any text is read.

    The tokenizer is None if it is to be trained on the text, the model None if its weights are fresh, because its
    size may depend on the tokenizer. Raises every error about --model and --tokenizer that does not depend on the text.
    """
    name = options.model or DEFAULT_MODEL
    if name in model_presets() or not (name.startswith("hf:") or Path(name).is_dir()):
        tokenizer = _given_tokenizer(options.tokenizer or DEFAULT_TOKENIZER)
        entries = len(tokenizer) if tokenizer else 1  # one that is yet to be trained has more
        config = config_from(name, vocab_size=entries)
        refuse_other_objective(options.objective, config.model_type, has_weights=False)
        return config.n_positions, tokenizer, None
    directory = model_directory(name)
    tokenizer = _given_tokenizer(options.tokenizer) if options.tokenizer else tokenizer_in(directory)
    model = load_model(directory, types=ANY)
    refuse_other_objective(options.objective, model.config.model_type, has_weights=True)
    if tokenizer is not None:
        _refuse_more_entries(tokenizer, model)
    return model.config.n_positions, tokenizer, model


def _config_from_scratch(options: PretrainOptions, vocabulary: int) -> GPTConfig:
    """Return the configuration for a tokenizer's size; a masked model has the mask token right after its ids."""
    config = config_from(options.model or DEFAULT_MODEL, vocab_size=vocabulary)
    if options.objective == "causal":
        return config
    entries = max(config.vocab_size, vocabulary + 1)
    values = {key: value for key, value in config.to_diff_dict().items() if key != "model_type"}
    return MaskedConfig(**{**values, "vocab_size": entries, "mask_token_id": vocabulary})


def _given_tokenizer(spec: str) -> PreTrainedTokenizerBase | None:
    if needs_training(spec):
        return None
    tokenizer = load_tokenizer(spec)
    separator_id(tokenizer)  # raises if nothing can separate documents
    return tokenizer


def _refuse_more_entries(tokenizer: PreTrainedTokenizerBase, model: GPTForCausalLM) -> None:
    entries = mask_token_of(model.config) or model.config.vocab_size
    if len(tokenizer) <= entries:
        return
    message = f"the tokenizer has {len(tokenizer):,} entries, but the model only {entries:,}"
    raise UsageError(message, where="--tokenizer", fix="leave --tokenizer out to use the model's own")


def _trained_tokenizer(
    spec: str, corpus: Corpus, run: Path | None, say: Callable[[str], None]
) -> PreTrainedTokenizerBase:
    started, text = time.perf_counter(), corpus.text_for(spec)
    tokenizer, was_cached = cached_tokenizer(spec, text)
    with suppress(GptkitError):  # no start/, or a damaged one
        if text is not corpus.train and run and len(tokenizer_in(run / START)) < len(tokenizer):
            tokenizer, was_cached = cached_tokenizer(spec, corpus.train)  # a run of an earlier version goes on with it
    how = "from the cache" if was_cached else f"trained in {time.perf_counter() - started:.1f} s"
    say(f"tokenizer {spec}: {len(tokenizer):,} entries, {how}")
    if note := training_note(spec, tokenizer):
        say(note)
    return tokenizer
