"""Texts that a model writes while one unit is held at some value, as `gptkit generate --steer` does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gptkit.decoding.engines import choose_engine
from gptkit.decoding.text_model import TextModel
from gptkit.decoding.text_options import TextModelOptions
from gptkit.options import DeviceName

TOKENS, TOP_K, COUNT = 60, 40, 2


class Sample(NamedTuple):
    steer: str
    value: float
    texts: tuple[str, ...]


def steered_sample(directory: Path, layer: int, unit: int, value: float, *, seed: int, device: DeviceName) -> Sample:
    """Return unconditional samples, the same random numbers for every value."""
    steer = f"{layer}.{unit}={value:g}"
    shared = {"max_new_tokens": TOKENS, "top_k": TOP_K, "num_samples": COUNT, "seed": seed, "device": device}
    options = TextModelOptions(steer=steer, compile="off", **shared)  # type: ignore[arg-type]
    model = TextModel(directory, options, choose_engine(directory, options, tokens=COUNT * TOKENS))
    generation = model.generate([model.read(None, options)] * COUNT, range(COUNT), options, live=False)
    for _ in generation:
        pass
    return Sample(steer, value, tuple(draft.continuation.text for draft in generation.drafts))
