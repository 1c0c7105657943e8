"""The LSTM that GPT-1 is compared with: the same embedding, loss and fine-tuning head around recurrent layers.

GPT-1 paper, section 5: "a single layer 2048 unit LSTM using the same framework". It states neither how wide the token
embedding is nor how the output is made: here the last layer is projected to the embedding's width, whose table is the
output layer too.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.output_capturing import capture_outputs

from gptkit.model.configuration_gpt import LSTMConfig
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTPreTrainedModel

State = tuple[Tensor, Tensor]  # of one layer, h and c, each (batch, units)


class LSTMLayer(GradientCheckpointingLayer):
    """One recurrent layer and the dropout of its output."""

    def __init__(self, config: LSTMConfig, layer: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.inner_width if layer else config.n_embd, config.inner_width, batch_first=True)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden: Tensor, states: list[State] | None = None) -> Tensor:
        """Return the outputs (batch, length, units); with `states`, continue from its first and append the last."""
        before = None if states is None else tuple(part[None] for part in states.pop(0))
        with torch.autocast("cpu", enabled=False):  # not every CPU has the kernel in bf16
            hidden, after = self.lstm(hidden, before)
        if states is not None:
            states.append((after[0][0], after[1][0]))
        output: Tensor = self.dropout(hidden)
        return output


class LSTMModel(GPTPreTrainedModel):
    """The LSTM without a head: token ids (batch, length) in, hidden states (batch, length, n_embd) out."""

    config: LSTMConfig
    config_class = LSTMConfig
    gradient_checkpointing = False
    _no_split_modules = ["LSTMLayer"]
    _can_record_outputs = {"hidden_states": LSTMLayer}

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([LSTMLayer(config, layer) for layer in range(config.n_layer)])
        self.projection = nn.Linear(config.inner_width, config.n_embd)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize an LSTM as torch does, from U(-k, k) with k = 1 / sqrt(units); the rest as GPT-2's."""
        if not isinstance(module, nn.LSTM):
            super()._init_weights(module)
            return
        bound = 1 / math.sqrt(module.hidden_size)
        for parameter in module.parameters():
            init.uniform_(parameter, -bound, bound)

    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self, input_ids: Tensor, states: list[State] | None = None, use_cache: bool | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPast:
        """Return the last hidden states; `states`, one for each layer, is replaced by those after the last token.

        Without `states` each sequence starts from zeros. Padding on the right needs no mask, since what follows a token
        does not reach it; padding on the left, packed documents and a cache are not supported.
        """
        for name in ("attention_mask", "position_ids", "past_key_values", "inputs_embeds"):
            if kwargs.pop(name, None) is not None:
                raise ValueError(f"an LSTM takes no {name}")
        hidden = self.drop(self.wte(input_ids))  # (batch, length, n_embd)
        for layer in self.h:
            hidden = layer(hidden, states)  # (batch, length, units)
        return BaseModelOutputWithPast(last_hidden_state=self.projection(hidden))


class LSTMForCausalLM(GPTForCausalLM):
    """An LSTM with a language-model head."""

    config: LSTMConfig
    config_class = LSTMConfig
    body_class = LSTMModel


class LSTMDoubleHeadsModel(GPTDoubleHeadsModel):
    """An LSTM with a classifier at the extract token."""

    config: LSTMConfig
    config_class = LSTMConfig
    language_model_class = LSTMForCausalLM
