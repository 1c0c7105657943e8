"""GPT-1 and GPT-2 in one file, in the order the data flows: attention, MLP, block, model, language-model head.

The two families differ only in `config.pre_norm`: where the layer norms sit, whether a final one follows, and how
residual projections are initialized. Module names are those of GPT-2's checkpoints; every matrix is an `nn.Linear`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel, slice_logits_to_keep
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.lm_loss import IGNORE, lm_loss
from gptkit.model_files import Activation

DENSE_LENGTH = 512  # tokens up to which plain products train faster than SDPA in bf16 on a CPU


class PositionEmbedding(nn.Embedding):
    """A learned position embedding; its own type because it is initialized differently."""


class ResidualProjection(nn.Linear):
    """A linear layer that writes to the residual stream; its own type because GPT-2 scales its initialization.

    Attention and MLP could not do it: transformers skips `_init_weights` for modules without parameters of their own.
    """


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Return the attended values (batch, query, head, head_dim) and the weights (batch, head, query, key)."""
    scores = (query * scaling) @ key.mT  # (batch, head, query, key)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1).to(value.dtype)
    attended = F.dropout(weights, p=dropout, training=module.training) @ value  # (batch, head, query, head_dim)
    return attended.transpose(1, 2).contiguous(), weights


def dense_trains_faster(query: Tensor) -> bool:
    """Return whether plain matrix products train faster than SDPA's causal kernel on this query.

    Measured with torch 2.13 and AVX512_BF16, forward and backward: 5 times as fast at 64 tokens, 2 at 256, 1.6 at 512,
    equal at 1024; never faster in fp32. The slow half is the kernel's backward pass, so this is for training only.
    """
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[-2] <= DENSE_LENGTH


def dense_causal_mask(query: Tensor) -> Tensor:
    """Return the additive mask (query, key) for `eager_attention`: 0 up to the query's position, -inf after it."""
    length = query.shape[-2]
    return query.new_full((length, length), -math.inf).triu(1)


class GPTAttention(nn.Module):
    is_causal = True

    def __init__(self, config: GPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.n_embd // config.n_head
        self.scaling = self.head_dim**-0.5
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = ResidualProjection(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, width = hidden.shape
        qkv = self.c_attn(hidden).view(batch, length, 3, -1, self.head_dim)  # (batch, query, 3, head, head_dim)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (batch, head, query, head_dim)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (batch, head, key, head_dim)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        if self.training and attention_mask is None and past_key_values is None and dense_trains_faster(query):
            attend, attention_mask = eager_attention, dense_causal_mask(query) if self.is_causal else None
        dropout = self.config.attn_pdrop if self.training else 0.0
        attended, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        output = self.c_proj(attended.reshape(batch, length, width))  # attended is (batch, query, head, head_dim)
        return self.resid_dropout(output), weights


class TanhGELU(nn.Module):
    """GELU's tanh approximation, 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3)."""

    def forward(self, hidden: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return F.gelu(hidden, approximate="tanh")
        # Equal to x sigmoid(2u), which compiles to a loop that takes half the time; in fp32 until the end, as F.gelu.
        x = hidden.float()
        return (x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))).to(hidden.dtype)


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {"gelu_new": TanhGELU, "gelu": nn.GELU}


class GPTMLP(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.inner_width)
        self.act = ACTIVATIONS[config.activation_function]()
        self.c_proj = ResidualProjection(config.inner_width, config.n_embd)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(hidden))))


