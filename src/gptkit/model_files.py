"""The files of a model, read without torch or transformers: directories, config.json, weight files and tensor names.

No `from __future__ import annotations` here: `strict` reads the field types as objects, not as strings.
"""

import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from gptkit.errors import InputError, UsageError, nearest, suggest
from gptkit.recipes import recipes_of
from gptkit.system import hub
from gptkit.system.reading import read_json_object, require_regular
from gptkit.system.run_layout import WEIGHTS, described_in, did_you_mean, is_committed

# --- directories ---

# What convert reads besides safetensors.
CONVERTIBLE = re.compile(r".*\.ckpt\.index|ckpt\.pt|(pytorch_)?model.*\.bin|params_shapes\.json|.*\.gguf")
TORCH_SUFFIXES = (".pt", ".pth")
SNAPSHOT_FILES = ["*.json", "*.safetensors", "*.txt", "*.bpe", "task.yaml"]  # never code, never pickles


def model_presets() -> dict[str, Path]:
    """Return the presets by name: the config.json files in recipes/models."""
    return recipes_of("models")


def shape_file(model: str) -> Path:
    """Return the config.json of a preset, or that `model` itself is; UsageError if it is neither."""
    presets = model_presets()
    path = presets.get(model, Path(model))
    if not path.is_file():
        message = f"{model!r} is neither a preset nor a config.json"
        fix = None if nearest(model, presets) else did_you_mean(path)
        raise UsageError(message, where="--model", fix=fix or suggest(model, presets))
    refuse_other_formats(path)
    return path


def model_directory(model: str | Path) -> Path:
    """Return the `source_directory` of a model; InputError if its weights must be converted first."""
    directory = source_directory(model)
    refuse_other_formats(directory)
    return directory


def source_directory(model: str | Path) -> Path:
    """Return the directory that holds a model: `model` itself, model/ in a run, or the snapshot of hf:NAME."""
    if str(model).startswith("hf:"):
        snapshot = hub.snapshot(str(model), SNAPSHOT_FILES, what="the hub model")
        if not any(snapshot.glob("*.safetensors")):
            name = str(model).removeprefix("hf:")
            fix = f"hf download {name} --local-dir downloaded, then gptkit convert downloaded converted"
            raise InputError("the hub model has no safetensors", where=str(model), fix=fix)
        return snapshot
    path = Path(model)
    if not (path / "config.json").exists() and (path / "model" / "config.json").exists():
        return path / "model"  # a run directory
    if path.is_dir():
        return path
    if path.is_file():
        refuse_other_formats(path)
        fix = "pass the directory of a saved model"
        raise InputError("this is a file, not a model directory", where=str(path), fix=fix)
    if str(model) in model_presets():
        fix = f"gptkit pretrain --model {model} trains one; pass its run directory"
        raise UsageError(f"{model} is a preset: a shape without weights", where="--model", fix=fix)
    fix = did_you_mean(path) or "check the path, or write hf:NAME for the hub"
    raise InputError("no such model directory", where=str(path), fix=fix)


def refuse_other_formats(path: Path) -> None:
    """Raise InputError for a weight file that is not safetensors, or a directory with only such files."""
    is_directory = path.is_dir()
    names = sorted(file.name for file in path.iterdir()) if is_directory else [path.name]
    if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
        return
    for name in names:
        if CONVERTIBLE.fullmatch(name) or (path.suffix in TORCH_SUFFIXES and not is_directory):
            source = path if is_directory or path.suffix in (*TORCH_SUFFIXES, ".gguf") else path.parent
            fix = f"gptkit convert {shlex.quote(str(source))} converted; then pass --model converted"
            raise InputError(f"{name} is not safetensors, which --model takes", where=str(path), fix=fix)


# --- config.json ---

