"""Generation with other presets than GPT-2's beside their limit: one text, random weights, two threads.

    python benchmarks/generate_presets.py [--rounds 5] [--tokens 128]

gpt1 normalizes after each sublayer; the weights of laptop fit the processor's caches, and so the limit is the speed of
reading as many bytes again and again. Formats take turns; the claim is the median of the rounds' shares.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from generation_peers import GPTKIT, THREADS, gptkit, memory
from side_by_side import spread

PRESETS = ("gpt1", "laptop")
LAPTOP_VOCABULARY = 8192  # of its recipe
FORMATS = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5 + 2 / 32}  # bytes a weight
ASKED = {"fp32": 0.9, "bf16": 0.9, "int8": 0.75, "int4": 0.6}  # of the limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    print(
        "| preset | weights | tokens/s: median (lowest to highest) | limit | share | asked |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for preset in PRESETS:
            measure_preset(preset, Path(folder), options.rounds, options.tokens)


def measure_preset(preset: str, folder: Path, rounds: int, tokens: int) -> None:
    weights = make_model(preset, folder / preset)
    generators = {
        name: gptkit(folder / preset, *(("auto", name) if name.startswith("int") else (name, "none")))
        for name in FORMATS
    }
    limits = {name: memory(folder, int(weights * size)) for name, size in FORMATS.items()}
    rates: dict[str, list[float]] = {name: [] for name in FORMATS}
    most: dict[str, list[float]] = {name: [] for name in FORMATS}
    for _ in range(rounds):
        for name, generate in generators.items():
            most[name].append(limits[name]() / (weights * FORMATS[name]))
            rates[name].append(tokens / generate(batch=1, tokens=tokens))
    for name in FORMATS:
        share = statistics.median(rate / limit for rate, limit in zip(rates[name], most[name], strict=True))
        limit = statistics.median(most[name])
        print(
            f"| {preset} | {name} | {spread(rates[name])} | {limit:,.0f} | {share:.0%} | {ASKED[name]:.0%} |",
            flush=True,
        )


def make_model(preset: str, directory: Path) -> int:
    """Write a random model of a preset's shape; return how many weights one token reads."""
    import torch

    from gptkit.model.configuration_gpt import GPTConfig
    from gptkit.model.loading import save_model
    from gptkit.model.modeling_gpt import GPTForCausalLM
    from gptkit.recipes import recipes_of

    torch.manual_seed(0)
    shape = json.loads(recipes_of("models")[preset].read_text())
    config = GPTConfig(**{"vocab_size": LAPTOP_VOCABULARY, **shape})
    save_model(GPTForCausalLM(config).eval(), directory / GPTKIT)
    return config.n_layer * 12 * config.n_embd**2 + config.vocab_size * config.n_embd


if __name__ == "__main__":
    main()
