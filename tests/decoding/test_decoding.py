"""Cached, batched, padded and sliding decoding give the same text as a plain forward pass over the window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from gpt_toy import lstm_toy
from gptkit.decoding.engines import Piece
from gptkit.decoding.loop import Decoder, Sample, rows_at_once
from gptkit.decoding.sampling import SamplingRules, choose
from gptkit.decoding.torch_engine import TorchEngine, engine_of, generate
from gptkit.errors import InputError, UsageError
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
    if kind == "lstm":
        return lstm_toy(vocab_size=VOCABULARY, n_positions=POSITIONS)
    return GPTForCausalLM(GPTConfig(**sizes, initializer_range=0.2, pre_norm=kind == "gpt2")).eval()


transformers = pytest.mark.parametrize("model", ["gpt1", "gpt2", "transformers"], indirect=True)  # with a KV cache


@pytest.fixture(scope="module", params=["gpt1", "gpt2", "transformers", "lstm"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@torch.inference_mode()
def plainly(model: PreTrainedModel, prompt: list[int], index: int, count: int, rules: SamplingRules) -> list[int]:
    """Decode one prompt without cache, padding or batch: one forward pass over the window per token."""
    tokens, start = list(prompt), 0
    for _ in range(count):
        if len(tokens) - start > POSITIONS:
            start = len(tokens) - POSITIONS // 2
        logits = model(input_ids=torch.tensor([tokens[start:]])).logits[:, -1]
        where = {"indices": torch.tensor([index]), "positions": torch.tensor([len(tokens)])}
        tokens.append(int(choose(logits, rules, seed=3, **where)))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("rules", [SamplingRules(), SamplingRules(temperature=0), SamplingRules(top_k=5, top_p=0.9)])
def test_batched_cached_text_is_the_plain_text(model: PreTrainedModel, rules: SamplingRules) -> None:
    """20 tokens in a context of 12: the rows' windows slide two or three times, at different steps."""
    decoder = Decoder(engine_of(model), PROMPTS, max_new_tokens=20, rules=rules, seed=3)
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
    (second,) = generate(model, [[5, *first.token_ids]], max_new_tokens=5, seed=1)  # continues as if never cut
    assert [*first.token_ids, *second.token_ids] == generate(model, [[5]], max_new_tokens=13, seed=1)[0].token_ids


def test_small_batches_change_nothing(model: PreTrainedModel) -> None:
    rules = SamplingRules(top_k=10)
    texts = []
    for batch_size in (1, 3, 4):
        decoder = Decoder(engine_of(model), PROMPTS, max_new_tokens=6, rules=rules, batch_size=batch_size)
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

    decoder = Decoder(engine_of(model), PROMPTS, max_new_tokens=15, rules=SamplingRules(), seed=5, stop_ids=stop_ids)
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
    later = tiny_model()
    with torch.no_grad():
        later.transformer.wpe.weight[3:] = float("nan")  # which the prompt does not reach
    with pytest.raises(InputError, match="not finite"):
        generate(later, [[1, 2]], max_new_tokens=4, rules=SamplingRules(temperature=0))


