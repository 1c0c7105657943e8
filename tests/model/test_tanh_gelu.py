"""The compiled form of the tanh GELU is the eager one, value and gradient."""

from __future__ import annotations

import pytest
import torch

from gptkit.model.modeling_gpt import TanhGELU


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 1e-5, 1e-6), (torch.bfloat16, 1e-2, 1e-3)])
def test_what_is_compiled_equals_what_is_not(
    dtype: torch.dtype, rtol: float, atol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = torch.cat([torch.linspace(-8, 8, 1001), torch.tensor([-1e4, 1e4])]).to(dtype).requires_grad_()
    results = []
    for is_compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda answer=is_compiling: answer)
        activated = TanhGELU()(hidden)
        assert activated.dtype == dtype
        results.append((activated.detach(), *torch.autograd.grad(activated.sum(), hidden)))
    torch.testing.assert_close(results[1], results[0], rtol=rtol, atol=atol)
