"""The numbers of an inspection in a safetensors file, exactly as they were computed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gptkit.system.files import write_atomically

if TYPE_CHECKING:
    from gptkit.inspect.inspection import Inspection

SUFFIX = ".safetensors"


def tensors_of(inspection: Inspection) -> dict[str, NDArray[Any]]:
    """Return every array of an inspection by part and field, such as attention.scores."""
    parts = {field.name: getattr(inspection, field.name) for field in fields(inspection)}
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in parts.items():
        if is_dataclass(part):
            values = ((field.name, getattr(part, field.name)) for field in fields(part))
            arrays |= {f"{name}.{field}": array for field, array in values if isinstance(array, np.ndarray)}
    return arrays


def write_sidecar(inspection: Inspection, path: Path) -> None:
    """Write the arrays, all or none; whoever reads them finds shapes and meaning in the classes of their parts."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors_of(inspection).items()}
    write_atomically(path, save(contiguous, metadata={"model": inspection.model, "family": inspection.family}))


def is_sidecar(path: Path) -> bool:
    """Return whether a file is an inspection's, and not, say, the weights of a model."""
    try:
        with safe_open(path, framework="numpy") as file:
            return "family" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
