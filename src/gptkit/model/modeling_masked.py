"""A GPT that predicts masked tokens from both sides: BERT's objective (Devlin et al. 2018) in GPT's Transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.masking_utils import create_bidirectional_mask

from gptkit.model.configuration_gpt import MaskedConfig
from gptkit.model.lm_loss import IGNORE
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel, padded_positions, weighted_predictions
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
    """A masked language model with a classifier at the extract token, which sees the whole sequence but no padding."""

    config: MaskedConfig
    config_class = MaskedConfig
    language_model_class = MaskedGPT

    def padding_mask(self, input_ids: Tensor, extract: Tensor) -> Tensor:
        is_token = torch.arange(input_ids.shape[-1], device=extract.device) <= extract[..., None]
        return is_token.flatten(0, 1).long()

    def auxiliary_predictions(
        self, hidden: Tensor, ids: Tensor, extract: Tensor, positions: Tensor | None, targets: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `weighted_predictions` of the masked tokens, from a second pass, over `ids`, which have the masks.

        targets (example, sequence, length) are the ids of the masked tokens, IGNORE elsewhere. As in GPT-1, an
        example's L1 is the mean over its sequences of the mean over each sequence's predictions; that of a sequence
        without masked tokens is 0.
        """
        if targets is None:
            raise ValueError("lm_coef needs masked_ids and masked_targets")
        hidden, is_masked = self.hidden_states(ids, extract), targets != IGNORE
        positions = padded_positions(is_masked) if positions is None else positions
        return weighted_predictions(hidden, targets, is_masked.sum(-1).clamp(min=1), positions)
