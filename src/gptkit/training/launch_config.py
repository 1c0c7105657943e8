"""Files of `accelerate config`: read, checked key by key, and cut down to what a launch takes from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate.commands.config import config_args
from accelerate.commands.launch import launch_command_parser

from gptkit.errors import UsageError, suggest
from gptkit.recipes import recipes_root
from gptkit.system.reading import read_yaml

DEFAULT = Path(config_args.default_config_file)
KINDS = ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP")
FSDP2 = {  # how gptkit shards; what a file says otherwise is reported as not used
    "fsdp_version": "2",
    "fsdp_reshard_after_forward": "true",
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_transformer_layer_cls_to_wrap": "GPTBlock",
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_offload_params": "false",
    "fsdp_cpu_ram_efficient_loading": "false",
    "fsdp_sync_module_states": "false",
    "fsdp_activation_checkpointing": "false",
}
OWNERS = {  # keys whose matter an option decides
    "mixed_precision": "--precision",
    "dynamo_config": "--compile",
    "fsdp_activation_checkpointing": "gradient_checkpointing",
}
FIX = "write it with accelerate config, or start from recipes/accelerate/ddp.yaml"
FSDP_FIX = "write fsdp_version: 2 under fsdp_config, or use --accelerate-config fsdp2"


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

    @property
    def sharded(self) -> bool:
        return self.kind == "FSDP"

    def summary(self) -> str:
        """Return the line that says what came from the file."""
        facts = [f"distributed_type {self.kind}{' (version 2)' if self.sharded else ''}"]
        facts += [f"num_processes {self.num_processes}"] if self.num_processes is not None else []
        facts += [f"main_process_port {self.port}"] if self.port is not None else []
        facts += [f"gpu_ids {self.gpu_ids}"] if self.gpu_ids != "all" else []
        facts += ["use_cpu True"] if self.use_cpu else []
        unused = f"; not used: {', '.join(self.unused)}" if self.unused else ""
        return f"from {self.path}: {', '.join(facts)}{unused}"


def config_path(name: str) -> Path:
    """Return the file that a shipped name or a path means; raises UsageError with the nearest name."""
    shipped = {path.stem: path for path in (recipes_root() / "accelerate").glob("*.yaml")}
    path = shipped.get(name, Path(name).expanduser())
    if path.is_file():
        return path
    where = "--accelerate-config"
    raise UsageError(f"no configuration and no file is called {name!r}", where=where, fix=suggest(name, shipped))


def read_launch_config(path: Path) -> LaunchConfig:
    """Return what a file says; raise UsageError for what is no such file, an unknown key or what gptkit cannot do."""
    where = str(path)
    values = read_yaml(path, "a configuration of accelerate", missing=FIX, fix=FIX, empty="null").plain()
    if not isinstance(values, dict):
        raise UsageError("no `key: value` lines", where=where, fix=FIX)
    _refuse_unknown(values, {field.name for field in dataclasses.fields(config_args.ClusterConfig)}, path)
    kind = str(values.get("distributed_type", "NO"))
    if kind not in KINDS:
        raise UsageError(f"distributed_type {kind} is not supported", where=where, fix=f"use {', '.join(KINDS)}")
    sharding = _sharding(values, path) if kind == "FSDP" else {}
    if _number(values, "num_machines", path) not in (None, 1):
        fix = "start each machine with accelerate launch --num_machines, as recipes/slurm/pretrain.sh does"
        raise UsageError("num_machines is more than 1", where=where, fix=fix)
    processes = _number(values, "num_processes", path)
    port = _number(values, "main_process_port", path) or None  # 0 means any free one too
    if port is not None and not 0 < port < 1 << 16:
        fix = "write 1 to 65535, or leave it out: a free one is taken then"
        raise UsageError(f"main_process_port {port} is no port", where=where, fix=fix)
    return LaunchConfig(
        path,
        kind,
        num_processes=None if processes == -1 else processes,
        port=port,
        gpu_ids="all" if values.get("gpu_ids") is None else str(values["gpu_ids"]),
        use_cpu=values.get("use_cpu") is True,
        unused=_overruled(values, sharding),
    )


def _refuse_unknown(values: Mapping[str, Any], known: Iterable[str], path: Path) -> None:
    for key in values:
        if key not in known:
            raise UsageError(f"unknown key {key!r}", where=str(path), fix=suggest(str(key), known))


def _number(values: Mapping[str, Any], key: str, path: Path) -> int | None:
    value = values.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < -1):
        raise UsageError(f"{key} {value!r} is not a whole number", where=str(path), fix="write one, or leave it out")
    return value


def _sharding(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the entries of fsdp_config under their whole names; refuse the first FSDP, which is another thing."""
    entries = values.get("fsdp_config") or {}
    if not isinstance(entries, dict):
        raise UsageError("fsdp_config is not a group of keys", where=str(path), fix=FSDP_FIX)
    named = {key if str(key).startswith("fsdp_") else f"fsdp_{key}": value for key, value in entries.items()}
    known = {name for name in vars(launch_command_parser().parse_args(["-"])) if name.startswith("fsdp_")}
    _refuse_unknown(named, known, path)
    if str(named.get("fsdp_version", 1)) != "2":
        raise UsageError("only version 2 of FSDP is supported", where=str(path), fix=FSDP_FIX)
    return named


def _overruled(values: Mapping[str, Any], sharding: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys whose matter gptkit decides, by an option of its own or because it shards in one way."""
    general = [key for key in ("mixed_precision", "dynamo_config") if values.get(key) not in (None, "no", "NO", {})]
    differing = [
        key for key, value in sharding.items() if value is not None and str(value).lower() != FSDP2.get(key, "").lower()
    ]
    return tuple(f"{key} ({OWNERS[key]})" if key in OWNERS else key for key in [*general, *differing])
