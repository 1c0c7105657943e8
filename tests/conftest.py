"""What all tests share: no network, a cache of their own, and real text where there is some."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports a library that reads them.
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and the tests out of it."""
    before = os.environ.get("GPTKIT_CACHE")
    os.environ["GPTKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["GPTKIT_CACHE"]
    else:
        os.environ["GPTKIT_CACHE"] = before


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Undo what a command line sets for the libraries that it is about to import."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real texts and tokenizer files that GPTKIT_TEST_DATA names."""
    folder = os.environ.get("GPTKIT_TEST_DATA")
    if not folder:
        pytest.skip("GPTKIT_TEST_DATA is not set")
    return Path(folder)
