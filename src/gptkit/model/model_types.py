"""The model types of gptkit and their classes: GPT, and the two that GPT is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gptkit.errors import InputError
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model.modeling_lstm import LSTMDoubleHeadsModel, LSTMForCausalLM
from gptkit.model.modeling_masked import MaskedDoubleHeadsModel, MaskedGPT
from gptkit.model_files import GPT, LSTM, MASKED, lstm_tensor_shapes, tensor_shapes


class ModelType(NamedTuple):
    language_model: type[GPTForCausalLM]
    double_heads: type[GPTDoubleHeadsModel]
    tensor_shapes: Callable[..., dict[str, tuple[int, ...]]]
    lacks: str  # why a command refuses it


MODEL_TYPES = {
    GPT: ModelType(GPTForCausalLM, GPTDoubleHeadsModel, tensor_shapes, "this is an ordinary GPT"),
    LSTM: ModelType(LSTMForCausalLM, LSTMDoubleHeadsModel, lstm_tensor_shapes, "an LSTM has no attention"),
    MASKED: ModelType(MaskedGPT, MaskedDoubleHeadsModel, tensor_shapes, "a masked model predicts no next token"),
}
CAUSAL = frozenset({GPT, LSTM})  # types that predict the next token
ANY = frozenset(MODEL_TYPES)


def require_type(kind: str, types: frozenset[str], where: str) -> None:
    """Raise InputError for a model of a type that the caller cannot take."""
    if kind not in types:
        fix = "pass a GPT" if types == {GPT} else f"pass a model of type {' or '.join(sorted(types))}"
        raise InputError(f"{MODEL_TYPES[kind].lacks} (model_type {kind!r})", where=where, fix=fix)
