"""What a pre-training run begins with: text as tokens, and a model that has not taken a step."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gptkit.errors import UsageError
from gptkit.model.loading import config_from, load_model, set_special_tokens
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import model_directory, model_presets
from gptkit.pretrain.options import PretrainOptions
from gptkit.text.blocks import PreparedText, TrainingBlocks, prepare
from gptkit.text.corpora import Corpus, open_corpus
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.kinds import needs_training, training_note
from gptkit.text.tokenizers.loading import cached_tokenizer, load_tokenizer, tokenizer_in
from gptkit.training import rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

DEFAULT_MODEL, DEFAULT_TOKENIZER = "laptop", "bpe:4096"
READ_AT_ONCE = 50_000_000  # bytes of text that a plan still makes tokens of, in seconds
BYTES_PER_TOKEN = 4  # about, of English in byte-level BPE with 50,257 entries
HUB_CHARACTERS_PER_TOKEN = 8  # more than any tokenizer makes of English, so that an hf: data set is read far enough


@dataclass(frozen=True)
class Inputs:
    """What a run trains: text as tokens, and the model before its first step.

    For a plan the model has shapes and no memory, and a large text is not tokenized: `text` is None, maybe `tokenizer`
    too, and vocabulary and tokens are what the text's bytes and the options let expect.
    """

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase | None
    text: PreparedText | None
    model: GPTForCausalLM
    vocabulary: int
    train_tokens: int
    validation_tokens: int
    sequence_length: int
    rows_per_step: int


def prepare_inputs(
    options: PretrainOptions, say: Callable[[str], None], recipe_note: str = "", *, for_plan: bool = False
) -> Inputs:
    """Return what the options name: first the model's shape and all that needs no text, then the text; `say` each.

    `recipe_note`, if not empty, is the line to say first, once the options are known to be good. What cannot be used is
    a UsageError or an InputError, before anything is trained or written; for a plan, all that shows without the tokens
    of a large text.
    """
    n_positions, tokenizer, model = _prerequisites(options)
    sequence_length, rows_per_step = _block_sizes(options, n_positions)
    characters = options.steps * options.tokens_per_step * HUB_CHARACTERS_PER_TOKEN
    corpus = open_corpus(options.data, options.validation, hub_characters=characters)
    about = f"data: {corpus.description}; {corpus.train.about_bytes / 1e6:.2f} MB to train on"
    for line in (*filter(None, [recipe_note]), about, *corpus.notes):
        say(line)
    spec, text = options.tokenizer or DEFAULT_TOKENIZER, None
    is_tokenized = not for_plan or corpus.train.about_bytes <= READ_AT_ONCE
    if tokenizer is None and (is_tokenized or not spec.startswith("bpe:")):
        tokenizer = _trained_tokenizer(spec, corpus, say)
    if is_tokenized:
        assert tokenizer is not None
        text = prepare(corpus, tokenizer)
        tokens = len(text.train), len(text.validation)
        if not for_plan:
            say(f"{tokens[0]:,} training tokens and {tokens[1]:,} for validation, in {text.train.path.parent}")
        TrainingBlocks(text.train.ids, sequence_length, options.seed)  # raises now if the text is too short
    else:
        tokens = corpus.train.count_bytes() // BYTES_PER_TOKEN, corpus.validation.count_bytes() // BYTES_PER_TOKEN
    vocabulary = int(spec.removeprefix("bpe:")) if tokenizer is None else len(tokenizer)
    with torch.device("meta") if for_plan else nullcontext():
        if model is None:
            torch.manual_seed(options.seed)
            model = GPTForCausalLM(config_from(options.model or DEFAULT_MODEL, vocab_size=vocabulary))
    if for_plan:
        model = model.to("meta")  # type: ignore[arg-type]
    if tokenizer is not None:
        _refuse_more_entries(tokenizer, model)
        set_special_tokens(model, tokenizer)
    if options.dropout is not None:
        model.set_dropout(options.dropout)
    if options.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return Inputs(corpus, tokenizer, text, model, vocabulary, *tokens, sequence_length, rows_per_step)


def _prerequisites(
    options: PretrainOptions,
) -> tuple[int, PreTrainedTokenizerBase | None, GPTForCausalLM | None]:
    """Return (positions, tokenizer, model) as far as they are there before any text is read.

    None for a tokenizer that is trained on the text, and for a model of fresh weights, as large as the tokenizer asks.
    Errors in what --model and --tokenizer name surface here, unless they depend on the text.
    """
    name = options.model or DEFAULT_MODEL
    if name in model_presets() or not (name.startswith("hf:") or Path(name).is_dir()):
        tokenizer = _given_tokenizer(options.tokenizer or DEFAULT_TOKENIZER)
        entries = len(tokenizer) if tokenizer else 1  # a tokenizer still to be trained has at least one
        return config_from(name, vocab_size=entries).n_positions, tokenizer, None
    directory = model_directory(name)
    tokenizer = _given_tokenizer(options.tokenizer) if options.tokenizer else tokenizer_in(directory)
    model = load_model(directory)
    if tokenizer is not None:
        _refuse_more_entries(tokenizer, model)
    return model.config.n_positions, tokenizer, model


def _given_tokenizer(spec: str) -> PreTrainedTokenizerBase | None:
    if needs_training(spec):
        return None
    tokenizer = load_tokenizer(spec)
    separator_id(tokenizer)  # raises now if nothing can stand between documents
    return tokenizer


def _refuse_more_entries(tokenizer: PreTrainedTokenizerBase, model: GPTForCausalLM) -> None:
    if len(tokenizer) <= model.config.vocab_size:
        return
    message = f"the tokenizer has {len(tokenizer):,} entries, the model {model.config.vocab_size:,}"
    raise UsageError(message, where="--tokenizer", fix="leave --tokenizer out to use the model's own")


def _trained_tokenizer(spec: str, corpus: Corpus, say: Callable[[str], None]) -> PreTrainedTokenizerBase:
    started = time.perf_counter()
    tokenizer, was_cached = cached_tokenizer(spec, corpus.train)
    how = "from the cache" if was_cached else f"trained in {time.perf_counter() - started:.1f} s"
    say(f"tokenizer {spec}: {len(tokenizer):,} entries, {how}")
    if note := training_note(spec, tokenizer):
        say(note)
    return tokenizer


def _block_sizes(options: PretrainOptions, n_positions: int) -> tuple[int, int]:
    """Return (tokens of a block, blocks of a step); UsageError where they do not fit the model or the processes."""
    length = options.sequence_length or n_positions
    if length > n_positions:
        message = f"{length} tokens are more than the model's {n_positions} positions"
        raise UsageError(message, where="--sequence-length", fix=f"give {n_positions} or less")
    rows, rest = divmod(options.tokens_per_step, length)
    if rest or not rows:
        nearest = max(1, round(options.tokens_per_step / length)) * length
        message = f"{options.tokens_per_step} is not a multiple of the sequence length {length}"
        raise UsageError(message, where="--tokens-per-step", fix=f"give {nearest}")
    processes = options.num_processes or 1
    fix = f"give --tokens-per-step {processes * length}, or --num-processes {rows}"
    rules.refuse_too_many_processes(rows, processes, where="--num-processes", fix=fix)
    return length, rows
