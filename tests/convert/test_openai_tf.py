"""OpenAI's GPT-2 in TensorFlow's files (tf_checkpoint/, by its make.py) computes what TensorFlow did."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gptkit.console import Console
from gptkit.convert import command
from gptkit.convert.openai_tf import own_name, read
from gptkit.convert.options import ConvertOptions
from gptkit.convert.tensor_bundle import FOOTER, LARGEST_HEADER, MAGIC, PLAIN, SNAPPY, Reader, masked_crc32c, table
from gptkit.errors import InputError
from gptkit.model.loading import build_model, load_model
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.loading import load_tokenizer

KEPT = Path(__file__).parent / "tf_checkpoint"
INDEX = "model.ckpt.index"
TOKENS = "model/wte"  # in the last shard, followed by an optimizer's numbers
ROUNDING = 1e-5  # of logits as large as 3

Entries = list[tuple[bytes, bytes]]


def test_logits_and_ids_are_those_of_tensorflow(tmp_path: Path) -> None:
    options = ConvertOptions(source=str(KEPT), destination=tmp_path / "imported")
    result = command.run(options, Console(stdout=io.StringIO(), stderr=(log := io.StringIO()), environment={}))
    assert result["tokenizer"]
    assert log.getvalue() == ""
    model = load_model(tmp_path / "imported")
    logits = model(input_ids=torch.tensor(json.loads((KEPT / "ids.json").read_text()))).logits
    np.testing.assert_allclose(logits.detach().numpy(), np.load(KEPT / "logits.npy"), atol=ROUNDING)
    tokenizer = load_tokenizer(str(tmp_path / "imported"))
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("hello world\n<|endoftext|>"))
    assert pieces == ["hello", "Ġwor", "l", "d", "Ċ", "<|endoftext|>"]
    assert model.config.eos_token_id == json.loads((KEPT / "encoder.json").read_text())["<|endoftext|>"] == 263


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model/wte", "transformer.wte.weight"),
        ("model/h11/attn/c_proj/w", "transformer.h.11.attn.c_proj.weight"),
        ("model/h0/ln_2/g", "transformer.h.0.ln_2.weight"),
        ("model/ln_f/b", "transformer.ln_f.bias"),
        ("model/h0/ln_2/g/Adam_1", None),
        ("global_step", None),
    ],
)
def test_only_weights_are_read(theirs: str, ours: str | None) -> None:
    assert own_name(theirs) == ours


# --- damaged and hostile files ---


def varint(number: int) -> bytes:
    low, high = number & 127, number >> 7
    return bytes([low]) if not high else bytes([low | 128]) + varint(high)


def packed(entries: Entries, compression: int) -> bytes:
    """Return a block with its trailer; each key is stored in full."""
    content = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    content += bytes(4) + (1).to_bytes(4, "little")
    if compression == SNAPPY:
        content = pa.Codec("snappy").compress(content, asbytes=True)
    content += bytes([compression])
    return content + masked_crc32c(content).to_bytes(4, "little")


def write_table(path: Path, blocks: list[Entries], compression: int = PLAIN, again: int = 0) -> None:
    """Write an index; the first block is listed `again` times at the end."""
    raw, handles = b"", []
    for block in blocks:
        whole = packed(block, compression)
        handles.append((block[-1][0], varint(len(raw)) + varint(len(whole) - 5)))
        raw += whole
    handles += [(b"~", handles[0][1])] * again
    index = packed(handles, compression)
    footer = varint(0) * 2 + varint(len(raw)) + varint(len(index) - 5)
    path.write_bytes(raw + index + footer.ljust(FOOTER - len(MAGIC), b"\0") + MAGIC)


def entries_of(folder: Path) -> Entries:
    return list(table((folder / INDEX).read_bytes()))


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(8 * number) + varint(value)
    return varint(8 * number + 2) + varint(len(value)) + value


def entry(
    dtype: int = 1, shape: tuple[int, ...] = (264, 8), offset: int = 0, size: int = 264 * 8 * 4, shard: int = 2
) -> bytes:
    dims = b"".join(field(2, field(1, length)) for length in shape)
    return field(1, dtype) + field(2, dims) + field(3, shard) + field(4, offset) + field(5, size)


def lying(value: bytes, name: str = TOKENS) -> Callable[[Path], None]:
    """Give a tensor another entry."""

    def make(folder: Path) -> None:
        changed = {**dict(entries_of(folder)), name.encode(): value}
        write_table(folder / INDEX, [sorted(changed.items())])

    return make


def rewritten(change: Callable[[bytes], bytes], name: str = INDEX) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def pointing(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "checkpoint").write_text(text) and None


def flipped(raw: bytes) -> bytes:
    return raw[:100] + bytes([raw[100] ^ 1]) + raw[101:]


def unsorted(folder: Path) -> None:
    header, *rest = entries_of(folder)
    write_table(folder / INDEX, [[header, *reversed(rest)]])


def edited_sizes(**sizes: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / "hparams.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **sizes}))

    return make


def long_names(folder: Path) -> None:
    write_table(folder / INDEX, [[*entries_of(folder)[:1], (b"x" * 5000, b"")]])


def piped(folder: Path) -> None:
    (folder / "model.ckpt.data-00001-of-00003").unlink()
    os.mkfifo(folder / "model.ckpt.data-00001-of-00003")


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (rewritten(lambda raw: raw[:-1]), "not the index of a TensorFlow"),
    "empty": (rewritten(lambda raw: b""), "not the index"),
    "a flipped bit": (rewritten(flipped), "checksum"),
    "a block beyond the end": (
        rewritten(lambda raw: raw[:-FOOTER] + varint(2**40) * 4 + raw[-20:]),
        "checksum|not the",
    ),
    "a vast index": (lambda folder: os.truncate(folder / INDEX, 2**40), f"over {LARGEST_HEADER:,}"),
    "a block listed again": (
        lambda folder: write_table(folder / INDEX, [entries_of(folder)], again=9),
        "blocks out of order",
    ),
    "names out of order": (unsorted, "names out of order"),
    "a long name": (long_names, "a name of over 1,000 bytes"),
    "no header": (lambda folder: write_table(folder / INDEX, [entries_of(folder)[1:]]), "no header"),
    "a message without an end": (lying(b"\xff" * 20), "a number without an end"),
    "a field beyond the end": (lying(field(2, b"")[:-1] + varint(2**60)), "bytes are missing"),
    "beyond the shard": (lying(entry(offset=2**50)), "model/wte lies beyond the end of its shard"),
    "a negative offset": (lying(entry(offset=2**64 - 4)), "beyond the end"),
    "a shape larger than its bytes": (lying(entry(shape=(2**40, 8))), "do not fit its shape"),
    "a shape that overflows": (lying(entry(shape=(2**63, 2**63))), "do not fit its shape"),
    "ten thousand dimensions": (lying(entry(shape=(1,) * 10_000 + (264, 8))), "do not fit its shape"),
    "nothing": (lying(entry(shape=(0, 8), size=0)), "do not fit its shape"),
    "strings": (lying(entry(dtype=7)), "or not as float32"),
    "slices": (lying(entry() + field(7, b"\1")), "stored in slices"),
    "tensors that overlap": (lying(entry(shape=(16, 8), size=512), "model/wpe"), "tensors overlap"),
    "another shape": (lying(entry(shape=(263, 8), size=263 * 32)), r"wte.weight has shape \(263, 8\), not \(264, 8\)"),
    "a shard above": (pointing('model_checkpoint_path: "../model.ckpt"\n'), "not the name of a checkpoint"),
    "a shard elsewhere": (pointing('model_checkpoint_path: "/etc/passwd"\n'), "not the name of a checkpoint"),
    "names nothing": (pointing("model_checkpoint_path: 3\n"), "not the name of a checkpoint"),
    "no such checkpoint": (pointing('model_checkpoint_path: "model-2"\n'), "file not found"),
    "two of them": (
        lambda folder: [(folder / "checkpoint").unlink(), (folder / "other.index").touch()],
        r"2 files named \*\.index",
    ),
    "a shard is missing": (lambda folder: (folder / "model.ckpt.data-00002-of-00003").unlink(), "file not found"),
    "a shard is cut": (rewritten(lambda raw: raw[:-2000], "model.ckpt.data-00002-of-00003"), "beyond the end"),
    "a shard is empty": (rewritten(lambda raw: b"", "model.ckpt.data-00002-of-00003"), "empty"),
    "a shard is a pipe": (piped, "not a regular file"),
    "a size too few": (lambda folder: (folder / "hparams.json").write_text('{"n_ctx": 16}'), "no n_vocab"),
    "a size too many": (edited_sizes(n_heads=2), "unknown key 'n_heads'.*did you mean 'n_head'"),
    "a billion layers": (edited_sizes(n_layer=10**9), "n_layer is 1,000,000,000, but the file has 2 layers"),
    "sizes that are none": (edited_sizes(n_head="two"), "n_head"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_damaged_or_hostile_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    make, message = ATTACKS[name]
    folder = shutil.copytree(KEPT, tmp_path / "copy")
    make(folder)
    with pytest.raises(InputError, match=message):
        read(folder)


@pytest.mark.parametrize("compression", [PLAIN, SNAPPY])
def test_an_index_of_several_blocks_is_read_compressed_or_not(compression: int, tmp_path: Path) -> None:
    folder = shutil.copytree(KEPT, tmp_path / "copy")
    entries = entries_of(folder)
    write_table(folder / INDEX, [entries[:3], entries[3:20], entries[20:]], compression)
    _, expected = read(KEPT)
    _, found = read(folder)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_number_has_at_most_64_bits() -> None:
    assert Reader(varint(2**63)).varint() == 2**63
    with pytest.raises(ValueError, match="without an end"):
        Reader(varint(2**70)).varint()


def test_half_precision_is_kept(tmp_path: Path) -> None:
    """bfloat16 and float16 numbers stay as they are; TensorFlow's types 14 and 19."""
    folder = shutil.copytree(KEPT, tmp_path / "copy")
    config, state = read(folder)
    for type_number, dtype in ((14, torch.bfloat16), (19, torch.float16)):
        raw, entries = b"", [entries_of(KEPT)[0]]
        names = {own_name(key.decode()): key for key, _ in entries_of(KEPT)}
        for name, tensor in sorted(state.items(), key=lambda item: names.get(item[0], b"")):
            if name in names:
                numbers = (tensor.T if tensor.ndim == 2 and ".h." in name else tensor).to(dtype)
                part = numbers.contiguous().view(torch.uint8).numpy().tobytes()
                entries.append((names[name], entry(type_number, tuple(numbers.shape), len(raw), len(part))))
                raw += part
        write_table(folder / INDEX, [entries])
        (folder / "model.ckpt.data-00002-of-00003").write_bytes(raw)
        _, found = read(folder)
        assert {tensor.dtype for tensor in found.values()} == {dtype}
        assert all(torch.equal(found[name], tensor.to(dtype)) for name, tensor in state.items())
        assert build_model(config, found, dtype, GPTForCausalLM).dtype == dtype
