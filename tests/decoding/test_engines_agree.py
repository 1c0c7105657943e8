"""The native engine, torch and transformers' GenerationMixin produce the same greedy text."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
import torch

from gpt_toy import FAMILIES
from gptkit.decoding.engines import Engine, choose_engine
from gptkit.decoding.loop import Decoder
from gptkit.decoding.native.engine import NativeEngine
from gptkit.decoding.sampling import SamplingRules
from gptkit.decoding.text_options import TextModelOptions
from gptkit.decoding.torch_engine import TorchEngine
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM

POSITIONS = 24
PROMPTS = 100
TIE = 1e-4  # logits closer than this may change places


@pytest.fixture(scope="module", params=FAMILIES, ids=["gpt2", "gpt1"])
def model(request: pytest.FixtureRequest) -> GPTForCausalLM:
    """A random model whose greedy texts vary; smaller or milder ones repeat one token forever."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 211, "n_positions": POSITIONS, "n_embd": 64, "n_layer": 3, "n_head": 4}
    return GPTForCausalLM(GPTConfig(**sizes, pre_norm=request.param, initializer_range=0.2)).eval()


@pytest.fixture
def native(model: GPTForCausalLM, tmp_path: Path) -> Engine:
    model.save_pretrained(tmp_path)
    engine = choose_engine(tmp_path, TextModelOptions(device="cpu"), tokens=1).open()
    assert isinstance(engine, NativeEngine)
    return engine


def unequal_prompts(model: GPTForCausalLM, longest: int) -> list[list[int]]:
    """Return prompts of 1 to `longest` tokens, shorter ones first."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, longest + 1, (PROMPTS,), generator=generator).sort().values.tolist()
    return [torch.randint(model.config.vocab_size, (length,), generator=generator).tolist() for length in lengths]


def greedy(engine: Engine, prompts: list[list[int]], count: int) -> list[list[int]]:
    decoder = Decoder(engine, prompts, max_new_tokens=count, rules=SamplingRules(temperature=0), batch_size=30)
    list(decoder)
    return [sample.token_ids for sample in decoder.samples]


def mixins_greedy(model: GPTForCausalLM, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Decode prompts of equal length together, so that nothing is padded."""
    texts: list[list[int]] = []
    for length, group in groupby(prompts, key=len):
        ids = torch.tensor(list(group))
        more = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        texts += model.generate(ids, max_new_tokens=count, **more)[:, length:].tolist()
    return texts


@torch.inference_mode()
def window_logits(model: GPTForCausalLM, prompt: list[int], text: list[int]) -> torch.Tensor:
    """Return the logits (vocab,) after prompt and text; a full window is cropped to its newer half."""
    start = 0
    for length in range(len(prompt), len(prompt) + len(text) + 1):
        if length - start > POSITIONS:
            start = length - POSITIONS // 2
    return model(input_ids=torch.tensor([[*prompt, *text][start:]])).logits[0, -1]


def agree_to_the_end(model: GPTForCausalLM, prompt: list[int], one: list[int], other: list[int]) -> bool:
    """Return whether two texts are equal up to a tie: where they first differ, both must have taken a largest logit."""
    if one == other:
        return True
    parting = next(place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
    logits = window_logits(model, prompt, one[:parting])
    assert logits.max() - logits[[one[parting], other[parting]]].min() < TIE
    return False


def test_on_100_prompts_native_torch_and_generation_mixin_agree(model: GPTForCausalLM, native: Engine) -> None:
    prompts = unequal_prompts(model, 12)
    mixins = mixins_greedy(model, prompts, 12)
    assert len({tuple(text) for text in mixins}) > 0.8 * PROMPTS
    for engine in (native, TorchEngine(model)):
        texts = greedy(engine, prompts, 12)
        equal = [agree_to_the_end(model, *each) for each in zip(prompts, texts, mixins, strict=True)]
        assert sum(equal) >= 0.95 * PROMPTS


def test_on_100_prompts_native_and_torch_agree_where_windows_slide(model: GPTForCausalLM, native: Engine) -> None:
    """30 tokens in a context of 24 after prompts of any length: each row slides two or three times on its own."""
    prompts = unequal_prompts(model, POSITIONS)
    texts = zip(greedy(native, prompts, 30), greedy(TorchEngine(model), prompts, 30), strict=True)
    equal = [agree_to_the_end(model, prompt, *both) for prompt, both in zip(prompts, texts, strict=True)]
    assert sum(equal) >= 0.95 * PROMPTS
