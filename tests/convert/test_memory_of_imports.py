"""What is imported is in memory once: a checkpoint of TensorFlow's, a pickle, and a model with an adapter."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_memory import GPT2_XL, MOST, peak_of, write_sparse_model
from test_openai_tf import INDEX, entry, field, write_table

from gptkit.model_files import GPTShape, tensor_shapes

TARGET = "attn.c_attn"


def tf_checkpoint(folder: Path) -> tuple[int, list[str]]:
    """Write a checkpoint of zeros that takes no room on the disk; return its size, and the words that name it."""
    names = [f"transformer.h.{layer}." for layer in range(GPT2_XL["n_layer"])]
    shapes = tensor_shapes(GPTShape(**GPT2_XL), names, "sparse")
    del shapes["lm_head.weight"]
    folder.mkdir()
    entries, end = {b"": field(1, 1)}, 0
    for ours, shape in shapes.items():
        *parts, kind = ours.removeprefix("transformer.").replace("h.", "h", 1).split(".")
        name = "/".join(["model", *parts] + ([] if parts[0] in ("wte", "wpe") else ["g" if "ln" in parts[-1] else "w"]))
        if kind == "bias":
            name = f"{name[:-1]}b"
        size = 4 * torch.Size(shape).numel()
        theirs = (1, *shape[::-1]) if len(shape) == 2 and parts[0] not in ("wte", "wpe") else shape
        entries[name.encode()] = entry(1, theirs, end, size, shard=0)
        end += size
    write_table(folder / INDEX, [sorted(entries.items())])
    (folder / "model.ckpt.data-00000-of-00001").touch()
    with open(folder / "model.ckpt.data-00000-of-00001", "r+b") as file:
        file.truncate(end)
    names_of = {"n_vocab": "vocab_size", "n_ctx": "n_positions"}
    sizes = {name: GPT2_XL[names_of.get(name, name)] for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")}
    (folder / "hparams.json").write_text(json.dumps(sizes))
    return end, [str(folder)]


def model_with_adapter(folder: Path) -> tuple[int, list[str]]:
    size = write_sparse_model(folder, GPT2_XL)
    width, rank, factors = GPT2_XL["n_embd"], 16, {}
    for layer in range(GPT2_XL["n_layer"]):
        name = f"base_model.model.transformer.h.{layer}.{TARGET}.lora_"
        factors |= {f"{name}A.weight": torch.zeros(rank, width), f"{name}B.weight": torch.zeros(3 * width, rank)}
    (folder / "adapter").mkdir()
    save_file(factors, folder / "adapter" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": [TARGET]}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    return size, [str(folder), "--adapter", str(folder / "adapter")]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("make", [tf_checkpoint, model_with_adapter])
def test_an_import_takes_little_more_than_its_own_size(
    make: Callable[[Path], tuple[int, list[str]]], tmp_path: Path
) -> None:
    size, words = make(tmp_path / "source")
    if shutil.disk_usage(tmp_path).free < 1.1 * size:
        pytest.skip(f"no room for {size / 1e9:.1f} GB")
    peak, result = peak_of(*words[:1], str(tmp_path / "made"), *words[1:])
    assert result["parameters"] > 1.5e9
    print(f"{peak / size:.2f} x the files")
    assert peak <= MOST * size, f"{peak / size:.2f} x the files"
