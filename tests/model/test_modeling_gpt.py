"""The model: what it computes is the same with a cache, with padding, in batches, checkpointed and compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gptkit.model.modeling_gpt as modeling
from gpt_toy import FAMILIES, SIZES, ids, toy
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTModel

families = pytest.mark.parametrize("pre_norm", FAMILIES)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


# --- the start ---


@families
@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_starts_as_published(pre_norm: bool, tied: bool) -> None:
    torch.manual_seed(0)
    layers = 3
    sizes = {"vocab_size": 512, "n_positions": 256, "n_embd": 64, "n_layer": layers, "n_head": 4}
    model = GPTForCausalLM(GPTConfig(**sizes, pre_norm=pre_norm, tie_word_embeddings=tied))
    residual = 0.02 / math.sqrt(2 * layers) if pre_norm else 0.02
    stds = {"wte": 0.02, "wpe": 0.01 if pre_norm else 0.02, "c_attn": 0.02, "c_fc": 0.02, "c_proj": residual}
    seen = set()
    for name, parameter in model.named_parameters():
        kind, what = name.split(".")[-2:]
        seen.add(kind)
        if kind.startswith("ln_") or what == "bias":
            constant = float(kind.startswith("ln_") and what == "weight")
            assert (parameter == constant).all(), name
            continue
        std = stds.get(kind, 0.02)  # lm_head, when it is not wte
        assert parameter.std().item() == pytest.approx(std, rel=0.04), name
        assert abs(parameter.mean().item()) < 4 * std / math.sqrt(parameter.numel()), name
    assert seen == {*stds, "ln_1", "ln_2", *(["ln_f"] if pre_norm else []), *([] if tied else ["lm_head"])}


@families
def test_tied_embeddings_are_one_tensor_counted_once(pre_norm: bool) -> None:
    model = toy(pre_norm)
    assert model.lm_head.weight is model.transformer.wte.weight
    untied = toy(pre_norm, tie_word_embeddings=False)
    assert untied.num_parameters() - model.num_parameters() == SIZES["vocab_size"] * SIZES["n_embd"]


def test_the_seed_decides_the_weights() -> None:
    def draw(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return GPTForCausalLM(GPTConfig(**SIZES)).state_dict()

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["transformer.wpe.weight"], other["transformer.wpe.weight"])


# --- cache, padding, positions ---


@families
@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 6], [12]])
def test_cached_logits_are_those_without_a_cache(pre_norm: bool, pieces: list[int]) -> None:
    model, input_ids = toy(pre_norm), ids()
    cache, logits = None, []
    for piece in input_ids.split(pieces, dim=1):
        output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), model(input_ids).logits, **CLOSE)


@families
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(pre_norm: bool, attention: str, side: str) -> None:
    model, input_ids = toy(pre_norm), ids()
    model.set_attn_implementation(attention)
    pads = torch.full((2, 5), 7)
    parts = [pads, input_ids] if side == "left" else [input_ids, pads]
    mask = torch.cat([torch.full_like(part, part is input_ids) for part in parts], dim=1)
    logits = model(torch.cat(parts, dim=1), attention_mask=mask).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[mask.bool()].view(2, 12, -1), model(input_ids).logits, **CLOSE)


@families
@pytest.mark.parametrize("seed", range(4))
def test_a_left_padded_batch_generates_what_each_prompt_does_alone(pre_norm: bool, seed: int) -> None:
    model = toy(pre_norm, seed)
    prompts = [ids(1, length, seed) for length in (3, 9, 6)]
    longest = max(prompt.shape[1] for prompt in prompts)
    batch = torch.cat([F.pad(prompt, (longest - prompt.shape[1], 0)) for prompt in prompts])
    mask = torch.cat([F.pad(torch.ones_like(prompt), (longest - prompt.shape[1], 0)) for prompt in prompts])
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    together = model.generate(batch, attention_mask=mask, **settings)
    for row, prompt in zip(together, prompts, strict=True):
        alone = model.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)[0]
        assert row[longest:].tolist() == alone[prompt.shape[1] :].tolist()


@families
def test_positions_past_the_last_are_a_clear_error(pre_norm: bool) -> None:
    model, limit = toy(pre_norm), SIZES["n_positions"]
    too_long = ids(length=limit + 1)
    assert model(too_long[:, :limit]).logits.shape[1] == limit
    cache = model(too_long[:, :limit], use_cache=True).past_key_values
    wrong_calls: list[dict[str, Any]] = [
        {"input_ids": too_long},
        {"input_ids": too_long, "attention_mask": torch.ones_like(too_long)},
        {"input_ids": too_long[:, :1], "past_key_values": cache},
        {"input_ids": too_long[:, :1], "position_ids": torch.tensor([[limit]])},
    ]
    for call in wrong_calls:
        with pytest.raises(ValueError, match=rf"{limit + 1} tokens .* n_positions \({limit}\)"):
            model(**call)
    padded = F.pad(too_long[:, :limit], (4, 0))  # more columns than positions, but no more tokens
    mask = F.pad(torch.ones_like(too_long[:, :limit]), (4, 0))
    assert model(padded, attention_mask=mask).logits.isfinite().all()


def test_embeddings_may_replace_ids_but_not_join_them() -> None:
    model, input_ids = toy(), ids()
    embedded = model.get_input_embeddings()(input_ids)
    torch.testing.assert_close(model(inputs_embeds=embedded).logits, model(input_ids).logits)
    for call in ({}, {"input_ids": input_ids, "inputs_embeds": embedded}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            model(**call)


# --- attention ---


@pytest.fixture
def sdpa_masks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Record (a mask was given, is_causal) of every call of SDPA."""
    seen: list[tuple[bool, bool]] = []
    real: Callable[..., Tensor] = F.scaled_dot_product_attention

    def spy(*args: Any, attn_mask: Tensor | None = None, is_causal: bool = False, **kwargs: Any) -> Tensor:
        seen.append((attn_mask is not None, is_causal))
        return real(*args, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return seen


def test_no_mask_is_built_where_causality_suffices(sdpa_masks: list[tuple[bool, bool]]) -> None:
    model, input_ids = toy(), ids()
    model(input_ids)
    model(input_ids, attention_mask=torch.ones_like(input_ids))
    cache = model(input_ids, use_cache=True).past_key_values
    assert set(sdpa_masks) == {(False, True)}
    sdpa_masks.clear()
    model(input_ids[:, :1], past_key_values=cache)
    assert set(sdpa_masks) == {(False, False)}
    sdpa_masks.clear()
    mask = torch.ones_like(input_ids)
    mask[0, :3] = 0
    model(input_ids, attention_mask=mask)
    assert set(sdpa_masks) == {(True, False)}


@families
def test_eager_attention_agrees_and_records_causal_weights(pre_norm: bool) -> None:
    model, input_ids = toy(pre_norm), ids()
    expected = model(input_ids).logits
    model.set_attn_implementation("eager")
    output = model(input_ids, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(output.logits, expected, **CLOSE)
    assert len(output.attentions) == SIZES["n_layer"]
    for weights in output.attentions:  # (batch, head, query, key)
        assert weights.shape == (2, SIZES["n_head"], 12, 12)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, SIZES["n_head"], 12))
        assert not weights.triu(1).any()
    assert len(output.hidden_states) == SIZES["n_layer"] + 1
    torch.testing.assert_close(model.lm_head(output.hidden_states[-1]), output.logits)


