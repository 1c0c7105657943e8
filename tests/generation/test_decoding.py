"""Cached, batched, padded and sliding decoding give the text that a plain forward over the window gives."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from gptkit.errors import InputError, UsageError
from gptkit.generation.decoding import Decoder, Sample, generate, rows_at_once
from gptkit.generation.sampling import SamplingRules, choose
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM

VOCABULARY = 97
POSITIONS = 12
PROMPTS = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 8], [11, 12, 13, 14]]


def tiny_model(kind: str = "gpt2") -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": POSITIONS, "n_embd": 32, "n_layer": 2, "n_head": 4}
    if kind == "transformers":
        return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2, bos_token_id=0, eos_token_id=0)).eval()
    return GPTForCausalLM(GPTConfig(**sizes, initializer_range=0.2, pre_norm=kind == "gpt2")).eval()


@pytest.fixture(scope="module", params=["gpt1", "gpt2", "transformers"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@torch.inference_mode()
def plainly(model: PreTrainedModel, prompt: list[int], index: int, count: int, rules: SamplingRules) -> list[int]:
    """Decode one prompt without cache, padding or batch: a forward over the window for every token."""
    tokens, start = list(prompt), 0
    nothing = torch.zeros(VOCABULARY, dtype=torch.bool)
    for _ in range(count):
        if len(tokens) - start > POSITIONS:
            start = len(tokens) - POSITIONS // 2
        logits = model(input_ids=torch.tensor([tokens[start:]])).logits[:, -1]
        where = {"indices": torch.tensor([index]), "positions": torch.tensor([len(tokens)])}
        tokens.append(int(choose(logits, rules, seed=3, forbidden=nothing, **where)))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("rules", [SamplingRules(), SamplingRules(temperature=0), SamplingRules(top_k=5, top_p=0.9)])
def test_batched_cached_text_is_the_plain_text(model: PreTrainedModel, rules: SamplingRules) -> None:
    """20 tokens of a context of 12: the rows' windows slide two or three times, at different steps."""
    decoder = Decoder(model, PROMPTS, max_new_tokens=20, rules=rules, seed=3)
    for _ in decoder:
        pass
    expected = [plainly(model, prompt, index, 20, rules) for index, prompt in enumerate(PROMPTS)]
    assert [sample.token_ids for sample in decoder.samples] == expected
    assert decoder.prefill_seconds > 0
    assert decoder.decode_seconds > 0


def test_a_sample_depends_on_seed_index_and_position_alone(model: PreTrainedModel) -> None:
    together = generate(model, PROMPTS, max_new_tokens=12, seed=1)
    for index, prompt in enumerate(PROMPTS):
        (alone,) = generate(model, [prompt], max_new_tokens=12, seed=1, indices=[index])
        assert alone.token_ids == together[index].token_ids
    assert generate(model, PROMPTS, max_new_tokens=12, seed=2) != together
    twins = generate(model, [[5], [5]], max_new_tokens=12, seed=1)
    assert twins[0].token_ids != twins[1].token_ids
    (first,) = generate(model, [[5]], max_new_tokens=8, seed=1)
    (second,) = generate(model, [[5, *first.token_ids]], max_new_tokens=5, seed=1)  # a text goes on as if never cut
    assert [*first.token_ids, *second.token_ids] == generate(model, [[5]], max_new_tokens=13, seed=1)[0].token_ids


def test_small_batches_change_nothing(model: PreTrainedModel) -> None:
    rules = SamplingRules(top_k=10)
    texts = []
    for batch_size in (1, 3, 4):
        decoder = Decoder(model, PROMPTS, max_new_tokens=6, rules=rules, batch_size=batch_size)
        for _ in decoder:
            pass
        texts.append(decoder.samples)
    assert texts[0] == texts[1] == texts[2]


def test_stop_ids_end_a_row_and_leave_the_others(model: PreTrainedModel) -> None:
    free = generate(model, PROMPTS, max_new_tokens=15, seed=5)
    stop_ids = {free[0].token_ids[3], free[2].token_ids[10]}

    def cut(sample: Sample) -> Sample:
        places = [place for place, token in enumerate(sample.token_ids) if token in stop_ids]
        return Sample(sample.prompt, sample.token_ids[: places[0]], "stop") if places else sample

    decoder = Decoder(model, PROMPTS, max_new_tokens=15, rules=SamplingRules(), seed=5, stop_ids=stop_ids)
    steps = list(decoder)
    assert decoder.samples == [cut(sample) for sample in free]
    for sample in decoder.samples:
        own = [step for step in steps if step.row == sample.prompt]
        assert [step.token_id for step in own if step.token_id is not None] == sample.token_ids
        assert [step.finish_reason for step in own] == [None] * (len(own) - 1) + [sample.finish_reason]


def test_forbidden_ids_are_never_sampled(model: PreTrainedModel) -> None:
    allowed = {3, 50}
    samples = generate(model, PROMPTS, max_new_tokens=20, forbidden_ids=set(range(VOCABULARY)) - allowed)
    assert {token for sample in samples for token in sample.token_ids} == allowed
    with pytest.raises(ValueError, match="every token"):
        generate(model, PROMPTS, max_new_tokens=1, forbidden_ids=range(VOCABULARY))


def test_the_slide_is_told_once(model: PreTrainedModel) -> None:
    told: list[int] = []
    generate(model, PROMPTS, max_new_tokens=POSITIONS - 7, on_slide=told.append)
    assert told == []
    generate(model, PROMPTS, max_new_tokens=40, on_slide=told.append)
    assert told == [POSITIONS // 2]


def test_training_mode_is_left_as_it_was() -> None:
    model = tiny_model().train()
    assert generate(model, PROMPTS, max_new_tokens=5) == generate(tiny_model(), PROMPTS, max_new_tokens=5)
    assert model.training


def test_bf16_weights_decode() -> None:
    samples = generate(tiny_model().to(torch.bfloat16), PROMPTS, max_new_tokens=25)
    assert [len(sample.token_ids) for sample in samples] == [25] * 4


@pytest.mark.parametrize("prompt", [[], [1] * (POSITIONS + 1), [VOCABULARY], [-1]])
def test_a_prompt_that_cannot_be_continued_is_refused(prompt: list[int]) -> None:
    with pytest.raises(UsageError, match="prompt"):
        generate(tiny_model(), [prompt], max_new_tokens=1)


def test_a_prompt_that_fills_the_context_is_continued() -> None:
    (sample,) = generate(tiny_model(), [[1] * POSITIONS], max_new_tokens=3)
    assert len(sample.token_ids) == 3


def test_damaged_weights_are_refused() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.transformer.wte.weight[3, 3] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        generate(model, [[3]], max_new_tokens=1)


def test_rows_at_once_bounds_the_cache() -> None:
    model = tiny_model()
    row_bytes = 2 * 2 * 32 * POSITIONS * 4
    assert rows_at_once(model, 1000, cache_bytes=row_bytes * 5) == 5
    assert rows_at_once(model, POSITIONS // 2, cache_bytes=row_bytes * 5) == 10
    assert rows_at_once(model, 1000, cache_bytes=1) == 1
    assert rows_at_once(model, 1000) == 64
