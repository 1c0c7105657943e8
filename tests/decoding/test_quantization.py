"""Quantized weights are off by at most half a step, and a quantized model's texts do not depend on the batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gptkit.decoding.loop import Decoder
from gptkit.decoding.quantization import (
    INT4_GROUP,
    QuantisedLinear,
    Quantization,
    quantize_int4,
    quantize_int8,
    quantize_model,
)
from gptkit.decoding.sampling import SamplingRules
from gptkit.decoding.torch_engine import TorchEngine
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM


def weights(outputs: int = 40, inputs: int = 70) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))


def test_int8_errs_by_half_a_step() -> None:
    weight = weights()
    weight[3] = 0
    codes, scales = quantize_int8(weight)
    assert codes.abs().amax(dim=1).tolist() == [127 * (row != 3) for row in range(40)]
    assert ((weight - codes * scales[:, None]).abs() <= scales[:, None] * 0.5001).all()


def test_int4_by_hand() -> None:
    """The extreme -4 gives scale 0.5 and code 0; halves round to even, and values beyond code 15 are clipped."""
    weight = torch.zeros(1, 33)
    weight[0, :5] = torch.tensor([-4.0, 4.0, 0.25, 0.75, -0.5])
    codes, scales = quantize_int4(weight)
    assert codes.shape == (1, 64)
    assert codes[0, :6].tolist() == [0, 15, 8, 10, 7, 8]
    assert scales.tolist() == [[0.5, 0.0]]


def test_int4_is_no_worse_than_its_plain_scale() -> None:
    weight = weights(64, 96)
    codes, scales = quantize_int4(weight)
    groups = weight.unflatten(1, (-1, INT4_GROUP))
    error = groups - (codes.float().unflatten(1, (-1, INT4_GROUP)) - 8) * scales.float()[..., None]
    plain = groups.abs().amax(dim=-1, keepdim=True) / 7
    plain_error = groups - (groups / plain).round() * plain
    assert error.square().sum() < 0.8 * plain_error.square().sum()
    assert error.abs().amax() <= groups.abs().amax() / 8  # at most one step, where the extreme's opposite is clipped
    assert error.norm() / weight.norm() < 0.09


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_layer_multiplies_by_the_weights_its_codes_mean(
    quantization: Quantization, dtype: torch.dtype, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = nn.Linear(70, 41)
    if quantization == "int8":
        codes, scales = quantize_int8(linear.weight.detach())
        meant = codes * scales[:, None]
    else:
        codes, scales = quantize_int4(linear.weight.detach())
        meant = ((codes.float() - 8) * scales.float().repeat_interleave(INT4_GROUP, dim=1))[:, :70]
    layer = QuantisedLinear(linear, quantization, dtype, packed=packed)
    inputs = torch.randn(2, 3, 70).to(dtype)
    expected = inputs.float() @ meant.T + linear.bias.detach()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(layer(inputs).float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("quantization", "dtype"), [("int8", "bfloat16"), ("int4", "bfloat16"), ("int8", "float32")])
def test_a_quantized_models_texts_are_the_same_in_any_batch(quantization: Quantization, dtype: str) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 301, "n_positions": 48, "n_embd": 64, "n_layer": 2, "n_head": 4}
    model = GPTForCausalLM(GPTConfig(**sizes, initializer_range=0.2)).eval()
    embedding = model.transformer.wte.weight.detach().clone()
    quantize_model(model, quantization, getattr(torch, dtype))
    assert torch.equal(model.transformer.wte.weight, embedding.to(model.dtype))
    assert isinstance(model.lm_head, QuantisedLinear)
    engine = TorchEngine(model)
    prompts = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 8], list(range(30)), [9, 8]]

    def texts(rows: list[int], batch_size: int) -> list[list[int]]:
        rules = SamplingRules(top_k=40)
        chosen = [prompts[row] for row in rows]
        decoder = Decoder(engine, chosen, max_new_tokens=20, rules=rules, indices=rows, batch_size=batch_size)
        list(decoder)
        return [sample.token_ids for sample in decoder.samples]

    together = texts([0, 1, 2, 3, 4], 5)
    assert together == texts([0, 1, 2, 3, 4], 2) == [texts([row], 1)[0] for row in range(5)]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_no_number_is_made_of_nan_or_infinity(value: float) -> None:
    """The scale of the damaged row or group is not finite; the others stay the same."""
    weight = weights()
    weight[3, 40] = value
    for quantize in (quantize_int8, quantize_int4):
        scales, expected = quantize(weight)[1].reshape(40, -1), quantize(weights())[1].reshape(40, -1)
        damaged = 1 if scales.shape[1] > 1 else 0  # inputs 32 to 63 are the second group
        assert not scales[3, damaged].isfinite()
        expected[3, damaged] = scales[3, damaged]
        torch.testing.assert_close(scales, expected, rtol=0, atol=0, equal_nan=True)