@families
def test_bf16_trains_by_plain_products_as_by_sdpa(
    pre_norm: bool, monkeypatch: pytest.MonkeyPatch, sdpa_masks: list[tuple[bool, bool]]
) -> None:
    gradients = {}
    for length in (0, modeling.DENSE_LENGTH):
        monkeypatch.setattr(modeling, "DENSE_LENGTH", length)
        model = toy(pre_norm, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0).train()
        sdpa_masks.clear()
        with torch.autocast("cpu", torch.bfloat16):
            model(ids(4, 16), labels=ids(4, 16), loss_only=True).loss.backward()
        assert bool(sdpa_masks) == (length == 0)
        gradients[length] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    sdpa, dense = gradients.values()
    assert (sdpa - dense).norm() < 0.03 * sdpa.norm()


def test_bf16_plain_products_hide_the_future() -> None:
    model, input_ids = toy(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0).train(), ids()
    changed = input_ids.clone()
    changed[:, 8:] = 3
    with torch.autocast("cpu", torch.bfloat16):
        before, after = (model(one, use_cache=False).logits[:, :8] for one in (input_ids, changed))
    assert torch.equal(before, after)


# --- loss ---


@families
@pytest.mark.parametrize("loss_only", [False, True])
def test_the_loss_is_the_mean_over_supervised_targets(pre_norm: bool, loss_only: bool) -> None:
    model, input_ids = toy(pre_norm), ids()
    labels = input_ids.clone()
    labels[0, :5] = -100
    shifted = F.pad(labels[:, 1:], (0, 1), value=-100)
    expected = F.cross_entropy(model(input_ids).logits.flatten(0, 1), shifted.flatten())
    count = int((shifted != -100).sum())
    for targets in ({"labels": labels}, {"shift_labels": shifted}, {"labels": input_ids, "shift_labels": shifted}):
        torch.testing.assert_close(model(input_ids, **targets, loss_only=loss_only).loss, expected)
        for denominator in (2 * count, torch.tensor(2 * count)):
            halved = model(input_ids, **targets, num_items_in_batch=denominator, loss_only=loss_only).loss
            torch.testing.assert_close(halved, expected / 2)


