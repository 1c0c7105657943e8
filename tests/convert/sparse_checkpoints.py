"""Checkpoints of GPT-2 XL's size that take no room on the disk, each as another program would have written it.

All weights are zero, but for one in each tensor of `safetensors`, at a place of its own: CTranslate2 writes equal
tensors once, and its model would be far smaller than a real one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import torch
from safetensors.torch import save_file
from test_openai_tf import INDEX, entry, field, write_table

from gptkit.convert import gguf, llmc
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model_files import MATRIX, GPTShape, tensor_shapes
from gptkit.text.tokenizers.kinds import train_tokenizer

GPT2_XL = {"vocab_size": 50257, "n_positions": 32, "n_embd": 1600, "n_layer": 48, "n_head": 25}
ONES = {"F32": b"\0\0\x80\x3f", "BF16": b"\x80\x3f"}
Shapes = Mapping[str, tuple[int, ...]]


def shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of our tensors; matrices are (out, in)."""
    layers = [f"transformer.h.{layer}." for layer in range(sizes["n_layer"])]
    found = tensor_shapes(GPTShape(**sizes), layers, "sparse")  # type: ignore[arg-type]
    return {name: shape for name, shape in found.items() if name != "lm_head.weight"}


def theirs(found: Shapes) -> Shapes:
    """Return the same with matrices (in, out)."""
    return {name: shape[::-1] if MATRIX.search(name) else shape for name, shape in found.items()}


def safetensors(folder: Path, sizes: Mapping[str, int], dtype: str = "F32") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gptkit", **sizes}))
    train_tokenizer("bpe:280", ["hear me speak, hear me speak. " * 9]).save_pretrained(folder)
    header, end, ones = {}, 0, []
    for number, (name, shape) in enumerate(shapes(sizes).items()):
        one = len(ONES[dtype])
        ones.append(end + number * one)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + one * math.prod(shape)]}
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for place in ones:
            file.seek(8 + len(text) + place)
            file.write(ONES[dtype])
        file.truncate(8 + len(text) + end)
    return folder


def bf16(folder: Path, sizes: Mapping[str, int]) -> Path:
    return safetensors(folder, sizes, "BF16")


def with_adapter(folder: Path, sizes: Mapping[str, int]) -> Path:
    """Write a model with a LoRA adapter in adapter/."""
    safetensors(folder, sizes)
    width, rank, factors = sizes["n_embd"], 16, {}
    for layer in range(sizes["n_layer"]):
        name = f"base_model.model.transformer.h.{layer}.attn.c_attn.lora_"
        factors |= {f"{name}A.weight": torch.zeros(rank, width), f"{name}B.weight": torch.zeros(3 * width, rank)}
    (folder / "adapter").mkdir()
    save_file(factors, folder / "adapter" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["attn.c_attn"]}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def pickled(path: Path, found: Shapes, **beside: object) -> None:
    """Write what torch.save would: the zeros are never touched, and so take no memory."""
    state = {name: torch.zeros(shape) for name, shape in found.items()}
    with torch.serialization.skip_data():
        torch.save({"model": state, **beside} if beside else state, path)


def pytorch_bin(folder: Path, sizes: Mapping[str, int]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    pickled(folder / "pytorch_model.bin", theirs(shapes(sizes)))
    return folder


def nanogpt(folder: Path, sizes: Mapping[str, int]) -> Path:
    folder.mkdir()
    arguments = {{"n_positions": "block_size"}.get(name, name): size for name, size in sizes.items()}
    pickled(folder / "ckpt.pt", shapes(sizes), model_args={**arguments, "bias": True, "dropout": 0.0})
    return folder


def llm_c(folder: Path, sizes: Mapping[str, int]) -> Path:
    folder.mkdir()
    padded = math.ceil(sizes["vocab_size"] / llmc.MULTIPLE) * llmc.MULTIPLE
    numbers = [padded if name == llmc.PADDED_SIZE else sizes[name] for name in llmc.SIZES]
    parameters = sum(map(math.prod, shapes(sizes | {"vocab_size": padded}).values()))  # type: ignore[operator]
    with open(folder / llmc.MODEL, "wb") as file:
        file.write(llmc.HEADER.pack(llmc.MODEL_MAGIC, llmc.VERSIONS["f32"], *numbers, *[0] * (254 - len(numbers))))
        file.truncate(llmc.HEADER.size + 4 * parameters)
    return folder


def gguf_file(folder: Path, sizes: Mapping[str, int], kind: str = "F32") -> Path:
    from gguf import GGMLQuantizationType, GGUFWriter

    folder.mkdir()
    rows = {gguf._their_name(name): torch.Size(shape) for name, shape in shapes(sizes).items()}
    kinds = {name: "F32" if len(shape) == 1 or "position" in name else kind for name, shape in rows.items()}
    end = 0
    with closing(GGUFWriter(folder / gguf.FILE, gguf.ARCHITECTURE)) as writer:
        gguf._add_shape(writer, GPTConfig(**sizes), kind.lower())
        for name, shape in rows.items():
            stored = GGMLQuantizationType[kinds[name]]
            size = gguf._size(shape, stored)
            writer.add_tensor_info(name, shape, "float32", size, raw_dtype=stored)  # type: ignore[arg-type]
            end += math.ceil(size / 32) * 32
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    start = math.ceil((folder / gguf.FILE).stat().st_size / 32) * 32
    with open(folder / gguf.FILE, "r+b") as file:
        file.truncate(start + end)
    return folder


def quantized_gguf(folder: Path, sizes: Mapping[str, int]) -> Path:
    return gguf_file(folder, sizes, "Q8_0")


def tensorflow(folder: Path, sizes: Mapping[str, int]) -> Path:
    folder.mkdir()
    entries, end = {b"": field(1, 1)}, 0
    for ours, shape in theirs(shapes(sizes)).items():
        *parts, kind = ours.removeprefix("transformer.").replace("h.", "h", 1).split(".")
        name = "/".join(["model", *parts] + ([] if parts[0] in ("wte", "wpe") else ["g" if "ln" in parts[-1] else "w"]))
        if kind == "bias":
            name = f"{name[:-1]}b"
        size = 4 * math.prod(shape)
        entries[name.encode()] = entry(1, (1, *shape) if MATRIX.search(ours) else shape, end, size, shard=0)
        end += size
    write_table(folder / INDEX, [sorted(entries.items())])
    with open(folder / "model.ckpt.data-00000-of-00001", "wb") as file:
        file.truncate(end)
    names_of = {"n_vocab": "vocab_size", "n_ctx": "n_positions"}
    hparams = {name: sizes[names_of.get(name, name)] for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")}
    (folder / "hparams.json").write_text(json.dumps(hparams))
    return folder
