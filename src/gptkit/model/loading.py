"""Loads and saves models: whatever `--model` names (a preset, a config.json, a directory, hf:NAME).

Weights are read only from safetensors. Ours store matrices as (out, in), like nn.Linear; transformers' gpt2 and
openai-gpt as (in, out), like Conv1D. Names are mapped here: `from_pretrained(key_mapping=...)` would undo it on saving.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gptkit.errors import InputError
from gptkit.model.configuration_gpt import GPTConfig, parse_config, quiet_transformers, read_config
from gptkit.model.model_types import MODEL_TYPES, require_type
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTPreTrainedModel
from gptkit.model_files import (
    GPT,
    MATRIX,
    MISFIT_FIX,
    model_directory,
    model_presets,
    model_type,
    not_finite,
    own_name,
    row_parts,
    shape_file,
    weight_files,
)
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in
from gptkit.text.tokenizers.any_tokenizer import separator_id

State = dict[str, Tensor]
Reader = Callable[[Path], State]
Head = type[GPTPreTrainedModel]
Model = TypeVar("Model", bound=GPTPreTrainedModel)
Types = frozenset[str]  # model types
ORDINARY = frozenset({GPT})


def config_from(model: str, *, vocab_size: int) -> GPTConfig:
    """Return the configuration of a preset or of a config.json, for a tokenizer of `vocab_size` entries.

    A preset, or a file without vocab_size, takes the tokenizer's size. A file's own vocab_size is kept. Raises
    InputError if it is smaller than the tokenizer's or a key is unknown, UsageError if `model` is neither.
    """
    path = shape_file(model)
    raw = read_json_object(path)
    if model in model_presets() or "vocab_size" not in raw:
        raw["vocab_size"] = vocab_size
    config = parse_config(raw, str(path))
    if config.vocab_size < vocab_size:
        message = f"vocab_size {config.vocab_size:,} is smaller than the tokenizer's {vocab_size:,}"
        raise InputError(message, where=str(path), fix=f"set vocab_size to {vocab_size} or more")
    return config


@overload
def load_model(model: str | Path, *, dtype: torch.dtype = ..., types: Types = ...) -> GPTForCausalLM: ...
@overload
def load_model(model: str | Path, *, dtype: torch.dtype = ..., head: type[Model], types: Types = ...) -> Model: ...
def load_model(
    model: str | Path, *, dtype: torch.dtype = torch.float32, head: Head = GPTForCausalLM, types: Types = ORDINARY
) -> GPTPreTrainedModel:
    """Load a directory of ours, one of transformers' gpt2 or openai-gpt, or hf:NAME; return the model in eval mode.

    Weights are read only from safetensors and converted to `dtype`. A GPTForCausalLM also loads from a fine-tuned
    model; a GPTDoubleHeadsModel loads only from one; of another of the `types`, it is that type's class. Raises
    InputError for anything else.
    """
    return build_model(*read_directory(model_directory(model), head, types=types), dtype, head)


def weights_sha256(directory: Path) -> str:
    """Return the sha256 of a model directory's weight files, in order of name."""
    digest = hashlib.sha256()
    for path in weight_files(directory):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def saved_head(directory: Path) -> Head:
    """Return the model class that a directory's config.json names."""
    config = read_config(described_in(directory) / "config.json")
    tuned = MODEL_TYPES[config.model_type].double_heads.__name__
    is_tuned = config.format is not None and tuned in (config.architectures or [])
    return GPTDoubleHeadsModel if is_tuned else GPTForCausalLM


def read_directory(
    directory: Path, head: Head = GPTForCausalLM, read: Reader | None = None, types: Types = ORDINARY
) -> tuple[GPTConfig, State]:
    """Return the configuration and tensors of a model directory: ours, or transformers' gpt2 or openai-gpt.

    `read` returns the tensors, by default from safetensors. The tensors are exactly those of `head`: for a
    GPTForCausalLM, a fine-tuned model's classifier and task are dropped. InputError for a model of none of the `types`.
    """
    description = described_in(directory) / "config.json"
    raw = read_json_object(description)
    config = parse_config(raw, str(description))
    require_type(config.model_type, types, str(directory))
    if head is GPTDoubleHeadsModel and saved_head(directory) is not head:
        fix = f"fine-tune it first: gptkit finetune --task demo-classification --model {shlex.quote(str(directory))}"
        raise InputError("this model was not fine-tuned on a task", where=str(directory), fix=fix)
    state = (read or read_safetensors)(directory)
    if model_type(raw) not in MODEL_TYPES:
        state = {own: transposed(own, tensor) for name, tensor in state.items() if (own := own_name(name))}
    if head is GPTForCausalLM and config.format is not None:
        config = config.without_head()
        state = {name: tensor for name, tensor in state.items() if not name.startswith(("score.", "mix."))}
    return config, checked(config, state, str(directory), head, copy=not row_parts(directory))


def read_safetensors(directory: Path) -> State:
    """Return all tensors of model.safetensors or of its shards, memory-mapped and not yet read.

    A sharded checkpoint's rows, one file per process, are concatenated. Raises InputError for pickles, which can run
    code.
    """
    files = weight_files(directory)
    if row_parts(directory):
        found = [load_safetensors(file) for file in files]
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}
    return read_shards(files, load_safetensors)


