"""The sizes of a GPT with GPT-2's as defaults, and what no configuration may say."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Activation = Literal["gelu_new", "gelu"]
Format = Literal["classification", "entailment", "similarity", "multiple-choice"]

MARKER_FIELDS = ("start_token_id", "delimiter_token_id", "extract_token_id")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """All that a forward pass needs to know beside the weights; see GPTConfig for what each field means."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int
    pre_norm: bool = True
    activation_function: Activation = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True

    @property
    def head_dim(self) -> int:
        """Return the width of one attention head."""
        return self.n_embd // self.n_head


def check_sizes(values: Mapping[str, Any]) -> None:
    """Raise ValueError for sizes that no model can have; `values` are a configuration's fields by name."""
    for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
        size = values[name]
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if values["n_embd"] % values["n_head"]:
        raise ValueError(f"n_embd ({values['n_embd']}) must be a multiple of n_head ({values['n_head']})")


def check_rates(values: Mapping[str, Any]) -> None:
    """Raise ValueError for dropouts that are no probabilities and scales that are not positive; unset is right."""
    for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop", "classifier_dropout"):
        if (rate := values.get(name)) is not None and not 0 <= rate < 1:
            raise ValueError(f"{name} must be in [0, 1), got {rate}")
    for name in ("layer_norm_epsilon", "initializer_range", "position_initializer_range"):
        if (scale := values.get(name)) is not None and not 0 < scale <= sys.float_info.max:
            raise ValueError(f"{name} must be positive and finite, got {scale}")


def check_head(values: Mapping[str, Any]) -> None:
    """Raise ValueError for a format whose sequences could not be written: its markers are three free ids."""
    if values.get("format") is None:
        return
    markers = [values.get(name) for name in MARKER_FIELDS]
    for name, marker in zip(MARKER_FIELDS, markers, strict=True):
        if marker is None or not 0 <= marker < values["vocab_size"]:
            raise ValueError(f"{name} must be an id below vocab_size ({values['vocab_size']}), got {marker}")
    if len(set(markers)) < len(markers):
        raise ValueError("start_token_id, delimiter_token_id and extract_token_id must differ")
