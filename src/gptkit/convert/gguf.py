"""GGUF, the format of llama.cpp and Ollama: architecture gpt2, with the tokenizer in the same file.

llama.cpp's own converter knows tokenizers by a hash of their ids and refuses any that it has not seen; this one writes
those that split text as GPT-2 does. Which tensors are quantized follows llama.cpp: all matrices but the position
embeddings. Matrices are (out, in), as in nn.Linear.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
from contextlib import closing, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gptkit.console import Console
from gptkit.convert.dtypes import TORCH, cast
from gptkit.convert.formats import FORMATS, Exporter, Importer
from gptkit.convert.gguf_file import DAMAGED, StoredTensor, read_header
from gptkit.convert.proof import Peer
from gptkit.convert.torch_peer import TorchPeer
from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, parse_config, quiet_transformers
from gptkit.model.loading import Head, State, checked
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.files import checked_merges
from gptkit.text.tokenizers.kinds import byte_level

DTYPES = FORMATS["gguf"].dtypes
ROUNDING = 2**-9  # llama.cpp looks GELU up in a table of f16 numbers; random weights make up to 1.7 x 2**-11 of it
FILE, MODELFILE = "model.gguf", "Modelfile"
BLOCK = 32  # numbers of a row that q8_0 and q4_0 quantize together
ARCHITECTURE, TOKENIZER, SPLIT = "gpt2", "gpt2", "gpt-2"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType
NAMES = {  # theirs -> ours
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
RECOGNIZED = {"<|start|>", "<|message|>", "<|channel|>", "<|constrain|>"}  # by llama.cpp in any text, for gpt-oss
OURS = {ours: theirs for theirs, ours in NAMES.items()}
THEIR_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")
OUR_NAME = re.compile(r"(?:transformer\.h\.(\d+)\.)?([\w.]+)\.(weight|bias)")


# --- writing ---


def refuse(model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> None:
    """Raise InputError for a model or tokenizer that llama.cpp's gpt2 would compute otherwise, or not at all."""
    config = model.config
    if not config.pre_norm:
        raise _unfit("a post-norm model (GPT-1)", "only pre-norm ones (GPT-2)", "write --to hf")
    if config.activation_function != "gelu_new":
        activation = f"activation_function {config.activation_function!r}"
        raise _unfit(activation, "only gelu_new, GELU's tanh form", "write --to hf")
    if tokenizer is None:
        raise _unfit("a model without a tokenizer", "the tokenizer in the same file", "pass one with --tokenizer")
    if problem := _other_split(tokenizer):
        raise _unfit(f"a tokenizer {problem}", "byte-level BPE that splits text as GPT-2's does", "write --to hf")
    separator_id(tokenizer)  # raises if there is none: llama.cpp would end every text at token 11
    for name in ("n_embd", "inner_width"):
        width = getattr(config, name)
        if dtype.startswith("q") and width % BLOCK:
            named = name.replace("inner_width", "n_inner")
            message = f"{dtype} quantizes {BLOCK} numbers of a row together, but {named} is {width}"
            raise InputError(message, where="--dtype", fix="write --dtype f16")


def _unfit(what: str, holds: str, fix: str) -> InputError:
    return InputError(f"GGUF's gpt2 cannot hold {what}: it holds {holds}", where="--to gguf", fix=fix)


