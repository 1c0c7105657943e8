"""A GPT that predicts masked tokens from both sides: BERT's objective (Devlin et al. 2018) in GPT's Transformer."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.masking_utils import create_bidirectional_mask

from gptkit.model.configuration_gpt import MaskedConfig
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTAttention, GPTForCausalLM, GPTModel


class MaskedModel(GPTModel):
    """The Transformer without a causal mask: every token sees all tokens that `attention_mask` does not hide."""

    config: MaskedConfig
    config_class = MaskedConfig

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, GPTAttention):
                module.is_causal = False

    def _mask(
        self, embedded: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> Any:
        return create_bidirectional_mask(
            config=self.config, inputs_embeds=embedded, attention_mask=attention_mask, past_key_values=cache
        )


class MaskedGPT(GPTForCausalLM):
    """A masked language model; `labels` and `shift_labels` are ids at the masked places, -100 elsewhere."""

    config: MaskedConfig
    config_class = MaskedConfig
    body_class = MaskedModel


class MaskedDoubleHeadsModel(GPTDoubleHeadsModel):
    """A masked language model with a classifier at the extract token."""

    config: MaskedConfig
    config_class = MaskedConfig
    language_model_class = MaskedGPT
