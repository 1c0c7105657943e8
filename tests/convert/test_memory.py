"""Converting takes little more memory than the larger of two files: the model's, and the one that is written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sparse_checkpoints as sparse

MOST = 1.3  # times the larger file

Write = Callable[[Path, Mapping[str, int]], Path]

ROWS: list[tuple[Write, list[str], float]] = [  # source, words of the command line, the most it may take
    *((sparse.safetensors, ["--to", name], MOST) for name in ("gptkit", "hf", "gguf", "onnx", "llm.c", "ctranslate2")),
    *((sparse.safetensors, ["--to", "gguf", "--dtype", dtype], MOST) for dtype in ("bf16", "q8_0", "q4_0")),
    *((sparse.safetensors, ["--to", "onnx", "--dtype", dtype], MOST) for dtype in ("f16", "int8")),
    *((sparse.safetensors, ["--to", "ctranslate2", "--dtype", dtype], MOST) for dtype in ("bf16", "int8")),
    *((sparse.bf16, ["--to", name], MOST) for name in ("gptkit", "hf", "gguf", "onnx", "llm.c")),
    (sparse.bf16, ["--to", "ctranslate2"], 2.3),  # which computes it in fp32 on a CPU, and holds that
    *((source, ["--to", "gptkit"], MOST) for source in (sparse.tensorflow, sparse.pytorch_bin, sparse.nanogpt)),
    *((source, ["--to", "gptkit"], MOST) for source in (sparse.llm_c, sparse.gguf_file, sparse.quantized_gguf)),
    (sparse.with_adapter, ["--adapter", "adapter"], MOST),
]


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


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("write", "words", "most"), ROWS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_large_model_takes_little_more_than_its_own_size(
    write: Write, words: list[str], most: float, tmp_path: Path
) -> None:
    source, made = write(tmp_path / "source", sparse.GPT2_XL), tmp_path / "made"
    if shutil.disk_usage(tmp_path).free < 7e9:
        pytest.skip("no room for 7 GB")
    words = [str(source / word) if word == "adapter" else word for word in words]
    peak, result = peak_of(str(source), str(made), *words)
    size = max(size_of(source), size_of(made))
    shutil.rmtree(made)  # pytest keeps the directories of three runs
    assert result["parameters"] > 1.5e9
    assert peak <= most * size, f"{peak / size:.2f} x the larger file"
