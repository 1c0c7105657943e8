"""What the tensors of a model are called: by us, and by transformers' gpt2 and openai-gpt."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gptkit.model_files.sizes import Sizes

MATRIX = re.compile(r"\.(attn|mlp)\.(c_attn|c_fc|c_proj)\.weight$")
LAYER = re.compile(r"transformer\.h\.(\d+)\.")
BUFFER = re.compile(r"\.attn\.(bias|masked_bias)$")  # causal masks that older versions saved
EMBEDDINGS = {"transformer.tokens_embed.": "transformer.wte.", "transformer.positions_embed.": "transformer.wpe."}


def own_name(theirs: str) -> str | None:
    """Return our name of a tensor of theirs, saved with or without the `transformer.` prefix; None for a buffer."""
    if BUFFER.search(theirs):
        return None
    name = theirs if theirs.startswith(("transformer.", "lm_head.")) else f"transformer.{theirs}"
    for foreign, own in EMBEDDINGS.items():
        name = name.replace(foreign, own)
    return name


def tensor_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of GPTForCausalLM's state dict, in its order; matrices are (out, in)."""
    width = sizes.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (sizes.vocab_size, width),
        "transformer.wpe.weight": (sizes.n_positions, width),
    }
    for layer in range(sizes.n_layer):
        shapes |= {f"transformer.h.{layer}.{name}": shape for name, shape in _layer_shapes(width, sizes.n_inner)}
    if sizes.pre_norm:
        shapes |= {"transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,)}
    return shapes | {"lm_head.weight": (sizes.vocab_size, width)}


def _layer_shapes(width: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, rows, columns in (
        ("ln_1", width, None),
        ("attn.c_attn", 3 * width, width),
        ("attn.c_proj", width, width),
        ("ln_2", width, None),
        ("mlp.c_fc", inner, width),
        ("mlp.c_proj", width, inner),
    ):
        yield f"{name}.weight", (rows,) if columns is None else (rows, columns)
        yield f"{name}.bias", (rows,)
