"""Weight quantization for torch: linear layers with weights of 8 or 4 bits and floating-point activations."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

Quantization = Literal["int8", "int4"]

INT4_GROUP = 32  # inputs that share a scale
# Of ten candidates, these four do nearly as well as all on Gaussian weights: a relative error of 0.083, against 0.097
# with only max|w| / 7. The scale's sign gives the largest magnitude code 0, which stands for -8.
INT4_FACTORS = (-0.125, -0.11875, -0.1125, -0.10625)
PACKED_OUTPUTS = 16  # torch's packed int4 product needs a multiple of this


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes int8 (out, in) and scales float32 (out,), so that codes * scales approximates the weight.

    In float32: scale = max|w| / 127 of a row (1 for a row of zeros), code = w / scale rounded half to even.
    """
    weight = weight.float()
    scales = _divisor(weight.abs().amax(dim=1) / 127)
    return (weight / scales[:, None]).round().to(torch.int8), scales


def quantize_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes uint8 0..15 (out, in, zero-padded to a multiple of 32) and scales bfloat16 (out, groups).

    A code stands for (code - 8) * scale. The candidate scales of a group are m * factor, rounded to bfloat16, for the
    INT4_FACTORS in order, where m is the signed entry of largest magnitude, the first of several. The scale with the
    least squared error is taken, the first of several. code = w / scale rounded half to even, clipped to -8..7, plus 8;
    w / 0 is 0. The scale of a group with NaN or infinity is not finite.
    All in float32, except that the squares of the float32 errors are summed in float64.
    """
    weight = F.pad(weight.float(), (0, -weight.shape[1] % INT4_GROUP))
    groups = weight.unflatten(1, (-1, INT4_GROUP))  # (out, groups, 32)
    extreme = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))
    factors = torch.tensor(INT4_FACTORS, device=weight.device)
    best = torch.full_like(extreme, torch.inf, dtype=torch.float64)
    codes, scales = torch.full_like(groups, 8), torch.zeros_like(extreme)
    for factor in factors:
        scale = (extreme * factor).bfloat16().float()
        code = (groups / _divisor(scale)).round().clamp(-8, 7)
        error = (groups - code * scale).double().square().sum(dim=-1, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        codes = torch.where(better, code + 8, codes)
        scales = torch.where(better, scale, scales)
    scales = torch.where(extreme.isfinite(), scales, extreme)
    return codes.flatten(1).to(torch.uint8), scales[..., 0].bfloat16()


def _divisor(scales: Tensor) -> Tensor:
    return torch.where(scales == 0, 1.0, scales)


class QuantisedLinear(nn.Module):
    """A linear layer (..., in) -> (..., out) with quantized weights; outputs have the dtype of the inputs.

    On a CPU (or with `packed`) it calls torch's packed product, which is fast for bfloat16 activations; elsewhere it
    expands the weights in each call. A row of the result does not depend on the other rows.
    """

    bias: Tensor | None
    codes: Tensor
    scales: Tensor

    def __init__(
        self, linear: nn.Linear, quantization: Quantization, dtype: torch.dtype, *, packed: bool | None = None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.quantization = quantization
        self.packed = linear.weight.device.type == "cpu" if packed is None else packed
        weight = F.pad(linear.weight.detach(), (0, -self.in_features % INT4_GROUP))  # for int8's packed product too
        codes, scales = (quantize_int8 if quantization == "int8" else quantize_int4)(weight)
        if quantization == "int4" and self.packed:  # as the product expects them
            more = -self.out_features % PACKED_OUTPUTS
            codes = torch._convert_weight_to_int4pack_for_cpu(F.pad(codes, (0, 0, 0, more)).int(), 1)
            scales = F.pad(scales, (0, 0, 0, more)).T
            zero_points = torch.zeros_like(scales)
            scales = torch.stack([scales, zero_points], dim=-1).to(dtype).contiguous()  # (groups, out, 2)
        elif quantization == "int4":
            codes = codes[:, ::2] | codes[:, 1::2] << 4  # two per byte
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().to(dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        rows = F.pad(inputs.reshape(-1, self.in_features), (0, -self.in_features % INT4_GROUP))
        if self.quantization == "int8":
            if self.packed:  # scaled afterwards: the product would need the scales in the activations' dtype
                product = torch._weight_int8pack_mm(rows, self.codes, rows.new_ones(self.out_features))
            else:
                product = rows @ self.codes.to(rows.dtype).T
            product = (product * self.scales).to(rows.dtype)
        elif self.packed:
            product = torch._weight_int4pack_mm_for_cpu(rows, self.codes, INT4_GROUP, self.scales)
            product = product[:, : self.out_features]
        else:
            codes = torch.stack([self.codes & 15, self.codes >> 4], dim=-1).flatten(1).unflatten(1, (-1, INT4_GROUP))
            weight = (codes.to(rows.dtype) - 8) * self.scales[..., None].to(rows.dtype)  # (out, groups, 32)
            product = rows @ weight.flatten(1).T
        if self.bias is not None:
            product = product + self.bias
        return product.reshape(*inputs.shape[:-1], self.out_features)


def quantize_model(model: PreTrainedModel, quantization: Quantization, dtype: torch.dtype) -> None:
    """Quantize every linear layer of a float32 language model, including its head, and cast the rest to `dtype`.

    In place. Embeddings are not quantized: a tied head gets a quantized copy.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    quantized = {name: QuantisedLinear(model.get_submodule(name), quantization, dtype) for name in linears}  # type: ignore[arg-type]
    for name, layer in quantized.items():
        model.set_submodule(name, layer)
    for module in model.modules():
        if not isinstance(module, QuantisedLinear):  # whose scales keep their dtypes
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