GPT, LSTM, MASKED = "gptkit", "gptkit-lstm", "gptkit-masked"  # our model types
Activation = Literal["gelu_new", "gelu"]
Format = Literal["classification", "entailment", "similarity", "multiple-choice"]
Features = Literal["none", "last", "mix"]
Pooling = Literal["extract", "concat"]

MARKER_FIELDS = ("start_token_id", "delimiter_token_id", "extract_token_id")
# The fields of a fine-tuned model's config.json that a language model's lacks; `id2label` is transformers' own.
HEAD_FIELDS = ("task", "format", *MARKER_FIELDS, "classifier_dropout", "features", "head")
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Keys without effect on the model: its type is known by then, whoever loads the weights chooses their dtype, and
# `source` is where a preset says where its sizes come from.
SILENT_KEYS = frozenset({"model_type", "dtype", "source"})
# Keys that transformers adds on saving. Its other switches, which change what a forward pass returns, are refused.
TRANSFORMERS_TYPES: dict[str, Any] = {
    "architectures": list[str] | None,
    "transformers_version": str | None,
    "id2label": dict[str, str],
    "label2id": dict[str, int],
    "problem_type": type(None),
}


@dataclass(kw_only=True)
class GPTShape:
    """The sizes of a GPT and the other fields of its config.json, by default GPT-2's; GPTConfig says what they mean."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    pre_norm: bool = True
    activation_function: Activation = "gelu_new"
    embd_pdrop: float | int = 0.1
    attn_pdrop: float | int = 0.1
    resid_pdrop: float | int = 0.1
    layer_norm_epsilon: float | int = 1e-5
    initializer_range: float | int = 0.02
    position_initializer_range: float | int | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    task: str | None = None
    format: Format | None = None
    start_token_id: int | None = None
    delimiter_token_id: int | None = None
    extract_token_id: int | None = None
    classifier_dropout: float | int = 0.1
    features: Features = "none"
    head: Pooling = "extract"

    @property
    def inner_width(self) -> int:
        """The hidden width of the MLP."""
        return self.n_inner or 4 * self.n_embd

    @property
    def classifier_width(self) -> int:
        """The width of what a fine-tuned model's classifier reads: one state, or three that are concatenated."""
        return self.n_embd * (3 if self.head == "concat" else 1)

    def validate_sizes(self) -> None:
        """Raise ValueError for sizes that no model can have."""
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")

    def validate_rates(self) -> None:
        """Raise ValueError for dropout probabilities outside [0, 1) and for scales that are not positive."""
        for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("layer_norm_epsilon", "initializer_range", "position_initializer_range"):
            scale = getattr(self, name)
            if scale is not None and not 0 < scale <= sys.float_info.max:
                raise ValueError(f"{name} must be positive and finite, got {scale}")

    def validate_head(self) -> None:
        """Raise ValueError if a model with a task format lacks three different marker ids in its vocabulary."""
        if self.format is None:
            return
        markers = [getattr(self, name) for name in MARKER_FIELDS]
        for name, marker in zip(MARKER_FIELDS, markers, strict=True):
            if marker is None or not 0 <= marker < self.vocab_size:
                raise ValueError(f"{name} must be an id below vocab_size ({self.vocab_size}), got {marker}")
        if len(set(markers)) < len(markers):
            raise ValueError("start_token_id, delimiter_token_id and extract_token_id must differ")


OWN_KEYS = frozenset(field.name for field in fields(GPTShape))


def model_type(raw: Mapping[str, Any]) -> str:
    """Return the model type of a config.json, which is ours if it names none."""
    return str(raw.get("model_type", GPT))


def ids_outside(raw: Mapping[str, Any], vocab_size: Any) -> Iterator[tuple[str, int]]:
    """Yield the special tokens (key, id) outside the vocabulary."""
    for key in SPECIAL_IDS:
        ids = raw.get(key)
        for id in ids if isinstance(ids, list) else [ids]:
            if isinstance(id, int) and isinstance(vocab_size, int) and not 0 <= id < vocab_size:
                yield key, id