def read_shards(files: Sequence[Path], read: Callable[[Path], State]) -> State:
    """Return the tensors of all files; InputError for one that is in two of them."""
    state: State = {}
    for file in files:
        found = read(file)
        if twice := sorted(state.keys() & found.keys()):
            message = f"tensor {twice[0]} is in another shard too"
            raise InputError(message, where=str(file), fix="copy the whole directory")
        state |= found
    return state


def load_safetensors(file: Path) -> State:
    """Return the tensors of a file whose header `require_header` accepts, memory-mapped and not yet read."""
    try:
        return load_file(file)
    except SafetensorError as error:
        raise InputError(f"damaged: {error}", where=str(file), fix="copy the file again") from None
    except OSError as error:
        reason = error.strerror or "no such file"
        raise InputError(f"cannot be read: {reason}", where=str(file), fix="copy the whole directory") from None
    except RuntimeError:  # torch raises it when mmap fails
        size = file.stat().st_size
        message = f"the file's {size:,} bytes do not fit into memory"
        raise InputError(message, where=str(file), fix="free memory, or copy the file again") from None


def checked(config: GPTConfig, state: State, where: str, head: Head = GPTForCausalLM, *, copy: bool = True) -> State:
    """Return a copy of `state` with the tied head's weight; InputError if a tensor is missing, unknown or damaged.

    A copy, because reading a mapped tensor whose file was truncated would kill the process; without `copy` the caller
    makes it, or has made it.
    """
    if config.tie_word_embeddings and "transformer.wte.weight" in state:
        state = {**state, "lm_head.weight": state["transformer.wte.weight"]}
    # From the config: a model of absurd size could not be built.
    expected = MODEL_TYPES[config.model_type].tensor_shapes(config, state, where)
    if head is GPTDoubleHeadsModel:
        outputs = config.num_labels or 1
        expected |= {"score.weight": (outputs, config.classifier_width), "score.bias": (outputs,)}
        if config.features == "mix":
            expected |= {"mix.scalars": (config.n_layer + 1,), "mix.gamma": (1,)}
    for name, shape in expected.items():
        if name not in state:
            raise InputError(f"tensor {name} is missing", where=where, fix=MISFIT_FIX)
        if state[name].shape != shape:
            message = f"tensor {name} has shape {tuple(state[name].shape)}, not {shape}"
            raise InputError(message, where=where, fix=MISFIT_FIX)
        if not state[name].is_floating_point():
            message = f"tensor {name} holds {str(state[name].dtype).removeprefix('torch.')}, not floating-point weights"
            raise InputError(message, where=where, fix="pass the model before quantization")
    for name in state.keys() - expected.keys():
        raise InputError(f"tensor {name} has no place in {head.__name__}", where=where, fix=MISFIT_FIX)
    for name, tensor in state.items():  # checked here because not every result would show a NaN in the weights
        numbers = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # fp8 has few operations
        if not all(bool(extreme.isfinite()) for extreme in numbers.aminmax()):  # allocates nothing
            raise not_finite(f"tensor {name} is", where)
    if not copy:
        return state
    copies = {id(tensor): tensor.clone(memory_format=torch.contiguous_format) for tensor in state.values()}
    return {name: copies[id(tensor)] for name, tensor in state.items()}


def transposed(name: str, tensor: Tensor) -> Tensor:
    """Return a weight matrix transposed, and any other tensor unchanged."""
    return tensor.t() if MATRIX.search(name) and tensor.ndim == 2 else tensor


def save_model(model: PreTrainedModel, directory: Path) -> None:
    """Write config.json and weights for `load_model` and, after `import gptkit.model`, the Auto classes."""
    with quiet_transformers():
        model.save_pretrained(directory)
    for weights in directory.glob("*.safetensors"):  # safetensors makes them readable only by their owner
        shutil.copymode(directory / "config.json", weights)


def build_model(config: GPTConfig, state: State, dtype: torch.dtype, head: type[Model]) -> Model:
    """Return a model with these weights, in eval mode: `head`, or what it is for the configuration's type."""
    with quiet_transformers():
        return class_of(config, head).from_pretrained(None, config=config, state_dict=state, dtype=dtype)


def class_of(config: GPTConfig, head: type[Model]) -> type[Model]:
    """Return the class of the configuration's type that corresponds to a GPT's `head`."""
    own = MODEL_TYPES[config.model_type]
    classes: Any = {GPTForCausalLM: own.language_model, GPTDoubleHeadsModel: own.double_heads}
    return classes[head]  # type: ignore[no-any-return]


def set_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set bos and eos to the token that separates documents, so that `model.generate` starts and stops there.

    pad is the tokenizer's own, if any. Raises InputError when the tokenizer has no separator.
    """
    separator = separator_id(tokenizer)
    configs: list[Any] = [model.config, model.generation_config] if model.can_generate() else [model.config]
    for config in configs:
        config.bos_token_id = config.eos_token_id = separator
        config.pad_token_id = tokenizer.pad_token_id
