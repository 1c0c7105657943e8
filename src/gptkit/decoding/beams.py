"""Beam search, through transformers' own generate."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from gptkit.decoding.loop import FinishReason, Step, check_prompt
from gptkit.errors import UsageError
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import not_finite


@dataclass
class BeamSearch:
    """Searches with `beams` beams, prompt by prompt: iterate once over its steps, then read the seconds they took.

    It finds the continuation of highest joint probability among those that the beams find: the model's own
    probability, summed as logarithms over all new tokens, the stop token too, and not divided by the length
    (length_penalty 0). The model is in eval mode. UsageError for a prompt that Decoder refuses, and where prompt and
    continuation exceed the context: beams share one window, which does not slide. InputError for logits that are not
    finite.
    """

    model: GPTForCausalLM
    prompt_ids: Sequence[Sequence[int]]
    _: KW_ONLY
    beams: int
    max_new_tokens: int
    stop_ids: Collection[int] = ()
    forbidden_ids: Collection[int] = ()
    prefill_seconds: float = field(default=0.0, init=False)  # a part of the search
    decode_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        n_positions, new = self.model.config.n_positions, self.max_new_tokens
        for ids in self.prompt_ids:
            check_prompt(ids, n_positions, self.model.config.vocab_size)
            if len(ids) + new > n_positions:
                room = n_positions - len(ids)
                raise UsageError(
                    f"beam search stays within the context of {n_positions} tokens; "
                    f"prompt and continuation are {len(ids)} + {new}",
                    where="--beams",
                    fix=f"give --max-new-tokens {room}" if room else "shorten the prompt",
                )
        self._finished: set[int] = set()

    def __iter__(self) -> Iterator[Step]:
        """Yield a sample's steps together, once it is found."""
        for row, ids in enumerate(self.prompt_ids):
            began = time.perf_counter()
            new = self._search(ids)
            self.decode_seconds += time.perf_counter() - began
            end = next((place for place, token in enumerate(new) if token in self.stop_ids), None)
            for token_id in new[:end]:
                yield Step(row, token_id, None)
                if row in self._finished:
                    break
            else:
                yield Step(row, None, "length" if end is None else "stop")

    def finish(self, row: int, reason: FinishReason) -> None:
        """End a row between two steps."""
        self._finished.add(row)

    @torch.inference_mode()
    def _search(self, ids: Sequence[int]) -> list[int]:
        """Return the new tokens of a prompt."""
        model: Any = self.model
        model.generation_config = GenerationConfig()  # its own would fill in what is None here: its eos_token_id
        prompt = torch.tensor([list(ids)], device=model.device)
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            logits_processor=LogitsProcessorList([_RefuseNotFinite()]),
            num_beams=self.beams,
            do_sample=False,
            length_penalty=0.0,
            max_new_tokens=self.max_new_tokens,
            suppress_tokens=sorted(self.forbidden_ids) or None,
            bos_token_id=None,
            eos_token_id=sorted(self.stop_ids) or None,
            pad_token_id=0,
        )
        new: list[int] = output[0, len(ids) :].tolist()
        return new


class _RefuseNotFinite(LogitsProcessor):
    """Raises InputError where log-probabilities are NaN, as all of them are where a logit is NaN or +inf.

    Forbidden tokens have -inf.
    """

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if bool(scores.isnan().any()):
            raise not_finite("the model's logits are")
        return scores
