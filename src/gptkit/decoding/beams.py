"""Beam search, through transformers' own generate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from gptkit.decoding.loop import FinishReason, Sample, check_prompt
from gptkit.errors import UsageError
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files.weights import not_finite


@torch.inference_mode()
def beam_search(
    model: GPTForCausalLM,
    prompt_ids: Sequence[Sequence[int]],
    *,
    beams: int,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    forbidden_ids: Collection[int] = (),
) -> list[Sample]:
    """Return for each prompt the continuation of highest joint probability among those that `beams` beams find.

    The probability is the model's own, summed as logarithms over all new tokens, the stop token too, and not divided by
    the length (length_penalty 0). The model is in eval mode. UsageError for a prompt that Decoder refuses, and where
    prompt and continuation exceed the context: beams share one window, which does not slide. InputError for logits that
    are not finite.
    """
    for ids in prompt_ids:
        check_prompt(ids, model.config.n_positions, model.config.vocab_size)
        _check_length(len(ids), max_new_tokens, model.config.n_positions)
    config = GenerationConfig(
        num_beams=beams,
        do_sample=False,
        length_penalty=0.0,
        max_new_tokens=max_new_tokens,
        suppress_tokens=sorted(forbidden_ids) or None,
        bos_token_id=None,
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=0,
    )
    model.generation_config = GenerationConfig()  # the model's own would fill in what is None here: its eos_token_id
    return [_search(model, number, ids, config, stop_ids) for number, ids in enumerate(prompt_ids)]


class _RefuseNotFinite(LogitsProcessor):
    """Raises InputError where log-probabilities are NaN, as all of them are where a logit is NaN or +inf.

    Forbidden tokens have -inf.
    """

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if bool(scores.isnan().any()):
            raise not_finite("the model's logits are")
        return scores


def _search(model: Any, number: int, ids: Sequence[int], config: GenerationConfig, stop_ids: Collection[int]) -> Sample:
    prompt = torch.tensor([list(ids)], device=model.device)
    output = model.generate(
        prompt,
        generation_config=config,
        attention_mask=torch.ones_like(prompt),
        logits_processor=LogitsProcessorList([_RefuseNotFinite()]),
    )
    new: list[int] = output[0, len(ids) :].tolist()
    end = next((place for place, token in enumerate(new) if token in stop_ids), None)
    reason: FinishReason = "length" if end is None else "stop"
    return Sample(number, new[:end], reason)


def _check_length(prompt: int, new: int, n_positions: int) -> None:
    if prompt + new <= n_positions:
        return
    raise UsageError(
        f"beam search stays within the context of {n_positions} tokens; prompt and continuation are {prompt} + {new}",
        where="--beams",
        fix=f"give --max-new-tokens {n_positions - prompt}" if prompt < n_positions else "shorten the prompt",
    )
