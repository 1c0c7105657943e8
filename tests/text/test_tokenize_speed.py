from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tokenizing.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RssAnon is Linux's"),
]


def measured(*arguments: object) -> dict[str, float]:
    output = subprocess.check_output([sys.executable, str(SCRIPT), *map(str, arguments)], text=True)
    figures: dict[str, float] = json.loads(output)
    return figures


@pytest.mark.timeout(600)
def test_memory_stays_flat_on_a_gigabyte() -> None:
    assert measured("--megabytes", 1000, "--tokenizer", "char", "--memory-only")["rss_anon_grown_mb"] < 300


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("megabytes", [100, 1000])
def test_speed_and_memory_beside_a_bare_encode_batch(megabytes: int) -> None:
    figures = measured("--megabytes", megabytes)
    assert figures["rss_anon_grown_mb"] < 300
    assert figures["ratio"] > 0.8