def test_logits_may_be_made_of_some_positions_only() -> None:
    model, input_ids = toy(), ids()
    logits = model(input_ids).logits
    torch.testing.assert_close(model(input_ids, logits_to_keep=1).logits, logits[:, -1:])
    wanted = torch.rand(input_ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    torch.testing.assert_close(model(input_ids, logits_to_keep=wanted).logits, logits[wanted])


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        found = [one.numel() for one in tree_leaves(result) if isinstance(one, Tensor)]
        self.elements = max(self.elements, *found, 0)
        return result


@pytest.mark.parametrize("trains", [False, True])
def test_the_loss_alone_makes_neither_logits_nor_a_cache(trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    entries, shape = 1000, (4, 20)
    model = toy(vocab_size=entries, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0).train(trains)
    input_ids = ids(*shape)
    expected = model(input_ids, labels=input_ids).loss
    for name in ("CHUNK_ELEMENTS", "SCORED_ELEMENTS"):
        monkeypatch.setattr(f"gptkit.model.lm_loss.{name}", {"cpu": 8 * entries})
    monkeypatch.setattr(modeling, "DynamicCache", lambda **_: pytest.fail("a cache was made"))
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("lm_head made logits"))
    with LargestTensor() as seen, torch.set_grad_enabled(trains):
        output = model(input_ids, labels=input_ids, loss_only=True, use_cache=True)
    assert list(output) == ["loss"]
    torch.testing.assert_close(output.loss.detach(), expected.detach())
    assert 0 < seen.elements < math.prod(shape) * entries / 2
    assert model(input_ids, shift_labels=torch.full_like(input_ids, -100), loss_only=True).loss == 0
    with pytest.raises(ValueError, match="labels"):
        model(input_ids, loss_only=True)


# --- training ---


@families
def test_gradient_checkpointing_gives_the_same_gradients(pre_norm: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        model, runs = toy(pre_norm).train(), []  # with dropout
        model.transformer.h[0].attn.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        if checkpointing:
            model.activation_checkpointing_enable()
        assert (model(ids()).past_key_values is None) == checkpointing
        runs.clear()
        torch.manual_seed(3)
        model(ids(), labels=ids(), loss_only=True).loss.backward()
        assert len(runs) == 1 + checkpointing
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, **CLOSE)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo, of lm_loss
def test_it_learns_in_one_graph_without_a_mask() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def recording(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    model, input_ids = toy(n_layer=1, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0).train(), ids()
    compiled = torch.compile(model, fullgraph=True, backend=recording)
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            expected = model(input_ids, shift_labels=input_ids, num_items_in_batch=24, loss_only=True).loss
            loss = compiled(input_ids, shift_labels=input_ids, num_items_in_batch=24, loss_only=True).loss
        torch.testing.assert_close(loss, expected)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    in_fp32, in_bf16 = (
        [node.kwargs for node in graph.graph.nodes if "scaled_dot_product_attention" in str(node.target)]
        for graph in graphs
    )
    assert [(call["attn_mask"], call["is_causal"]) for call in in_fp32] == [(None, True)]
    assert in_bf16 == []


def test_the_body_alone_is_the_same_model() -> None:
    model, input_ids = toy(), ids()
    body = GPTModel(model.config).eval()
    body.load_state_dict(model.transformer.state_dict())
    torch.testing.assert_close(model.lm_head(body(input_ids).last_hidden_state), model(input_ids).logits)
