"""llm.c's model.bin and gpt2_tokenizer.bin: a header of 256 int32, then raw tensors or tokens; matrices are (out, in).

Versions 3 (fp32) and 5 (bf16), as the `write_model` and `write_tokenizer` of llm.c's train_gpt2.py have them. The model
is a GPT-2 with 4 n_embd hidden units and the tanh GELU; the vocabulary is padded to a multiple of 128 rows. The tokens
are a table of bytes, from which llm.c decodes; there are no merges, so a tokenizer cannot be read back.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.convert.dtypes import TORCH, cast
from gptkit.convert.formats import Exporter, Importer
from gptkit.convert.torch_peer import TorchPeer, own_peer
from gptkit.errors import GptkitError, InputError
from gptkit.model.configuration_gpt import GPTConfig, parse_config
from gptkit.model.loading import State, build_model, checked
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model_files import tensor_shapes
from gptkit.system.files import write_durably
from gptkit.system.reading import require_regular
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.shown import token_bytes

MODEL, TOKENIZER = "model.bin", "gpt2_tokenizer.bin"  # llm.c looks for the tokenizer under this name
HEADER = struct.Struct("<256i")
MODEL_MAGIC, TOKENIZER_MAGIC, TOKENIZER_VERSION = 20240326, 20240328, 2
VERSIONS = {"f32": 3, "bf16": 5}
PADDED_SIZE, MULTIPLE = "padded vocab_size", 128  # rows of the token embedding in the file
SIZES = ("n_positions", "vocab_size", "n_layer", "n_head", "n_embd", PADDED_SIZE)  # after magic and version
LONGEST_TOKEN = 255  # bytes: a token's length takes one
LAYER = (  # each of these for all layers, then the next
    *("ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias"),
    *("ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
)


def refuse(model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> None:
    """Raise InputError for a model or tokenizer that llm.c does not compute or decode."""
    config = model.config
    for is_unfit, what in (
        (not config.pre_norm, "pre_norm = false (GPT-1)"),
        (config.inner_width != 4 * config.n_embd, f"n_inner = {config.n_inner}"),
        (config.activation_function != "gelu_new", f"activation_function = {config.activation_function!r}"),
        (config.layer_norm_epsilon != 1e-5, f"layer_norm_epsilon = {config.layer_norm_epsilon}"),
        (not config.tie_word_embeddings, "tie_word_embeddings = false"),
    ):
        if is_unfit:
            fix = "export to another format, such as --to hf"
            raise InputError(f"llm.c has GPT-2's architecture alone, not {what}", where="--to llm.c", fix=fix)
    if tokenizer is not None:
        _token_table(tokenizer)


def write(
    model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, console: Console
) -> None:
    """Write model.bin and, with a tokenizer, gpt2_tokenizer.bin; GptkitError if the weights do not read back bitwise.

    Only one tensor at a time is copied.
    """
    write_durably(folder / MODEL, _model_bytes(model, dtype))
    state, (_, found) = model.state_dict(), _mapped(folder / MODEL)
    for name, tensor in found.items():
        if not torch.equal(cast(name, state[name], dtype).view(torch.uint8), tensor.view(torch.uint8)):
            raise GptkitError(f"tensor {name} reads back differently", where=str(folder / MODEL))
    if tokenizer is not None:
        tokens = _token_table(tokenizer)
        header = _header(TOKENIZER_MAGIC, TOKENIZER_VERSION, len(tokens), separator_id(tokenizer))
        table = b"".join(bytes([len(token)]) + token for token in tokens)
        write_durably(folder / TOKENIZER, [header, table])


def _model_bytes(model: GPTForCausalLM, dtype: str) -> Iterator[bytes | memoryview]:
    config, state = model.config, model.state_dict()
    padded = math.ceil(config.vocab_size / MULTIPLE) * MULTIPLE
    sizes = (config.n_positions, config.vocab_size, config.n_layer, config.n_head, config.n_embd, padded)
    yield _header(MODEL_MAGIC, VERSIONS[dtype], *sizes)
    for name in _tensor_names(config.n_layer):
        tensor = cast(name, state[name], dtype).contiguous()
        yield tensor.view(torch.uint8).numpy().data.cast("B")
        if name == "transformer.wte.weight":
            yield bytes((padded - config.vocab_size) * config.n_embd * tensor.itemsize)


def _header(*numbers: int) -> bytes:
    return HEADER.pack(*numbers, *[0] * (256 - len(numbers)))


def _tensor_names(layers: int) -> list[str]:
    stacked = [f"transformer.h.{layer}.{name}" for name in LAYER for layer in range(layers)]
    embeddings, last = ["transformer.wte.weight", "transformer.wpe.weight"], "transformer.ln_f"
    return [*embeddings, *stacked, f"{last}.weight", f"{last}.bias"]


def _token_table(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """Return the bytes of each token; InputError for one that llm.c's file cannot hold."""
    tokens = [token_bytes(tokenizer, id) for id in range(len(tokenizer))]
    for id, token in enumerate(tokens):
        if not 0 < len(token) <= LONGEST_TOKEN:
            message = f"token {id} has {len(token):,} bytes; llm.c's tokenizer file holds 1 to {LONGEST_TOKEN}"
            raise InputError(message, where="--to llm.c", fix="export to another format, such as --to hf")
    separator_id(tokenizer)  # InputError without one
    return tokens


