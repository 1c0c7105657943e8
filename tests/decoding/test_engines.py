"""Engines are opened for model directories; whether there may be a GPU is found out without torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from gptkit.decoding import engines
from gptkit.decoding.engines import Piece, choose_engine
from gptkit.decoding.text_options import TextModelOptions
from gptkit.errors import UsageError
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.system.processor import cpu_has_bf16


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac's GPU is built in")
def test_a_gpu_needs_a_driver_and_a_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        assert engines.may_have_gpu()
    monkeypatch.setattr(engines, "torch_built_for_gpu", lambda: True)
    monkeypatch.setattr(engines, "GPU_FILES", [str(tmp_path / "driver")])
    monkeypatch.setattr(engines, "WINDOWS_DRIVERS", [str(tmp_path / "driver")])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not engines.may_have_gpu()
    (tmp_path / "driver").touch()
    assert engines.may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not engines.may_have_gpu()


def test_the_build_is_read_from_torchs_version_file() -> None:
    built = torch.version.cuda is not None or torch.version.hip is not None
    assert engines.torch_built_for_gpu() == built


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no CUDA device"):
        choose_engine(tmp_path, TextModelOptions(device="cuda"), tokens=1).open()


def test_formats_of_one_model_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "n_positions": 24, "n_embd": 64, "n_layer": 2, "n_head": 4}
    model = GPTForCausalLM(GPTConfig(**sizes, initializer_range=0.1)).eval()
    model.save_pretrained(tmp_path)
    ids = [1, 2, 3, 4, 5]
    expected = model(input_ids=torch.tensor([ids])).logits[0, -1]
    for quantize, precision, error in [
        ("none", "fp32", 1e-5),
        *([("none", "bf16", 0.03)] if cpu_has_bf16() else []),
        ("int8", "auto", 0.03),
        ("int4", "auto", 0.25),
    ]:
        options = TextModelOptions(device="cpu", precision=precision, quantize=quantize, compile="off")
        engine = choose_engine(tmp_path, options, tokens=1).open()
        engine.open(1, 24)
        logits = torch.as_tensor(engine.forward([Piece(0, 0, ids)]))
        assert (logits[0] - expected).norm() / expected.norm() < error