def test_rows_at_once_bounds_the_cache() -> None:
    model = tiny_model()
    engine = TorchEngine(model)
    token_bytes = 2 * 2 * 32 * 4
    assert rows_at_once(engine, 1000, cache_bytes=token_bytes * (POSITIONS + 1) * 5) == 5
    assert rows_at_once(engine, POSITIONS // 2, cache_bytes=token_bytes * (POSITIONS // 2 + 1) * 10) == 10
    assert rows_at_once(engine, 1000, cache_bytes=1) == 1
    assert rows_at_once(engine, 1000) == 64


def test_cache_bytes_are_those_of_the_cache() -> None:
    engine = TorchEngine(tiny_model().bfloat16())
    engine.open(3, 7)
    assert sum(layer.stored.nbytes for layer in engine._layers) == 3 * engine.cache_bytes(7)


def watching(model: PreTrainedModel) -> Any:
    """Return an engine that counts calls, and checks that rows grow without gaps and no token exceeds the positions."""

    class Watching(type(engine_of(model))):  # type: ignore[misc]
        def open(self, rows: int, length: int) -> None:
            super().open(rows, length)
            self.ends = [0] * rows
            self.calls = 0

        def forward(self, pieces: Sequence[Piece]) -> Any:
            self.calls += 1
            for piece in pieces:
                assert piece.start in (0, self.ends[piece.row])
                self.ends[piece.row] = piece.start + len(piece.token_ids)
                assert self.ends[piece.row] <= POSITIONS
            return super().forward(pieces)

    return Watching(model)


def unequal_prompts(count: int, longest: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def test_places_of_finished_rows_are_refilled(model: PreTrainedModel) -> None:
    """16 prompts in 5 slots, with texts of unequal length that slide: the same as one at a time, in fewer passes."""
    prompts = unequal_prompts(16, POSITIONS)
    asked = {"max_new_tokens": 20, "rules": SamplingRules(top_k=20), "stop_ids": range(8)}
    engine = watching(model)
    together = Decoder(engine, prompts, batch_size=5, **asked)
    steps = list(together)
    alone = [Decoder(watching(model), [ids], indices=[i], **asked) for i, ids in enumerate(prompts)]
    assert sum(len(list(one)) for one in alone) == len(steps)
    assert [one.samples[0].token_ids for one in alone] == [sample.token_ids for sample in together.samples]
    assert engine.calls < 0.5 * len(steps)


@transformers
def test_static_steps_are_the_dynamic_ones(model: PreTrainedModel) -> None:
    prompts = unequal_prompts(12, POSITIONS)
    texts = []
    for static in (False, True):
        decoder = Decoder(
            TorchEngine(model, static=static),
            prompts,
            max_new_tokens=20,
            rules=SamplingRules(top_k=20),
            stop_ids=range(8),
            batch_size=5,
        )
        list(decoder)
        texts.append(decoder.samples)
    assert texts[0] == texts[1]


@transformers
@pytest.mark.parametrize("static", [False, True])
def test_any_mixture_of_pieces_gives_the_logits_of_a_plain_forward(model: PreTrainedModel, static: bool) -> None:
    engine = TorchEngine(model, static=static)
    engine.open(4, POSITIONS)
    rows: dict[int, list[int]] = {row: [] for row in range(4)}
    batches = [
        [Piece(2, 0, [1, 2, 3]), Piece(0, 0, [4])],
        [Piece(1, 0, [5, 6]), Piece(2, 3, [7, 8, 9])],  # one row begins, one continues, and row 0 stays as it is
        [Piece(3, 0, [9]), Piece(2, 6, [1]), Piece(0, 1, [2])],
        [Piece(2, 2, [30]), Piece(0, 2, list(range(10)))],  # one overwrites its end, one fills up
        [Piece(3, 1, [4]), Piece(1, 2, [4])],
        [Piece(2, 3, [4]), Piece(3, 2, [5])],
        [Piece(1, 3, [4, 5, 6], wanted=3), Piece(0, 5, [7, 8], wanted=0), Piece(3, 0, [1, 2, 3, 4], wanted=2)],
    ]
    for pieces in batches:
        logits = engine.forward(pieces)
        assert logits.dtype == torch.float32
        expected = []
        for piece in pieces:
            rows[piece.row] = [*rows[piece.row][: piece.start], *piece.token_ids]
            with torch.inference_mode():
                whole = model(input_ids=torch.tensor([rows[piece.row]])).logits[0]
            expected.append(whole[len(whole) - piece.wanted :])
        torch.testing.assert_close(logits, torch.cat(expected), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="grows beyond"):
        engine.forward([Piece(0, POSITIONS, [1])])
    with pytest.raises(ValueError, match="positions end"):
        engine.open(1, POSITIONS + 1)


def test_pieces_of_an_lstm_continue_their_rows_or_begin_them() -> None:
    """Unequal pieces together, rows that begin again, and none, some or all logits wanted."""
    model: Any = tiny_model("lstm")
    engine = engine_of(model)
    engine.open(3, POSITIONS)
    rows: dict[int, list[int]] = {row: [] for row in range(3)}
    for pieces in (
        [Piece(2, 0, [1, 2, 3]), Piece(0, 0, [4], wanted=0)],
        [Piece(1, 0, [5, 6], wanted=2), Piece(2, 3, [7, 8, 9, 10], wanted=3), Piece(0, 1, [2])],
        [Piece(2, 0, [30]), Piece(0, 2, list(range(10)), wanted=10), Piece(1, 2, [4])],
        [Piece(1, 3, [4]), Piece(2, 1, [5])],
    ):
        logits, expected = engine.forward(pieces), []
        for piece in pieces:
            rows[piece.row] = [*rows[piece.row][: piece.start], *piece.token_ids]
            with torch.inference_mode():
                whole = model(torch.tensor([rows[piece.row]])).logits[0]
            expected.append(whole[len(whole) - piece.wanted :])
        torch.testing.assert_close(logits, torch.cat(expected), atol=1e-5, rtol=1e-5)
    for start, ids in ((1, [3]), (3, [3]), (4, list(range(POSITIONS)))):
        with pytest.raises(ValueError, match="of a row of 4, opened for 12"):
            engine.forward([Piece(1, start, ids)])
    with pytest.raises(ValueError, match="positions end"):
        engine.open(1, POSITIONS + 1)
    assert engine.cache_bytes(5) == engine.cache_bytes(12) == 2 * 2 * 24 * 4


def test_reports_tell_the_models_own_distribution(model: PreTrainedModel) -> None:
    """Under any rules, probabilities are those before temperature and top-k, without the forbidden token."""
    forbidden = 7
    rules = SamplingRules(temperature=2.0, top_k=10)
    decoder = Decoder(engine_of(model), [[5, 6]], max_new_tokens=4, rules=rules, forbidden_ids=[forbidden], explain=5)
    tokens = [5, 6]
    for step in decoder:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
            logits[forbidden] = -torch.inf
        probabilities = logits.softmax(dim=-1)
        order = probabilities.argsort(descending=True).tolist()
        assert step.report is not None
        assert step.token_id is not None
        assert step.report.probability == pytest.approx(probabilities[step.token_id].item(), rel=1e-3)
        assert order[step.report.rank - 1] == step.token_id
        assert [token for token, _ in step.report.alternatives] == order[:5]
        assert step.report.alternatives[0][1] == pytest.approx(probabilities.max().item(), rel=1e-3)
        tokens.append(step.token_id)


def test_a_row_can_be_finished_from_outside(model: PreTrainedModel) -> None:
    decoder = Decoder(engine_of(model), PROMPTS, max_new_tokens=6, rules=SamplingRules(), batch_size=2)
    for step in decoder:
        if step.row == 0:
            decoder.finish(0, "stop")
            decoder.finish(3, "stop")  # before its first token
    assert [(len(one.token_ids), one.finish_reason) for one in decoder.samples] == [
        (1, "stop"),
        (6, "length"),
        (6, "length"),
        (0, "stop"),
    ]


def test_a_repetition_penalty_sees_prompt_and_continuation(model: PreTrainedModel) -> None:
    rules = SamplingRules(temperature=0, repetition_penalty=1e9)
    decoder = Decoder(engine_of(model), [[1, 2, 3]], max_new_tokens=30, rules=rules)
    list(decoder)
    tokens = [1, 2, 3, *decoder.samples[0].token_ids]
    assert len(set(tokens)) == len(tokens)
