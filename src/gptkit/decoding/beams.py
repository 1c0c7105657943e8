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
    """Beam search, one prompt after the other: iterate once over the steps, then read the seconds they took.

    Finds the most likely continuation that `beams` beams reach, by the sum of the model's log-probabilities over all
    new tokens including the stop token, not divided by the length (length_penalty 0). The model must be in eval mode.
    Raises UsageError for a prompt that `Decoder` refuses, and if prompt and continuation exceed the context, since
    beams share one window, which does not slide; InputError for logits that are not finite.
    """

    model: GPTForCausalLM
    prompt_ids: Sequence[Sequence[int]]
    _: KW_ONLY
    beams: int
    max_new_tokens: int
    stop_ids: Collection[int] = ()
    forbidden_ids: Collection[int] = ()
    prefill_seconds: float = field(default=0.0, init=False)  # always 0: part of the search
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
                    fix=f"pass --max-new-tokens {room}" if room else "shorten the prompt",
                )
        self._finished: set[int] = set()

    def __iter__(self) -> Iterator[Step]:
        """Yield all steps of a sample once it is found."""
        for row, ids in enumerate(self.prompt_ids):
            began = time.perf_counter()
            new = self._search(ids)
            self.decode_seconds += time.perf_counter() - began
            end = next((index for index, token in enumerate(new) if token in self.stop_ids), None)
            for token_id in new[:end]:
                yield Step(row, token_id, None)
                if row in self._finished:
                    break
            else:
                yield Step(row, None, "length" if end is None else "stop")

    def finish(self, row: int, reason: FinishReason) -> None:
        """Stop yielding a row's steps."""
        self._finished.add(row)

    @torch.inference_mode()
    def _search(self, ids: Sequence[int]) -> list[int]:
        """Return the new tokens of a prompt."""
        model: Any = self.model
        model.generation_config = GenerationConfig()  # the model's own would replace a None below by its eos_token_id
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
    """Raises InputError for NaN: a logit that is NaN or +inf turns all log-probabilities of its row into NaN."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if bool(scores.isnan().any()):
            raise not_finite("the model's logits are")
        return scores
