"""States of a frozen model at the last token of every sequence, computed once and cached on disk.

`gptkit probe` and `gptkit finetune --features` read them; the model does not change, so whoever asks again for the same
model, sequences and sites gets the same files. A file holds the states of one site, (sequence, width) in fp32, and is
read as it is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gptkit.model.modeling_gpt import GPTBlock, GPTForCausalLM
from gptkit.model_files import not_finite
from gptkit.system.cache import cache_path, cached_files
from gptkit.system.files import HashedFile
from gptkit.tasks.encoding import EncodedExamples

Floats = NDArray[np.float32]
AT_ONCE = 512  # sequences between two writes, in their order
TOKENS = 4096  # per forward pass, padding included
FORMAT = 1  # of the cached files


class Site(NamedTuple):
    """A place of the model: the residual stream after a block, or the hidden units of its MLP, after the activation.

    `embedding` is what enters the first block, `final` what the heads read; their layer is 0.
    """

    layer: int
    name: Literal["residual", "mlp", "embedding", "final"]


def frozen_states(
    model: GPTForCausalLM,
    examples: EncodedExamples,
    sites: Sequence[Site],
    *,
    fingerprint: str,
    reached: Callable[[int], object] = lambda done: None,
) -> dict[Site, Floats]:
    """Return the states of a model in eval mode at the last token of each sequence, by site, (sequence, width).

    `fingerprint` tells models apart, as `fingerprint_of` does. `reached` is called with the number of examples done.
    """
    digest = hashlib.sha256(examples.ids.tobytes() + examples.offsets.tobytes()).hexdigest()
    key = (FORMAT, fingerprint, digest, model.device.type, str(torch.__version__))
    paths = [cache_path("states", f".{site.layer}.{site.name}", *key, *site) for site in sites]
    count, row_bytes = len(examples.offsets) - 1, 4 * sum(width_of(model, site) for site in sites)

    def write(files: list[HashedFile]) -> list[dict[str, Any]]:
        for start in range(0, len(examples), AT_ONCE):
            end = min(start + AT_ONCE, len(examples))
            for file, states in zip(files, _states(model, examples, start, end, sites), strict=True):
                file.write(states.tobytes())
            reached(end)
        return [{} for _ in files]

    cached_files(paths, write, need=lambda files: count * row_bytes)
    reached(len(examples))
    return {site: _mapped(path, count, width_of(model, site)) for site, path in zip(sites, paths, strict=True)}


def fingerprint_of(model: GPTForCausalLM) -> str:
    """Return the hash of everything in a model that its states depend on."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for tensor in model.transformer.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def layers_of(model: GPTForCausalLM) -> list[Site]:
    """Return the embeddings' output and each layer's, the last one as the heads read it."""
    between = [Site(layer, "residual") for layer in range(model.config.n_layer - 1)]
    return [Site(0, "embedding"), *between, Site(0, "final")]


def width_of(model: GPTForCausalLM, site: Site) -> int:
    return int(model.config.inner_width if site.name == "mlp" else model.config.n_embd)


def running_states(model: GPTForCausalLM, ids: Sequence[int], sites: Sequence[Site]) -> list[Floats]:
    """Return the states at every token of one sequence, by site, (position, width)."""
    return [states[0] for states in _forward(model, torch.tensor([list(ids)]), sites)]


def _states(
    model: GPTForCausalLM, examples: EncodedExamples, start: int, end: int, sites: Sequence[Site]
) -> list[Floats]:
    """Return the states of the sequences of some examples, in their order; those of like length go together."""
    each = examples.sequences_per_example
    rows = [np.empty(((end - start) * each, width_of(model, site)), np.float32) for site in sites]
    for _, indices in examples.cut_by_length(np.arange(start, end), end - start, TOKENS):
        batch = examples.select(indices)
        ids = torch.from_numpy(batch["input_ids"]).flatten(0, 1)
        found = _forward(model, ids, sites, torch.from_numpy(batch["extract"]).flatten())
        places = ((indices - start)[:, None] * each + np.arange(each)).ravel()
        for states, own in zip(rows, found, strict=True):
            states[places] = own
    if not all(np.isfinite(states).all() for states in rows):
        raise not_finite("the model's states are")
    return rows


@torch.no_grad()
def _forward(model: GPTForCausalLM, ids: Tensor, sites: Sequence[Site], last: Tensor | None = None) -> list[Floats]:
    """Return the states, by site, of ids (sequence, length) at every position, or only at the positions `last`."""
    found: dict[Site, Tensor] = {}

    def hook_of(site: Site) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[site] = (output if last is None else output[range(len(last)), last]).float()

        return hook

    hooks = [_module(model, site).register_forward_hook(hook_of(site)) for site in sites]
    try:
        model.transformer(input_ids=ids.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [found[site].cpu().numpy() for site in sites]


def _module(model: GPTForCausalLM, site: Site) -> nn.Module:
    if site.name in ("embedding", "final"):
        return model.transformer.drop if site.name == "embedding" else model.transformer.ln_f
    block = cast("GPTBlock", model.transformer.h[site.layer])
    return block if site.name == "residual" else block.mlp.act


def _mapped(path: Path, count: int, width: int) -> Floats:
    return np.memmap(path, np.float32, "r", shape=(count, width))
