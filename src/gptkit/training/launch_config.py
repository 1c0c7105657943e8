"""Files of `accelerate config`: read, checked key by key, and cut down to what a launch takes from them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from accelerate.commands.config import config_args

from gptkit.errors import UsageError, suggest

DEFAULT = Path(config_args.default_config_file)
KINDS = ("NO", "MULTI_CPU", "MULTI_GPU")
FIX = "write it with accelerate config, or start from recipes/accelerate/ddp.yaml"


@dataclasses.dataclass(frozen=True)
class LaunchConfig:
    """What a file says; None and "all" leave a thing open, `unused` are keys that gptkit overrules."""

    path: Path
    kind: str
    num_processes: int | None = None
    port: int | None = None
    gpu_ids: str = "all"
    use_cpu: bool = False
    unused: tuple[str, ...] = ()

    def described(self) -> str:
        """Return the line that says what came from the file."""
        taken = {
            "num_processes": self.num_processes,
            "main_process_port": self.port,
            "gpu_ids": None if self.gpu_ids == "all" else self.gpu_ids,
            "use_cpu": self.use_cpu or None,
        }
        facts = [f"{name} {value}" for name, value in taken.items() if value is not None]
        text = f"from {self.path}: {', '.join([f'distributed_type {self.kind}', *facts])}"
        return f"{text}; not used: {', '.join(self.unused)}" if self.unused else text


def read_launch_config(path: Path) -> LaunchConfig:
    """Return what a file says; raise UsageError for what is no such file, an unknown key or what gptkit cannot do."""
    values = _values(path)
    _refuse_unknown(values, [one.name for one in dataclasses.fields(config_args.ClusterConfig)], path)
    kind = str(values.get("distributed_type", "NO"))
    if kind not in KINDS:
        raise UsageError(f"distributed_type {kind} is not supported", where=str(path), fix=f"use {', '.join(KINDS)}")
    if _number(values, "num_machines", path) not in (None, 1):
        fix = "start each machine with accelerate launch --num_machines, as recipes/slurm/pretrain.sh does"
        raise UsageError("num_machines is more than 1", where=str(path), fix=fix)
    processes = _number(values, "num_processes", path)
    return LaunchConfig(
        path,
        kind,
        num_processes=None if processes == -1 else processes,
        port=_number(values, "main_process_port", path) or None,
        gpu_ids=str(values.get("gpu_ids") or "all"),
        use_cpu=values.get("use_cpu") is True,
        unused=_overruled(values),
    )


def _values(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise UsageError(error.strerror or "unreadable", where=str(path), fix=FIX) from None
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"not YAML: {str(error).splitlines()[0]}", where=str(path), fix=FIX) from None
    if not isinstance(values, dict):
        raise UsageError("no `key: value` lines", where=str(path), fix=FIX)
    return values


def _refuse_unknown(values: Mapping[str, Any], known: Iterable[str], path: Path) -> None:
    known = set(known)
    for key in values:
        if key not in known:
            raise UsageError(f"unknown key {key!r}", where=str(path), fix=suggest(str(key), known))


def _number(values: Mapping[str, Any], key: str, path: Path) -> int | None:
    value = values.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < -1):
        raise UsageError(f"{key} {value!r} is not a whole number", where=str(path), fix="write one, or leave it out")
    return value


def _overruled(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys whose matter gptkit decides by options of its own."""
    owners = {"mixed_precision": "--precision", "dynamo_config": "--compile"}
    return tuple(f"{key} ({flag})" for key, flag in owners.items() if values.get(key) not in (None, "no", "NO", {}))