def matches(path: Path) -> bool:
    return bool(_model_files(path))


def _model_files(path: Path) -> list[Path]:
    """Return the files with llm.c's header: `path`, or those in it that end in .bin."""
    files = sorted(path.glob("*.bin")) if path.is_dir() else [path]
    return [file for file in files if file.is_file() and _has_magic(file)]


def _has_magic(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(HEADER.size)
    return len(start) == HEADER.size and HEADER.unpack(start)[0] == MODEL_MAGIC


def read(path: Path) -> tuple[GPTConfig, State]:
    """Return the config and weights; InputError for a header that does not fit the file, before anything is read."""
    file, *others = _model_files(path)
    if others:
        fix = f"pass one of the files, such as {others[-1]}"
        raise InputError(f"{1 + len(others)} models in this directory", where=str(path), fix=fix)
    config, state = _mapped(file)
    return config, checked(config, state, str(file))


def tensors(folder: Path) -> State:
    """Return the tensors that were written, not yet read."""
    return _mapped(folder / MODEL)[1]


def open_peer(folder: Path) -> TorchPeer:
    """Return what we read back: no library reads these files, llm.c itself is a program to compile."""
    config, state = read(folder)
    return own_peer(build_model(config, state, state["transformer.wte.weight"].dtype, GPTForCausalLM), None)


def _mapped(file: Path) -> tuple[GPTConfig, State]:
    """Return the config, and the tensors mapped into memory; InputError for a header that does not fit the file."""
    config, padded, dtype = _described(file)
    names = _tensor_names(config.n_layer)
    shapes = tensor_shapes(config, names, str(file)) | {names[0]: (padded, config.n_embd)}
    sizes = [math.prod(shapes[name]) for name in names]
    start = HEADER.size // dtype.itemsize
    flat = torch.from_file(str(file), shared=False, size=start + sum(sizes), dtype=dtype)
    parts = flat[start:].split(sizes)
    state = {name: part.view(shapes[name]) for name, part in zip(names, parts, strict=True)}
    return config, state | {names[0]: state[names[0]][: config.vocab_size]}


def _described(file: Path) -> tuple[GPTConfig, int, torch.dtype]:
    """Return what the header says: config, rows of the token embedding, dtype; InputError unless the file fits it."""
    where, damaged = str(file), "copy the file again"
    length = require_regular(file, damaged)
    with file.open("rb") as opened:
        _, version, *numbers = HEADER.unpack(opened.read(HEADER.size))
    dtype = next((TORCH[name] for name, number in VERSIONS.items() if number == version), None)
    if dtype is None:
        fix = "write it again with today's llm.c"
        raise InputError(f"version {version} of llm.c's format; gptkit reads 3 and 5", where=where, fix=fix)
    sizes = dict(zip(SIZES, numbers[: len(SIZES)], strict=True))
    padded = sizes.pop(PADDED_SIZE)
    config = parse_config(sizes, where)
    if padded < config.vocab_size:
        message = f"damaged: the vocabulary of {config.vocab_size:,} is padded to {padded:,} rows"
        raise InputError(message, where=where, fix=damaged)
    # A count, not a list of shapes: n_layer may be anything.
    parameters = (padded + config.n_positions + config.n_layer * (12 * config.n_embd + 13) + 2) * config.n_embd
    needed = HEADER.size + parameters * dtype.itemsize
    if length != needed:
        message = f"damaged: the header describes {needed:,} bytes, the file has {length:,}"
        raise InputError(message, where=where, fix=damaged)
    return config, padded, dtype


IMPORTER = Importer(matches, read)
EXPORTER = Exporter(write, open_peer, refuse, tensors=tensors)