# --- config.json of transformers' gpt2 and openai-gpt ---

GELUS: dict[str, Activation] = {"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu"}
GPT2_SWITCHES = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
OPENAI_GPT_GELU = "gelu"  # which openai-gpt computes in the tanh form
SHARED_KEYS = OWN_KEYS - {  # keys with the same name and meaning in theirs
    *("n_inner", "pre_norm", "activation_function", "position_initializer_range", "use_cache"),
    *HEAD_FIELDS,
}


def translated(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the GPTShape fields that a gpt2 or openai-gpt config expresses by other keys.

    InputError for a setting that gptkit does not support, KeyError if the activation is missing.
    """
    if model_type(values) == "openai-gpt":
        if values["afn"] != OPENAI_GPT_GELU:
            raise unfit(f"gptkit does not support afn {values['afn']!r}", where)
        return {"pre_norm": False}
    for key, needed in GPT2_SWITCHES.items():
        if values.get(key, needed) is not needed:
            raise unfit(f"gptkit does not support {key} = {str(not needed).lower()}", where)
    activation = values["activation_function"]
    if activation not in GELUS:
        raise unfit(f"gptkit does not support activation_function {activation!r}", where)
    return {"n_inner": values.get("n_inner"), "activation_function": GELUS[activation]}


def unfit(message: str, where: str = "config.json") -> InputError:
    """Return the error for a model of one family that the other cannot express."""
    return InputError(message, where=where, fix="use another model")


# --- weight files ---

SAFETENSORS, PYTORCH_BIN = "model.safetensors", "pytorch_model.bin"
ADAPTER_SETTINGS = "adapter_config.json"  # PEFT's
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
LARGEST_HEADER = 1_000_000  # bytes; a thousand tensors take about a hundred thousand


def model_files(directory: Path) -> list[Path]:
    """Return config.json and the weight files; no other file in the directory belongs to the model."""
    config = described_in(directory) / "config.json"
    require_regular(config, "copy the whole directory")
    return [config, *weight_files(directory)]


def weight_files(directory: Path) -> list[Path]:
    """Return model.safetensors, or its shards or row parts; InputError if there is none, or only pickles."""
    files = files_named(directory, SAFETENSORS) or row_parts(directory)
    for file in files:
        require_header(file)
    if files:
        return files
    pickles = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if pickles:
        message = f"{pickles[0]} is a pickle, which can run code; gptkit loads safetensors only"
        raise InputError(message, where=str(directory), fix="save the model as safetensors (save_pretrained does)")
    fix = "pass a directory that holds a saved model; for an export to another program, the model that it was made from"
    raise InputError("no model.safetensors in this directory", where=str(directory), fix=fix)


def require_header(file: Path) -> None:
    """Raise InputError for a safetensors file whose header is so long that parsing it could exhaust the memory."""
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
    if length > LARGEST_HEADER:
        raise InputError(f"damaged: a header of {length:,} bytes", where=str(file), fix="copy the file again")


def files_named(directory: Path, name: str) -> list[Path]:
    """Return the regular file of that name, or the shards that its index lists; empty if there is neither."""
    files = [directory / name] if (directory / name).exists() else _shards(directory / f"{name}.index.json")
    for file in files:
        require_regular(file, "copy the whole directory")
    return files


def _shards(index: Path) -> list[Path]:
    if not index.exists():
        return []
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    shards = read_json_object(index).get("weight_map")
    if not shards or not isinstance(shards, dict):
        message = "the index has no weight_map that names the shards"
        raise InputError(message, where=str(index), fix="copy the whole directory")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name or "\\" in name or not name.isprintable() or not name.endswith(suffix):
            message = f"{name!r} is not the name of a {suffix} file in this directory"
            raise InputError(message, where=str(index), fix="correct it")
    return [index.parent / name for name in names]


def row_parts(directory: Path) -> list[Path]:
    """Return the weight files of a multi-process checkpoint, each with some rows of every tensor, in order; else []."""
    found = directory.glob(f"{WEIGHTS}-*-of-*.safetensors") if is_committed(directory) else ()
    return sorted(file for file in found if file.is_file())


def not_finite(what: str, where: str = "--model") -> InputError:
    """Return the error for NaN or infinity in weights, or in what was computed from them."""
    fix = "the weights are damaged, or training diverged: use another model"
    return InputError(f"{what} not finite", where=where, fix=fix)


# --- tensors: our names and shapes, and the names in transformers' gpt2 and openai-gpt ---

LAYER = re.compile(r"transformer\.h\.(\d+)\.")
MATRIX = re.compile(r"\.(attn|mlp)\.(c_attn|c_fc|c_proj)\.weight$")  # theirs are (in, out)
BUFFER = re.compile(r"\.attn\.(bias|masked_bias)$")  # causal masks that older versions saved
EMBEDDINGS = {"transformer.tokens_embed.": "transformer.wte.", "transformer.positions_embed.": "transformer.wpe."}
MISFIT_FIX = "use the config.json and the weights of the same model"


def own_name(theirs: str) -> str | None:
    """Return our name of one of their tensors, with or without the `transformer.` prefix; None for a buffer."""
    if BUFFER.search(theirs):
        return None
    name = theirs if theirs.startswith(("transformer.", "lm_head.")) else f"transformer.{theirs}"
    for foreign, own in EMBEDDINGS.items():
        name = name.replace(foreign, own)
    return name


def tensor_shapes(shape: GPTShape, names: Collection[str], where: str) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of GPTForCausalLM's state dict, in its order; matrices are (out, in).

    InputError if the tensor `names` of the weights have another number of layers, before listing an absurd n_layer.
    """
    _require_layers(shape, names, where)
    width = shape.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (shape.vocab_size, width),
        "transformer.wpe.weight": (shape.n_positions, width),
    }
    for layer in range(shape.n_layer):
        for name, rows, columns in (
            ("ln_1", width, ()),
            ("attn.c_attn", 3 * width, (width,)),
            ("attn.c_proj", width, (width,)),
            ("ln_2", width, ()),
            ("mlp.c_fc", shape.inner_width, (width,)),
            ("mlp.c_proj", width, (shape.inner_width,)),
        ):
            shapes[f"transformer.h.{layer}.{name}.weight"] = (rows, *columns)
            shapes[f"transformer.h.{layer}.{name}.bias"] = (rows,)
    if shape.pre_norm:
        shapes |= {"transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,)}
    return shapes | {"lm_head.weight": (shape.vocab_size, width)}


def lstm_tensor_shapes(shape: GPTShape, names: Collection[str], where: str) -> dict[str, tuple[int, ...]]:
    """Return the same of LSTMForCausalLM's state dict; each of torch's matrices holds the four gates' rows."""
    _require_layers(shape, names, where)
    width, units = shape.n_embd, shape.inner_width
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (shape.vocab_size, width)}
    for layer in range(shape.n_layer):
        columns_of = {"weight_ih": (units if layer else width,), "weight_hh": (units,), "bias_ih": (), "bias_hh": ()}
        for name, columns in columns_of.items():
            shapes[f"transformer.h.{layer}.lstm.{name}_l0"] = (4 * units, *columns)
    shapes |= {"transformer.projection.weight": (width, units), "transformer.projection.bias": (width,)}
    return shapes | {"lm_head.weight": (shape.vocab_size, width)}


def _require_layers(shape: GPTShape, names: Collection[str], where: str) -> None:
    layers = len({match[1] for name in names if (match := LAYER.match(name))})
    if layers != shape.n_layer:
        message = f"n_layer is {shape.n_layer:,}, but the file has {layers:,} layers"
        raise InputError(message, where=where, fix=MISFIT_FIX)
