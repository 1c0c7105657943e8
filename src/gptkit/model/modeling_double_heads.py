"""GPT-1's fine-tuning model: a classifier at the extract token, with language modelling as the auxiliary objective.

    L3 = L2 + lm_coef * L1      (GPT-1 paper, section 3.2, equations 3 to 5)

An example is one sequence (classification, entailment), two (similarity: both orders) or one per choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.lm_loss import IGNORE, lm_loss
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTModel, GPTPreTrainedModel

TOKENS_MULTIPLE = 128  # of the LM head's rows
NEW_STD = 0.02  # initialization of what a task adds: the classifier, and the embeddings of its three markers


@dataclass
class DoubleHeadsOutput(ModelOutput):
    """What GPTDoubleHeadsModel returns; `loss` = classifier_loss + lm_coef * lm_loss.

    logits are (example, label); for multiple-choice (example, choice); for a single label, a score, (example,).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    classifier_loss: Tensor | None = None
    lm_loss: Tensor | None = None


class LayerMix(nn.Module):
    """gamma x the sum of all layers' states, weighted by a softmax (ELMo: Peters et al. 2018, equation 1)."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.scalars = nn.Parameter(torch.zeros(layers))  # so that the weights start equal
        self.gamma = nn.Parameter(torch.ones(1))

    @property
    def weights(self) -> Tensor:
        return self.scalars.softmax(0)  # (layer,)

    def learnt(self) -> dict[str, Any]:
        """Return the weights, of the embeddings first, and gamma."""
        return {"weights": self.weights.tolist(), "gamma": self.gamma.item()}

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the mix of states, one tensor (..., n_embd) for each layer."""
        weighted = [weight * state for weight, state in zip(self.weights, states, strict=True)]
        return self.gamma * torch.stack(weighted).sum(0)


