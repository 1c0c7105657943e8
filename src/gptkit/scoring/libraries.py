"""What the extra `eval` brings, imported where it is used."""

from __future__ import annotations

import importlib
from typing import Any

from gptkit.errors import UsageError


def import_extra(module: str, package: str) -> Any:
    """Return a module; UsageError with the line that installs it where it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError:
        message = f"this evaluation scores with {package}, which is not installed"
        raise UsageError(message, where="--task", fix="pip install 'gptkit[eval]'") from None
