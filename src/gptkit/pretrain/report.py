"""What a pre-training run tells: its plan, samples, figures and the files for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

import gptkit
from gptkit.decoding.sampling import SamplingRules
from gptkit.decoding.text import never_sampled, stop_ids
from gptkit.decoding.torch_engine import generate
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.pretrain.inputs import DEFAULT_TOKENIZER, Inputs
from gptkit.pretrain.options import PretrainOptions
from gptkit.report.model_card import ModelCard, describe_shape, versions
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.training.rules import Choices

SAMPLE_TOP_K = 40
FIGURES = {
    "val_loss": "validation loss (nats per token)",
    "val_perplexity": "validation perplexity (per token)",
    "bits_per_byte": "validation bits per byte",
    "train_loss": "training loss, last step",
    "steps": "steps",
    "tokens": "tokens",
    "tokens_per_second": "tokens per second",
    "mfu": "model FLOPs utilisation",
    "train_seconds": "seconds of training",
    "elapsed_seconds": "seconds in all",
}


def result_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a result's figures for a table, each with its unit in its name."""
    return [(name, shown(result[key])) for key, name in FIGURES.items() if result.get(key) is not None]


def shown(value: Any) -> str:
    """Return a figure as people read it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def sample_text(model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase, *, tokens: int, seed: int) -> str:
    """Return unconditional text of at most `tokens` tokens, always drawn with the same random numbers."""
    start = separator_id(tokenizer)
    (sample,) = generate(
        model,
        [[start]],
        max_new_tokens=min(tokens, model.config.n_positions - 1),
        rules=SamplingRules(top_k=SAMPLE_TOP_K),
        seed=seed,
        stop_ids=stop_ids(tokenizer),
        forbidden_ids=never_sampled(tokenizer, model.config.vocab_size),
    )
    return str(tokenizer.decode(sample.token_ids))


def model_card(
    options: PretrainOptions,
    inputs: Inputs,
    choices: Choices,
    result: Mapping[str, Any],
    *,
    command: str,
    sample: str | None,
) -> ModelCard:
    """Return the card of a finished run."""
    config, text = inputs.model.config, inputs.text
    assert text is not None  # a plan has no card
    family = "GPT-2 (layer norms first)" if config.pre_norm else "GPT-1 (layer norms last)"
    return ModelCard(
        name=Path(str(result["run_dir"])).name,
        summary=f"A {family} language model, pre-trained from scratch with gptkit {gptkit.__version__}.",
        parameters=inputs.model.num_parameters(),
        shape=describe_shape(config),
        data=f"{inputs.corpus.description}: {text.train.utf8_bytes:,} bytes to train on, "
        f"{text.validation.utf8_bytes:,} for validation",
        data_sha256=inputs.corpus.data_sha256,
        licence=inputs.corpus.licence,
        tokenizer=f"{options.tokenizer or DEFAULT_TOKENIZER}, {inputs.vocabulary:,} entries",
        command=command,
        measured=dict(result_rows(result)),
        versions=versions(choices.facts()),
        sample=sample,
    )
