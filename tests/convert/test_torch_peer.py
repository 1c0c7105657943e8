"""Our models and transformers' answer in fp32 without ever being stored in it."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel, PreTrainedModel

from gptkit.convert.torch_peer import TorchPeer, compute_in_fp32, own_peer
from gptkit.finetune.inputs import add_task_head, head_config
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM

SIZES = {"vocab_size": 50, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
ENDS = {"bos_token_id": None, "eos_token_id": 7}


def models() -> list[PreTrainedModel]:
    torch.manual_seed(0)
    return [
        GPTForCausalLM(GPTConfig(**SIZES)),
        GPTForCausalLM(GPTConfig(**SIZES, pre_norm=False, tie_word_embeddings=False)),
        GPT2LMHeadModel(GPT2Config(**SIZES, **ENDS)),
        OpenAIGPTLMHeadModel(OpenAIGPTConfig(**SIZES)),
    ]


@pytest.mark.parametrize("model", models(), ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_the_bits_computes_as_if_it_were_fp32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    model = copy.deepcopy(model).to(dtype).eval()
    before = copy.deepcopy(model.state_dict())
    ids = torch.arange(10)[None]
    found = compute_in_fp32(copy.deepcopy(model))
    with torch.inference_mode():
        assert torch.equal(found(input_ids=ids).logits, copy.deepcopy(model).float()(input_ids=ids).logits)
    assert {parameter.dtype for parameter in found.get_submodule("transformer.h").parameters()} == {dtype}
    assert all(torch.equal(tensor.to(dtype), before[name]) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize("model", models(), ids=lambda model: type(model).__name__)
def test_greedy_text_is_what_the_logits_say_and_goes_past_the_end_of_a_text(model: PreTrainedModel) -> None:
    peer = TorchPeer(model, None, name="ours", version="1")
    text = [3, 4]
    for _ in range(12):
        text.append(int(peer.logits(text)[-1].argmax()))
    assert peer.greedy([3, 4], 12) == text[2:]
    ended = TorchPeer(model, None, name="ours", version="1")
    model.config.eos_token_id = text[2]
    assert ended.greedy([3, 4], 12) == text[2:]


@pytest.mark.parametrize("format", ["classification", "entailment", "similarity", "multiple-choice"])
def test_a_classifier_of_any_format_answers_one_sequence(format: str) -> None:
    torch.manual_seed(0)
    labels = () if format == "multiple-choice" else ("no", "yes")
    head = head_config(task="mine", format=format, labels=labels, markers=(50, 51, 52))  # type: ignore[arg-type]
    model = add_task_head(GPTForCausalLM(GPTConfig(**SIZES)), head, seed=0)
    assert own_peer(model, None).logits([50, 1, 2, 51, 3, 52]).shape == (1, max(1, len(labels)))
