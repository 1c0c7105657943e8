"""What a pre-training run begins with: text as tokens, and a model that has not taken a step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gptkit.data.corpora import Corpus, open_corpus
from gptkit.data.token_blocks import PreparedText, TrainingBlocks, prepare
from gptkit.data.tokenizers import load_tokenizer, needs_training, train_tokenizer, training_note
from gptkit.errors import UsageError
from gptkit.model.loading import config_from, load_model, model_presets
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.options import PretrainOptions
from gptkit.training import rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

DEFAULT_MODEL, DEFAULT_TOKENIZER = "laptop", "bpe:4096"
HUB_CHARACTERS_PER_TOKEN = 8  # more than any tokenizer makes of English, so that an hf: data set is read far enough


@dataclass(frozen=True)
class Inputs:
    """What a run trains: text as tokens, and the model before its first step."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    text: PreparedText
    model: GPTForCausalLM
    sequence_length: int
    rows_per_step: int

    @property
    def matmul_parameters(self) -> int:
        """Return the parameters that are multiplied: all but the position embeddings."""
        return int(self.model.num_parameters() - self.model.transformer.wpe.weight.numel())

    @property
    def flops_per_token(self) -> float:
        config = self.model.config
        return rules.flops_per_token(
            self.matmul_parameters,
            n_layer=config.n_layer,
            n_embd=config.n_embd,
            sequence_length=self.sequence_length,
        )


def prepare_inputs(options: PretrainOptions, say: Callable[[str], None]) -> Inputs:
    """Read the text, make or load the tokenizer, tokenize, and build the model; `say` each.

    What cannot be used is a UsageError or an InputError, before anything is trained or written.
    """
    model_name = options.model or DEFAULT_MODEL
    is_directory = model_name not in model_presets() and (model_name.startswith("hf:") or Path(model_name).is_dir())
    characters = options.steps * options.tokens_per_step * HUB_CHARACTERS_PER_TOKEN
    corpus = open_corpus(options.data, options.validation, hub_characters=characters)
    say(f"data: {corpus.description}; {corpus.train_bytes / 1e6:.2f} MB to train on")
    for note in corpus.notes:
        say(note)
    tokenizer = _tokenizer(options.tokenizer or (model_name if is_directory else DEFAULT_TOKENIZER), corpus, say)
    text = prepare(corpus, tokenizer)
    for note in text.notes:
        say(note)
    model = load_model(model_name) if is_directory else _fresh_model(model_name, len(tokenizer), options.seed)
    if model.config.vocab_size < len(tokenizer):
        message = f"the tokenizer has {len(tokenizer):,} entries, the model {model.config.vocab_size:,}"
        raise UsageError(message, where="--tokenizer", fix="leave --tokenizer out to use the model's own")
    _set_up(model, options)
    sequence_length = _sequence_length(options, model.config.n_positions)
    TrainingBlocks(text.train.ids, sequence_length, options.seed)  # says now if the text is too short
    return Inputs(corpus, tokenizer, text, model, sequence_length, _rows_per_step(options, sequence_length))


def _tokenizer(spec: str, corpus: Corpus, say: Callable[[str], None]) -> PreTrainedTokenizerBase:
    if not needs_training(spec):
        return load_tokenizer(spec)
    started = time.perf_counter()
    tokenizer = train_tokenizer(spec, (piece.text for piece in corpus.train_pieces()))
    say(f"tokenizer {spec}: {len(tokenizer):,} entries, made in {time.perf_counter() - started:.1f} s")
    if note := training_note(spec, tokenizer):
        say(note)
    return tokenizer


def _fresh_model(name: str, vocabulary: int, seed: int) -> GPTForCausalLM:
    config = config_from(name, vocab_size=vocabulary)
    torch.manual_seed(seed)
    return GPTForCausalLM(config)


def _set_up(model: GPTForCausalLM, options: PretrainOptions) -> None:
    if options.dropout is not None:
        model.set_dropout(options.dropout)
    if options.gradient_checkpointing:
        model.activation_checkpointing_enable()


def _sequence_length(options: PretrainOptions, n_positions: int) -> int:
    length = options.sequence_length or n_positions
    if length > n_positions:
        message = f"{length} tokens are more than the model's {n_positions} positions"
        raise UsageError(message, where="--sequence-length", fix=f"give {n_positions} or less")
    return length


def _rows_per_step(options: PretrainOptions, sequence_length: int) -> int:
    rows, rest = divmod(options.tokens_per_step, sequence_length)
    if rest or not rows:
        nearest = max(1, round(options.tokens_per_step / sequence_length)) * sequence_length
        message = f"{options.tokens_per_step} is not a multiple of the sequence length {sequence_length}"
        raise UsageError(message, where="--tokens-per-step", fix=f"give {nearest}")
    return rows
