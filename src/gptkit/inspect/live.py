"""A copy of the model that runs inside the page: its weights in 8 bits, and its tokenizer as the scripts need it.

Each row of a matrix is stored as codes q from -127 to 127 and one scale: weight = scale x q. Layer norms and biases
stay in f32. What the page computes is this copy, which `as_stored` builds for comparison.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, models, normalizers

from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.system.writing import json_text
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer, separator_id
from gptkit.text.tokenizers.kinds import is_byte_level, is_char
from gptkit.text.tokenizers.shown import pieces_of, visible

MOST_CHARACTERS = 7_000_000  # of the weights in base64 and the tokenizer, of a page of at most 8 MB
LAST_CLASSIFIED = 0x3FFFF  # no letter, number or white space has a code point beyond
CODES = 127
CLASSES = {"letters": r"\P{L}+", "numbers": r"\P{N}+", "spaces": r"\S+"}  # everything but the class
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Live:
    """What the page's scripts need to run the model; `matrices` are (codes (row, column), scale (row,)) by name."""

    config: dict[str, Any]
    matrices: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]
    vectors: dict[str, NDArray[np.float32]]
    tokenizer: dict[str, Any]


def live_of(model: GPTForCausalLM, tokenizer: AnyTokenizer) -> Live | str:
    """Return the copy of a model, or why it cannot run inside the page."""
    if hasattr(tokenizer, "encode_text"):
        return "GPT-1's tokenizer cleans texts with ftfy and spaCy, which no browser has"
    if not is_char(tokenizer) and not _is_plain_byte_level(tokenizer):
        return "the page can run GPT-2's byte-level BPE and tokenizers of characters, not this model's"
    characters = model.num_parameters() * 4 // 3
    if characters <= MOST_CHARACTERS:
        described = _tokenizer(tokenizer, model.config.vocab_size)
        characters += len(json_text(described, separators=(",", ":")))
    if characters > MOST_CHARACTERS:
        return f"it would take {characters / 1e6:.1f} MB of the page, of at most {MOST_CHARACTERS / 1e6:.0f} MB"
    config = model.config
    parts = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "pre_norm", "activation_function")
    state = {name.removeprefix("transformer."): tensor for name, tensor in model.named_parameters()}
    stored = {name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()}
    return Live(
        config={name: getattr(config, name) for name in (*parts, "layer_norm_epsilon")},
        matrices={name: quantized(values) for name, values in stored.items() if values.ndim == 2},
        vectors={name: values for name, values in stored.items() if values.ndim == 1},
        tokenizer=described,
    )


def quantized(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the codes (row, column) and scales (row,) of a matrix."""
    scale = np.abs(matrix).max(axis=1) / np.float32(CODES)
    steps = np.divide(matrix, scale[:, None], out=np.zeros_like(matrix), where=scale[:, None] > 0)
    return np.rint(steps).astype(np.int8), scale


def as_stored(model: GPTForCausalLM, live: Live) -> GPTForCausalLM:
    """Return a model with the weights that the page has."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if (found := live.matrices.get(name.removeprefix("transformer."))) is not None:
                codes, scale = found
                parameter.copy_(torch.from_numpy(codes * scale[:, None]))
    return copied


def _is_plain_byte_level(tokenizer: Any) -> bool:
    """Return whether pieces are merged as GPT-2 does, with no tokens that are recognized before that."""
    if not is_byte_level(tokenizer):
        return False
    backend = tokenizer.backend_tokenizer
    model: models.BPE = backend.model
    options = (model.dropout, model.continuing_subword_prefix, model.end_of_word_suffix, model.ignore_merges)
    return not any(options) and all(token.special for token in backend.get_added_tokens_decoder().values())


def _tokenizer(tokenizer: Any, vocab_size: int) -> dict[str, Any]:
    """Return what encodes and decodes: entries by id, what each shows, and merges (id, id) in their order or null."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    tokens = {id: token for token, id in vocabulary.items()}
    ids = range(vocab_size)
    shown = [visible(pieces_of(tokenizer, [id])[0]) if id in tokens else f"<{id}>" for id in ids]
    encoding: dict[str, Any] = {"unknown": tokenizer.unk_token_id}
    if not is_char(tokenizer):
        merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
        encoding = {"merges": [[vocabulary[first], vocabulary[second]] for first, second in pairs], **_classes()}
    return {
        "tokens": [tokens.get(id) for id in ids],
        "shown": shown,
        "special": sorted(tokenizer.all_special_ids),
        "separator": separator_id(tokenizer),
        **encoding,
    }


def _classes() -> dict[str, list[int]]:
    """Return the letters, numbers and white space of the tokenizers library, whose Unicode may not be a browser's.

    Each is a list of ranges: the first code point of one, its length, the distance to the next one, and so on.
    """
    every = "".join(chr(point) for point in range(LAST_CLASSIFIED + 1) if not 0xD800 <= point < 0xE000)
    found = {}
    for name, others in CLASSES.items():
        points = np.array([*map(ord, normalizers.Replace(Regex(others), "").normalize_str(every))])
        is_first, is_last = np.diff(points, prepend=-2) != 1, np.diff(points, append=points[-1] + 2) != 1
        ends = np.stack([points[is_first], points[is_last] + 1], axis=1).ravel()
        found[name] = np.diff(ends, prepend=0).tolist()
    return found