class GPTBlock(GradientCheckpointingLayer):
    def __init__(self, config: GPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = GPTAttention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = GPTMLP(config)

    def forward(self, hidden: Tensor, **kwargs: Any) -> Tensor:
        if self.pre_norm:
            hidden = hidden + self.attn(self.ln_1(hidden), **kwargs)[0]
            hidden = hidden + self.mlp(self.ln_2(hidden))
        else:
            hidden = self.ln_1(hidden + self.attn(hidden, **kwargs)[0])
            hidden = self.ln_2(hidden + self.mlp(hidden))
        return hidden


def compile_blocks(model: nn.Module, *, dynamic: bool = False) -> None:
    """Compile the block, whose code all layers share: compiling takes as long for one layer as for many.

    Each shape is compiled once, or with `dynamic` one kernel serves all. Never one that turns into the other: what is
    compiled for a shape must not depend on the shapes before it, or a resumed run differs in its last bits.
    """
    for module in model.modules():
        if isinstance(module, GPTBlock):
            module.compile(dynamic=dynamic)


class GPTPreTrainedModel(PreTrainedModel):
    config: GPTConfig
    config_class = GPTConfig  # explicit: transformers would read the annotation above as a string
    base_model_prefix = "transformer"
    _input_embed_layer = "wte"
    _no_split_modules = ["GPTBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _keys_to_ignore_on_load_unexpected = [r"^(score|mix)\."]  # a fine-tuned model loaded as a language model
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GPTBlock, "attentions": GPTAttention}

    def __init__(self, config: GPTConfig) -> None:
        """Raise ValueError for the configuration of another model type, whose weights have other meanings."""
        if config.model_type != self.config_class.model_type:
            wanted = f"{type(self).__name__} is a model of type {self.config_class.model_type}"
            raise ValueError(f"{wanted}, and the configuration's is {config.model_type}")
        super().__init__(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize a module's weights as OpenAI did.

        tensor                                 GPT-2 (pre_norm)             GPT-1
        -------------------------------------  ---------------------------  -----------
        wte.weight, tied lm_head.weight        N(0, 0.02)                   N(0, 0.02)
        wpe.weight                             N(0, 0.01)                   N(0, 0.02)
        attn.c_attn.weight, mlp.c_fc.weight    N(0, 0.02)                   N(0, 0.02)
        attn.c_proj.weight, mlp.c_proj.weight  N(0, 0.02 / sqrt(2 n_layer)) N(0, 0.02)
        every bias                             0                            0
        ln_1, ln_2 (GPT-2: and ln_f)           weight 1, bias 0             the same

        N(mean, std); 0.02 is `initializer_range`, wpe's is `position_initializer_range`. Sources: openai/gpt-2
        src/model.py (wte, wpe, conv1d), GPT-2 paper, section 2.3 (1/sqrt(N), N = 2 n_layer residual layers),
        openai/finetune-transformer-lm train.py. `init.normal_` skips loaded weights, `tensor.normal_()` would not.
        """
        std = self.config.initializer_range
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            return
        if isinstance(module, PositionEmbedding):
            std = self.config.position_initializer_range or std
        elif isinstance(module, ResidualProjection) and self.config.pre_norm:
            std = std / math.sqrt(2 * self.config.n_layer)
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)

    def set_dropout(self, p: float) -> None:
        """Set the dropout of embeddings, attention and residuals to probability `p`."""
        for name in self.config.dropouts:
            setattr(self.config, name, p)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = p

    @property
    def has_dropout(self) -> bool:
        """Whether any dropout is active in training."""
        dropped = any(isinstance(module, nn.Dropout | nn.Dropout1d) and module.p > 0 for module in self.modules())
        return dropped or self.config.attn_pdrop > 0


class GPTModel(GPTPreTrainedModel):
    """The Transformer without a head: token ids (batch, query) in, hidden states (batch, query, n_embd) out."""

    gradient_checkpointing = False  # transformers sets it, and then no cache is built while training

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = PositionEmbedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([GPTBlock(config, layer) for layer in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon) if config.pre_norm else nn.Identity()
        self.post_init()

    @merge_with_config_defaults  # use_cache
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Return the last hidden states, the cache unless `use_cache` is false, and whatever `output_*` requests.

        `attention_mask` (batch, key) is 1 for tokens and 0 for padding on either side; right padding needs no mask,
        because attention is causal. Without `position_ids`, positions count the unmasked tokens. Wherever given
        `position_ids` do not increase by one, a new document starts that attends only to itself, unless a mask or a
        cache is given as well. Raises ValueError beyond n_positions.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass either input_ids or inputs_embeds")
        embedded = self.wte(input_ids) if inputs_embeds is None else inputs_embeds  # (batch, query, n_embd)
        if position_ids is not None:
            position_ids = position_ids.reshape(-1, embedded.shape[1])  # (1 or batch, query)
            kwargs["position_ids"] = position_ids  # flash attention finds packed documents by them, without a mask
        positions = self._positions(embedded, attention_mask, position_ids, past_key_values)
        mask = self._mask(embedded, attention_mask, position_ids, past_key_values)
        if use_cache and past_key_values is None:  # after the mask: a cache disables packed documents
            past_key_values = DynamicCache(config=self.config)
        hidden = self.drop(embedded + self.wpe(positions))
        for block in self.h:
            hidden = block(hidden, attention_mask=mask, past_key_values=past_key_values, use_cache=use_cache, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.ln_f(hidden), past_key_values=past_key_values)

    def _positions(
        self, embedded: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Return the position of each query, (query,) or (batch, query)."""
        length = embedded.shape[1]
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            seen = attention_mask.long().cumsum(-1)  # (batch, key): tokens up to and including each key
            position_ids = (seen - 1).clamp(min=0)[:, -length:]
        if position_ids is None:
            past = 0 if cache is None else cache.get_seq_length()
            if past + length > self.config.n_positions:
                raise ValueError(_too_long(past + length, self.config.n_positions))
            return torch.arange(length, device=embedded.device) + past
        # Reading values synchronizes the device and breaks a graph: checked only for explicit positions, uncompiled.
        if not torch.compiler.is_compiling() and position_ids.max() >= self.config.n_positions:
            raise ValueError(_too_long(int(position_ids.max()) + 1, self.config.n_positions))
        return position_ids

    def _mask(
        self, embedded: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> Any:
        """Return None where SDPA's own causal kernel suffices, else the mask that the implementation expects."""
        is_plain = attention_mask is None and position_ids is None and cache is None
        if is_plain and self.config._attn_implementation == "sdpa":
            return None  # as create_causal_mask does, except while compiling before pytorch#176499
        return create_causal_mask(
            config=self.config,
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,
        )


def _too_long(length: int, limit: int) -> str:
    return f"a sequence of {length} tokens is longer than the model's n_positions ({limit})"


class GPTForCausalLM(GPTPreTrainedModel, GenerationMixin):
    """A GPT with a language-model head, tied to the token embedding unless the config unties them."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}
    body_class: type[Any] = GPTModel  # that of another model type has `wte`, blocks `h` and the same output

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.transformer: GPTModel = self.body_class(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        use_cache: bool | None = None,
        loss_only: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits (batch, query, vocab_size) and the cache, and with labels the loss.

        `labels` (batch, query) are the input ids, shifted here; the keyword `shift_labels` gives the shifted targets
        instead. -100 is ignored. The loss is in nats: the sum over supervised targets, divided by `num_items_in_batch`
        or by their count. With `loss_only` nothing else is returned: the loss is computed in chunks from `lm_head`'s
        weight, never with the logits of the whole batch, and hooks and adapters on `lm_head` are bypassed.
        """
        # Not a named parameter: Trainer looks for "label" in these names and would require it in every batch.
        shift_labels: Tensor | None = kwargs.pop("shift_labels", None)
        # Named, not in **kwargs: GenerationMixin inspects these names, and left padding would silently go wrong.
        outputs = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=False if loss_only else use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if loss_only:
            return CausalLMOutputWithPast(loss=self._chunked_loss(hidden, labels, shift_labels, num_items_in_batch))
        logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
        loss = None
        if labels is not None or shift_labels is not None:
            loss = self.loss_function(
                logits,
                labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _chunked_loss(
        self,
        hidden: Tensor,
        labels: Tensor | None,
        shift_labels: Tensor | None,
        num_items_in_batch: int | Tensor | None,
    ) -> Tensor:
        if shift_labels is None:
            if labels is None:
                raise ValueError("loss_only needs labels or shift_labels")
            shift_labels = F.pad(labels[..., 1:], (0, 1), value=IGNORE)
        total = lm_loss(hidden, self.lm_head.weight, shift_labels)
        count = (shift_labels != IGNORE).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return total / count
