"""`gptkit env`: environment details for bug and performance reports."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gptkit
from gptkit.console import Console
from gptkit.manage.options import EnvOptions
from gptkit.recipes import recipes_root
from gptkit.system.cache import cache_directory
from gptkit.system.limits import usable_processors

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "datasets", "safetensors", "evaluate", "numpy")
# Environment variables that restrict the instruction set.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
EXTRAS = {"ftfy": "gpt1", "spacy": "gpt1", "tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def run(options: EnvOptions, console: Console) -> dict[str, Any]:
    """Print a table of versions, processor, GPUs, compilers and folders."""
    import torch

    from gptkit.decoding.engines import native_decoder
    from gptkit.system.processor import cpu_has_amx, cpu_has_bf16
    from gptkit.training.rules import cpu_name, find_compiler

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    native = native_decoder()
    facts = {
        "gptkit": gptkit.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {name: _version(name) for name in EXTRAS},
        "processor": cpu_name(),
        "cores": usable_processors(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "limits": " ".join(f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)) or "none",
        "amx": cpu_has_amx(),
        "bf16": cpu_has_bf16(),
        "gpus": [{"name": gpu.name, "memory": gpu.total_memory} for gpu in gpus],
        "compiler": find_compiler(),
        "c_compiler": native and native.c_compiler(),
        "cache": cache_directory(),
        "recipes": recipes_root(),
    }
    console.table("", ("item", "value"), _rows(facts))
    return facts


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    machine = {key: value for key, value in facts.items() if key not in ("packages", "extras", "gpus")}
    extras = {
        name: found or f"not installed: pip install 'gptkit[{EXTRAS[name]}]'" for name, found in facts["extras"].items()
    }
    gpus = {
        f"gpu {index}": f"{gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB" for index, gpu in enumerate(facts["gpus"])
    }
    rows = machine | (gpus or {"gpus": "none"}) | facts["packages"] | extras
    words = {None: "not found", True: "yes", False: "no"}
    return [
        (key, words[value] if value is None or isinstance(value, bool) else str(value)) for key, value in rows.items()
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