def _other_split(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Say by what a tokenizer's ids would differ from those of llama.cpp's gpt-2; None if by nothing."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend is not None else {"model": {}}
    if parts["model"].get("type") != "BPE":
        return f"of another kind ({parts['model'].get('type') or type(tokenizer).__name__})"
    split = parts["pre_tokenizer"] or {}
    if (split.get("type"), split.get("add_prefix_space"), split.get("use_regex")) != ("ByteLevel", False, True):
        return "that splits text otherwise"
    if parts["normalizer"]:
        return "that normalizes text"
    if not parts["model"]["merges"]:
        return "without merges"
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if parts["model"].get(option):
            return f"with {option}"
    for token in parts["added_tokens"]:
        if not token["special"] and (token["lstrip"] or token["rstrip"] or token["single_word"]):
            return f"whose added token {token['content'][:40]!r} takes in the text beside it"
    return None


def write(
    model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, folder: Path, dtype: str, console: Console
) -> None:
    """Write model.gguf and an Ollama Modelfile beside it. Tensors are converted one at a time."""
    import gguf

    assert tokenizer is not None  # see `refuse`
    tensors = _tensors(model)
    kinds = {name: _kind(name, tensor, model.config, dtype) for name, tensor in tensors.items()}
    with closing(gguf.GGUFWriter(folder / FILE, ARCHITECTURE)) as writer:
        _add_shape(writer, model.config, dtype)
        _add_tokenizer(writer, tokenizer, model.config.vocab_size, console)
        for name, tensor in tensors.items():
            size = _size(tensor.shape, kinds[name])
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kinds[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            stored = _stored(name, tensor, kinds[name])
            try:
                writer.write_tensor_data(stored)
            except OSError as error:  # numpy's tofile forgets why it wrote too little
                number = error.errno or errno.ENOSPC
                raise OSError(number, os.strerror(number), str(folder / FILE)) from None
    (folder / MODELFILE).write_text(_modelfile(model.config), encoding="utf-8")
    _say_how_transformers_reads_it(model.config, console)


def _tensors(model: GPTForCausalLM) -> State:
    """Return the tensors by their names in GGUF, the head only if it has weights of its own."""
    tied = model.config.tie_word_embeddings
    state = {name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    return {_their_name(name): tensor for name, tensor in state.items()}


def _their_name(name: str) -> str:
    found = OUR_NAME.fullmatch(name)
    assert found
    layer, ours, kind = found.groups()
    return f"{f'blk.{layer}.' if layer else ''}{OURS[ours]}.{kind}"


def _kind(name: str, tensor: Tensor, config: GPTConfig, dtype: str) -> Any:
    """Return the ggml type of a tensor under a --dtype."""
    from gguf import GGMLQuantizationType

    if tensor.ndim == 1 or name == "position_embd.weight":
        return GGMLQuantizationType.F32
    head = "token_embd.weight" if config.tie_word_embeddings else "output.weight"
    if dtype == "q4_0" and name == head:
        return GGMLQuantizationType.Q8_0  # llama.cpp keeps it larger too, in Q6_K, which `gguf` cannot write
    return GGMLQuantizationType[dtype.upper()]


def _size(shape: torch.Size, kind: Any) -> int:
    """Return the bytes of a tensor of that ggml type."""
    from gguf import GGML_QUANT_SIZES

    numbers, size = GGML_QUANT_SIZES[kind]
    return shape.numel() // numbers * size


def _stored(name: str, tensor: Tensor, kind: Any) -> NDArray[Any]:
    """Return a tensor's bytes, or its numbers where numpy has the type."""
    from gguf import quants

    if (dtype := kind.name.lower()) in TORCH:
        tensor = cast(name, tensor.detach(), dtype).contiguous()
        return (tensor.view(torch.int16) if dtype == "bf16" else tensor).numpy()
    quantized: NDArray[Any] = quants.quantize(cast(name, tensor.detach(), "f32").numpy(), kind)
    return quantized


def _add_shape(writer: Any, config: GPTConfig, dtype: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.inner_width)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(LlamaFileType["ALL_F32" if dtype == "f32" else f"MOSTLY_{dtype.upper()}"])
    if dtype.startswith("q"):
        writer.add_quantization_version(GGML_QUANT_VERSION)


def _add_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, vocab_size: int, console: Console) -> None:
    """Add the tokenizer, with an unused token for each row of the model that has none."""
    tokens = [f"[PAD{id}]" for id in range(vocab_size)]  # llama.cpp's own name for a row without a token
    kinds = [UNUSED] * vocab_size
    for token, id in tokenizer.get_vocab().items():
        tokens[id], kinds[id] = token, NORMAL
    for id, added in tokenizer.added_tokens_decoder.items():
        kinds[id] = CONTROL if added.special else USER_DEFINED
    if unused := kinds.count(UNUSED):
        console.warn(
            f"{unused:,} of the {vocab_size:,} embedding rows have no token: GGUF needs one for each, here [PAD...]"
        )
    for token in RECOGNIZED & tokenizer.get_vocab().keys():
        console.warn(f"llama.cpp takes {token} in a text for the special token, gptkit for plain text")
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model(TOKENIZER)
    writer.add_tokenizer_pre(SPLIT)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    separator = separator_id(tokenizer)
    writer.add_bos_token_id(separator)
    writer.add_eos_token_id(separator)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _modelfile(config: GPTConfig) -> str:
    """Return Ollama's description of the model: it continues the prompt as it stands."""
    return f"""\
# ollama create my-gpt -f {MODELFILE}
# ollama run my-gpt "Once upon a time"
FROM ./{FILE}
TEMPLATE "{{{{ .Prompt }}}}"
PARAMETER num_ctx {config.n_positions}
"""


def _say_how_transformers_reads_it(config: GPTConfig, console: Console) -> None:
    """Name the sizes that transformers' reader does not take from the file."""
    sizes = {"n_positions": config.n_positions, "n_inner": config.n_inner}
    default = GPT2Config()
    other = [f", {name}={size}" for name, size in sizes.items() if size != getattr(default, name)]
    if other:
        console.say(f"transformers reads it by from_pretrained(DIR, gguf_file=NAME{''.join(other)})")


def open_peer(folder: Path) -> Peer:
    """Return llama.cpp with the file that was written; ImportError if xllamacpp is not installed."""
    from gptkit.convert.llama_cpp import LlamaCpp

    return LlamaCpp(folder / FILE)


# --- reading ---


def matches(path: Path) -> bool:
    return path.suffix == ".gguf" if path.is_file() else any(path.glob("*.gguf"))


def read(path: Path) -> tuple[GPTConfig, State]:
    """Return the config and weights of a GGUF file in f32, f16, bf16, q8_0 or q4_0.

    Their dtype is that of the matrices if it holds every number of the file exactly, else f32.
    """
    path = _file(path)
    metadata, rows = _header(path)
    where = str(path)
    config = _config(metadata, rows, where)
    names = {name: _own_name(name, where) for name in rows}
    state = {names[name]: _loaded(path, row) for name, row in rows.items()}
    if not config.tie_word_embeddings and torch.equal(state["lm_head.weight"], state["transformer.wte.weight"]):
        config.tie_word_embeddings = True  # older files hold the tied weight twice
    state = checked(config, state, where, copy=False)
    return config, _copied(state, _exact_dtype(path, rows))


def _file(path: Path) -> Path:
    files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if len(files) > 1:
        found = ", ".join(file.name for file in files[:4])
        raise InputError(f"more than one GGUF file: {found}", where=str(path), fix="pass the path of one of them")
    return files[0]


def _header(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """Return the metadata and tensors of a GGUF file of architecture gpt2."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError:
        message = "GGUF is read with the package gguf, which is not installed"
        raise InputError(message, where=str(path), fix="pip install 'gptkit[export]'") from None
    metadata, rows = read_header(path, {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()})
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        message = f"a GGUF file of architecture {architecture!r}; gptkit reads {ARCHITECTURE!r}"
        raise InputError(message, where=str(path), fix="pass a GPT-2 model")
    if metadata.get("split.count", 1) != 1:
        message = f"one of {metadata['split.count']} parts of a model"
        raise InputError(message, where=str(path), fix="join them with llama.cpp's llama-gguf-split --merge")
    for name, row in rows.items():
        kind = GGMLQuantizationType(row.kind).name
        if kind.lower() not in DTYPES:
            message = f"tensor {name[:60]} is stored as {kind}; gptkit reads {', '.join(DTYPES)}"
            raise InputError(message, where=str(path), fix="convert it from a file in one of them")
    return metadata, rows


def _config(metadata: dict[str, Any], rows: dict[str, StoredTensor], where: str) -> GPTConfig:
    """Return the config; what the metadata leaves out follows from the shapes."""
    for name in ("token_embd.weight", "position_embd.weight", "blk.0.ffn_up.weight"):
        if name not in rows or len(rows[name].shape) != 2:
            raise InputError(f"no matrix {name}", where=where, fix=DAMAGED)
    vocab_size, n_embd = rows["token_embd.weight"].shape
    layers = {found[1] for name in rows if (found := THEIR_NAME.fullmatch(name)) and found[1]}
    if f"{ARCHITECTURE}.attention.head_count" not in metadata:
        raise InputError("the metadata has no number of heads", where=where, fix=DAMAGED)

    def given(key: str, otherwise: Any) -> Any:
        value = metadata.get(f"{ARCHITECTURE}.{key}", otherwise)
        if type(value) is not type(otherwise):
            message = f"{ARCHITECTURE}.{key} has the type {type(value).__name__}, not {type(otherwise).__name__}"
            raise InputError(message, where=where, fix=DAMAGED)
        return value

    inner = given("feed_forward_length", rows["blk.0.ffn_up.weight"].shape[0])
    width = given("embedding_length", n_embd)
    raw = {
        "vocab_size": vocab_size,
        "n_positions": given("context_length", rows["position_embd.weight"].shape[0]),
        "n_embd": width,
        "n_layer": given("block_count", len(layers)),
        "n_head": given("attention.head_count", 0),
        "n_inner": None if inner == 4 * width else inner,
        "layer_norm_epsilon": float(str(np.float32(given("attention.layer_norm_epsilon", 1e-5)))),
        "tie_word_embeddings": "output.weight" not in rows,
    }
    for ours, theirs in (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")):
        raw[ours] = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
    return parse_config(raw, where)


def _own_name(name: str, where: str) -> str:
    found = THEIR_NAME.fullmatch(name)
    if not found or found[2] not in NAMES:
        raise InputError(f"tensor {name[:60]!r} has no place in a GPT-2", where=where, fix="pass a GPT-2 model")
    layer, theirs, kind = found.groups()
    return f"{f'transformer.h.{layer}.' if layer else ''}{NAMES[theirs]}.{kind}"


def _loaded(path: Path, row: StoredTensor) -> Tensor:
    """Return a tensor: mapped from the file, or dequantized to f32."""
    from gguf import GGMLQuantizationType, quants

    raw = np.memmap(path, np.uint8, "c", row.offset, row.size).reshape(*row.shape[:-1], -1)
    kind = GGMLQuantizationType(row.kind)
    if dtype := TORCH.get(kind.name.lower()):
        return torch.from_numpy(raw).view(dtype)
    with np.errstate(all="ignore"):  # `checked` refuses what is not finite
        return torch.from_numpy(quants.dequantize(raw, kind))


def _exact_dtype(path: Path, rows: dict[str, StoredTensor]) -> torch.dtype:
    """Return the dtype of the matrices if it holds every number of the file, else f32."""
    dtype = _loaded(path, rows["token_embd.weight"]).dtype
    if dtype == torch.float32:
        return dtype
    tensors = (_loaded(path, row) for row in rows.values())
    is_exact = all(torch.equal(tensor.to(dtype).float(), tensor.float()) for tensor in tensors)
    return dtype if is_exact else torch.float32


def _copied(state: State, dtype: torch.dtype) -> State:
    """Return copies in one dtype; empties `state`, so that nothing is held twice."""
    is_tied = state["lm_head.weight"] is state["transformer.wte.weight"]
    if is_tied:
        del state["lm_head.weight"]
    found = {name: state.pop(name).to(dtype, copy=True) for name in [*state]}
    return found | ({"lm_head.weight": found["transformer.wte.weight"]} if is_tied else {})


def tokenizer(path: Path) -> PreTrainedTokenizerFast | None:
    """Return the tokenizer in a GGUF file, None if it has none; InputError for one that splits text otherwise."""
    path = _file(path)
    metadata, _ = _header(path)
    return _tokenizer(metadata, path) if "tokenizer.ggml.tokens" in metadata else None


def open_source(path: Path, _: Head, with_tokenizer: bool) -> Peer:
    """Return the file as transformers reads it, in a dtype that holds its numbers: by default it would take f32."""
    file = _file(path)
    metadata, rows = _header(file)
    config = _config(metadata, rows, str(file))
    named: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    other: dict[str, Any] = {name: getattr(config, name) for name in ("vocab_size", "n_positions", "n_inner")}
    other["dtype"] = _exact_dtype(file, rows)
    with quiet_transformers(), redirect_stderr(io.StringIO()):  # it draws a bar in any case
        model = GPT2LMHeadModel.from_pretrained(file.parent, **named, **other)
        theirs = AutoTokenizer.from_pretrained(file.parent, **named) if with_tokenizer and tokenizer(file) else None
    encode = (lambda text: encode_pieces(theirs, [text])[0].tolist()) if theirs else None
    return TorchPeer(model, encode, name="transformers", version=transformers.__version__)


def _tokenizer(metadata: dict[str, Any], path: Path) -> PreTrainedTokenizerFast:
    where, fix = str(path), "pass the model's tokenizer with --tokenizer"
    kind = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", SPLIT)
    if kind != (TOKENIZER, SPLIT):
        message = f"its tokenizer is {kind[0]!r} with pre-tokenizer {kind[1]!r}, not {TOKENIZER!r} with {SPLIT!r}"
        raise InputError(message, where=where, fix=fix)
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.merges")
    kinds = np.atleast_1d(metadata.get("tokenizer.ggml.token_type", [NORMAL] * np.size(tokens))).tolist()
    if not isinstance(tokens, list) or len(kinds) != len(tokens):
        raise InputError("its tokens and their types do not match", where=where, fix=fix)
    while kinds and kinds[-1] == UNUSED:  # a row of the model without a token
        kinds.pop()
    tokens = tokens[: len(kinds)]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        raise InputError("its tokenizer has a token twice", where=where, fix=fix)
    end = metadata.get("tokenizer.ggml.eos_token_id")
    if type(end) is not int or not 0 <= end < len(tokens):
        raise InputError("its tokenizer names no token that ends a text", where=where, fix=fix)
    tokenizer = byte_level(vocabulary, checked_merges(merges, path), path, tokens[end])
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (CONTROL, USER_DEFINED):
            tokenizer.add_tokens(AddedToken(token, normalized=False, special=kind == CONTROL))
    for name, key in (("unk_token", "unknown"), ("pad_token", "padding")):
        id = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if type(id) is int and 0 <= id < len(tokens):
            setattr(tokenizer, name, tokens[id])
    return tokenizer


IMPORTER = Importer(matches, read, tokenizer=tokenizer, open_source=open_source)
EXPORTER = Exporter(write, open_peer, refuse, ROUNDING)