class GPTDoubleHeadsModel(GPTPreTrainedModel):
    """A GPT with a classifier; `config.format` defines an example's sequences, `config.id2label` names the outputs.

    A multiple-choice model has one output, the score of a choice; a regression model also has one. With `features` mix
    the classifier reads a LayerMix of what enters the first block, what leaves each later one's, and the final states.
    """

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}
    language_model_class: type[GPTForCausalLM] = GPTForCausalLM

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.transformer: GPTModel = self.language_model_class.body_class(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.classifier_dropout = nn.Dropout1d(config.classifier_dropout)
        self.score = nn.Linear(config.classifier_width, config.num_labels or 1)
        self.mix = LayerMix(config.n_layer + 1) if config.features == "mix" else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.score:
            init.normal_(module.weight, mean=0.0, std=NEW_STD)

    def forward(
        self,
        input_ids: Tensor,
        extract: Tensor,
        labels: Tensor | None = None,
        lm_coef: float = 0.0,
        num_items_in_batch: int | Tensor | None = None,
        lm_positions: Tensor | None = None,
        loss_only: bool = False,
        states: Tensor | None = None,
        masked_ids: Tensor | None = None,
        masked_targets: Tensor | None = None,
    ) -> DoubleHeadsOutput:
        """Return the logits and, with `labels`, the losses: means, or sums over `num_items_in_batch`.

        input_ids (example, sequence, length) are padded on the right with any id; extract (example, sequence) is the
        position of each sequence's extract token, its last. labels: class or choice as int64 (example,), a score as
        float (example,), a distribution over classes as float (example, label). With lm_coef 0 the LM head is not run.
        lm_positions are `predicting_positions` if known: computing them here synchronizes the device. masked_ids and
        masked_targets are for the auxiliary loss of a masked model. With `loss_only` the LM loss is computed in chunks
        from `lm_head`'s weight, bypassing its hooks and adapters, and only losses are returned. `states` (example,
        sequence, layer, n_embd) are those of a frozen model at the extract tokens, if known: the Transformer is then
        not run, and there is no LM loss.
        """
        if states is None:
            hidden = self.hidden_states(input_ids, extract)
            logits = self.classify(hidden, extract)
        else:
            logits = self.answer(states.squeeze(2) if self.mix is None else self.mix(states.unbind(2)))
        if labels is None:
            return DoubleHeadsOutput(logits=logits)
        count = len(input_ids) if num_items_in_batch is None else num_items_in_batch
        classifier_loss = summed_classifier_loss(logits, labels) / count
        returned = None if loss_only else logits
        if not lm_coef or states is not None:
            return DoubleHeadsOutput(loss=classifier_loss, logits=returned, classifier_loss=classifier_loss)
        read = input_ids if masked_ids is None else masked_ids
        predicting, targets, weights = self.auxiliary_predictions(hidden, read, extract, lm_positions, masked_targets)
        if loss_only:
            summed = lm_loss(predicting, self.lm_head.weight, targets, weights)
        else:
            nll = F.cross_entropy(self.lm_head(predicting).float(), targets, ignore_index=IGNORE, reduction="none")
            summed = (nll * weights).sum()
        auxiliary = summed / count
        loss = classifier_loss + lm_coef * auxiliary
        return DoubleHeadsOutput(loss=loss, logits=returned, classifier_loss=classifier_loss, lm_loss=auxiliary)

    def hidden_states(self, input_ids: Tensor, extract: Tensor) -> Tensor:
        """Return what the heads read (example, sequence, length, n_embd)."""
        output = self.transformer(
            input_ids=input_ids.flatten(0, 1),
            attention_mask=self.padding_mask(input_ids, extract),
            use_cache=False,
            output_hidden_states=self.mix is not None,
        )
        hidden: Tensor = output.last_hidden_state if self.mix is None else self.mix(output.hidden_states)
        return hidden.view(*input_ids.shape, -1)

    def padding_mask(self, input_ids: Tensor, extract: Tensor) -> Tensor | None:
        """Return the mask (row, length) of padding, where the model would see it."""
        return None

    def auxiliary_predictions(
        self, hidden: Tensor, ids: Tensor, extract: Tensor, positions: Tensor | None, targets: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `weighted_predictions` of the next tokens, whose weighted NLLs sum to L1."""
        if positions is None:
            positions = predicting_positions(extract, ids.shape[-1])
        return weighted_predictions(hidden, ids.roll(-1, dims=-1), extract, positions)

    def classify(self, hidden: Tensor, extract: Tensor, is_token: Tensor | None = None) -> Tensor:
        """Return the logits of hidden states (example, sequence, length, n_embd), in fp32.

        is_token (example, sequence, length) is False at padding, by default at what follows the extract tokens.
        """
        return self.answer(self.pooled(hidden, extract, is_token))

    def answer(self, state: Tensor) -> Tensor:
        """Return the logits of what the classifier reads (example, sequence, width), in fp32."""
        if self.config.format == "similarity":
            state = state.sum(1, keepdim=True)  # over both orders: similarity is symmetric (GPT-1 paper, 3.3)
        # One dropout mask per example, shared by its choices, so that choices differ only in what they say.
        state = self.classifier_dropout(state.mT).mT
        with torch.autocast(state.device.type, enabled=False):
            scores: Tensor = self.score(state.to(self.score.weight.dtype)).float()  # (example, sequence or 1, label)
        if self.config.format == "multiple-choice":
            return scores.squeeze(2)  # (example, choice)
        return scores.squeeze(1) if self.config.num_labels != 1 else scores[:, 0, 0]

    def pooled(self, hidden: Tensor, extract: Tensor, is_token: Tensor | None = None) -> Tensor:
        """Return what the classifier reads (example, sequence, width), of states (example, sequence, length, n_embd).

        It is the state of the extract token; with `head` concat also the mean and, for each dimension, the maximum over
        the sequence's tokens, without padding (ULMFiT: Howard and Ruder 2018, section 3.3).
        """
        index = extract[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
        state = hidden.gather(2, index).squeeze(2)  # (example, sequence, n_embd)
        if self.config.head == "extract":
            return state
        if is_token is None:
            is_token = torch.arange(hidden.shape[2], device=extract.device) <= extract[..., None]
        is_padding = ~is_token[..., None]
        mean = hidden.masked_fill(is_padding, 0).sum(2, dtype=torch.float32) / is_token.sum(2, keepdim=True)
        highest = hidden.masked_fill(is_padding, -torch.inf).amax(2)
        return torch.cat([state, mean.to(state.dtype), highest], dim=-1)

    def language_model(self) -> GPTForCausalLM:
        """Return the language model inside; it shares this model's weights and knows nothing of the task."""
        with torch.device("meta"):
            model = self.language_model_class(self.config.without_head())
        model.transformer, model.lm_head = self.transformer, self.lm_head
        model.train(self.training)
        return model


def summed_classifier_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return L2 summed over examples: cross-entropy of classes or distributions, or the squared error of scores.

    Raises ValueError for float labels whose shape is not the logits'.
    """
    if not labels.is_floating_point():
        return F.cross_entropy(logits, labels, reduction="sum")
    if labels.shape != logits.shape:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit logits {tuple(logits.shape)}")
    if labels.ndim == 1:
        return F.mse_loss(logits, labels.float(), reduction="sum")
    return F.cross_entropy(logits, labels.float(), reduction="sum")


def predicting_positions(extract: Tensor, length: int) -> Tensor:
    """Return the indices (token,) into a batch's flattened tokens at which the next token is predicted, padded with -1.

    All tokens after the first are predicted, including the extract token (openai/finetune-transformer-lm, train.py).
    Padding tokens are dropped before the LM head; the indices are padded to a multiple of TOKENS_MULTIPLE, because
    math libraries build a kernel for each new shape. extract (example, sequence).
    """
    return padded_positions(torch.arange(length, device=extract.device) < extract[..., None])


def padded_positions(predicts: Tensor) -> Tensor:
    """Return the flat indices (token,) of what is True, padded with -1 to a multiple of TOKENS_MULTIPLE above 0."""
    index = predicts.flatten().nonzero().squeeze(1)
    padding = -len(index) % TOKENS_MULTIPLE if len(index) else TOKENS_MULTIPLE
    return F.pad(index, (0, padding), value=-1)


def weighted_predictions(
    hidden: Tensor, targets: Tensor, counts: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states (token, n_embd), targets (token,) and weights (token,) whose weighted NLLs sum to L1.

    An example's L1 is the mean over its sequences of the mean over each sequence's predictions. hidden
    (example, sequence, length, n_embd), targets (example, sequence, length), counts of predictions (example, sequence),
    positions (token,) as `padded_positions` returns them.
    """
    index = positions.clamp(min=0)
    chosen = targets.flatten()[index].masked_fill(positions < 0, IGNORE)
    weights = (1.0 / (counts * counts.shape[1]))[..., None].expand_as(targets).flatten()[index]
    return hidden.flatten(0, 2).index_select(0, index), chosen, weights
