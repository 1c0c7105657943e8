"""Converting takes little more memory than the model's file, whatever the format."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gptkit.convert.formats import EXPORTS
from gptkit.model_files import GPTShape, tensor_shapes

GPT2_XL = {"vocab_size": 50257, "n_positions": 128, "n_embd": 1600, "n_layer": 48, "n_head": 25}
MOST = 1.3  # times the file's size


def write_sparse_model(folder: Path, sizes: dict[str, Any], dtype: str = "F32") -> int:
    """Write a model of zeros that takes no room on the disk; return the size that its file claims."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gptkit", **sizes}))
    names = [f"transformer.h.{layer}." for layer in range(sizes["n_layer"])]
    shapes = tensor_shapes(GPTShape(**sizes), names, "sparse")
    del shapes["lm_head.weight"]
    header, end = {}, 0
    for name, shape in shapes.items():
        size = {"F32": 4, "BF16": 2}[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return end


def peak_of(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the largest anonymous memory of `gptkit convert`, in bytes, and its result."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gptkit", "convert", *arguments, "--json"], stdout=subprocess.PIPE
    )
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            status = Path(f"/proc/{process.pid}/status").read_text()
            found = re.search(r"RssAnon:\s+(\d+) kB", status)
            peak = max(peak, int(found[1]) * 1024 if found else 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    done.set()
    watcher.join()
    return peak, json.loads(out)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("to", "dtype"), [*((name, "F32") for name in EXPORTS), ("hf", "BF16")])
def test_a_large_model_takes_little_more_than_its_own_size(to: str, dtype: str, tmp_path: Path) -> None:
    size = write_sparse_model(tmp_path / "sparse", GPT2_XL, dtype)
    if shutil.disk_usage(tmp_path).free < 1.1 * size:
        pytest.skip(f"no room for {size / 1e9:.1f} GB")
    peak, result = peak_of(str(tmp_path / "sparse"), str(tmp_path / "made"), "--to", to)
    assert result["parameters"] > 1.5e9
    assert peak <= MOST * size, f"{peak / size:.2f} x the file"
