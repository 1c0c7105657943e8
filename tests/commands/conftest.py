from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of characters, half of whose vocabulary has no token."""
    from generation_toy import write_model  # late: it imports torch

    return write_model(tmp_path_factory.mktemp("model"))
