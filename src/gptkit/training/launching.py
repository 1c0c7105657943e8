"""Launch one command in several processes: with Accelerate's launcher on GPUs, with torchrun's on a CPU.

`accelerate launch` starts only one process on a CPU, so gloo's processes come from torchrun's launcher, on which it is
built. Both run inside this process, which waits, forwards signals, and reports one result or error for all ranks. Files
written by `accelerate config` are read and checked key by key; only what a launch needs is taken from them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.commands.config import config_args
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed import run as elastic
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from gptkit.errors import AGAIN, GptkitError, Interrupted, OutOfResources, UsageError, suggest
from gptkit.system import ranks, signals
from gptkit.system.reading import read_yaml
from gptkit.training.options import TrainingOptions, config_path

GRACE_SECONDS = 600  # between a signal and SIGKILL, to commit a checkpoint
MOST_PER_CORE = 4  # processes: each takes seconds and hundreds of MB to load its libraries
NOTICE_SECONDS = 2.0  # the launcher's longest delay in noticing that a rank has ended
DEFAULT = Path(config_args.default_config_file)
KINDS = ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP")
OPTION_FOR = {  # keys of a file that an option of gptkit decides
    "mixed_precision": "--precision",
    "dynamo_config": "--compile",
    "fsdp_activation_checkpointing": "gradient_checkpointing",
}
FIX = "create it with accelerate config, or start from recipes/accelerate/ddp.yaml"
FSDP_FIX = "write fsdp_version: 2 under fsdp_config, or use --accelerate-config fsdp2"


@dataclass(frozen=True)
class LaunchConfig:
    """What a launch takes from a file (None = not set); `unused` are the keys that gptkit ignores."""

    path: Path | None = None
    kind: str = "NO"
    num_processes: int | None = None
    port: int | None = None
    gpu_ids: str | None = None
    use_cpu: bool = False
    unused: tuple[str, ...] = ()

    @property
    def sharded(self) -> bool:
        return self.kind == "FSDP"

    def summary(self) -> str:
        """Return the log line on what was taken from the file."""
        taken = {
            "distributed_type": f"{self.kind}{' (version 2)' if self.sharded else ''}",
            "num_processes": self.num_processes,
            "main_process_port": self.port,
            "gpu_ids": self.gpu_ids,
            "use_cpu": self.use_cpu or None,
        }
        facts = [f"{key} {value}" for key, value in taken.items() if value is not None]
        unused = f"; not used: {', '.join(self.unused)}" if self.unused else ""
        return f"from {self.path}: {', '.join(facts)}{unused}"


def read_launch_config(path: Path) -> LaunchConfig:
    """Read a file of `accelerate config`; raises UsageError for a bad file, an unknown key or an unsupported value."""
    where, values = str(path), _values(path)
    _refuse_unknown(values, {field.name for field in dataclasses.fields(config_args.ClusterConfig)}, path)
    kind = str(values.get("distributed_type", "NO"))
    if kind not in KINDS:
        raise UsageError(f"distributed_type {kind} is not supported", where=where, fix=f"use {', '.join(KINDS)}")
    fsdp = _fsdp_settings(values, path) if kind == "FSDP" else {}
    if _number(values, "num_machines", path) not in (None, 1):
        fix = "start each machine with accelerate launch --num_machines, as recipes/slurm/pretrain.sh does"
        raise UsageError("num_machines is more than 1", where=where, fix=fix)
    processes = _number(values, "num_processes", path)
    port = _number(values, "main_process_port", path) or None  # 0 also means any free one
    if port is not None and not 0 < port < 1 << 16:
        fix = "write 1 to 65535, or leave it out to use a free one"
        raise UsageError(f"main_process_port {port} is not a port", where=where, fix=fix)
    unused = [key for key in ("mixed_precision", "dynamo_config") if values.get(key) not in (None, "no", "NO", {})]
    ours = _values(config_path("fsdp2"))["fsdp_config"]  # how gptkit shards
    for key, value in fsdp.items():
        if value is not None and str(value).lower() != str(ours.get(key, "")).lower():
            unused.append(key)
    return LaunchConfig(
        path,
        kind,
        num_processes=None if processes == -1 else processes,
        port=port,
        gpu_ids=None if values.get("gpu_ids") in (None, "all") else str(values["gpu_ids"]),
        use_cpu=values.get("use_cpu") is True,
        unused=tuple(f"{key} ({OPTION_FOR[key]})" if key in OPTION_FOR else key for key in unused),
    )


def _values(path: Path) -> dict[str, Any]:
    values = read_yaml(path, "the accelerate configuration", missing=FIX, fix=FIX, empty="null").plain()
    if not isinstance(values, dict):
        raise UsageError("no `key: value` lines", where=str(path), fix=FIX)
    return values


def _refuse_unknown(values: Mapping[str, Any], known: Iterable[str], path: Path) -> None:
    for key in values:
        if key not in known:
            raise UsageError(f"unknown key {key!r}", where=str(path), fix=suggest(str(key), known))


def _number(values: Mapping[str, Any], key: str, path: Path) -> int | None:
    value = values.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < -1):
        raise UsageError(f"{key} {value!r} is not a whole number", where=str(path), fix="write one, or leave it out")
    return value


def _fsdp_settings(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the entries of fsdp_config under their full names; raises UsageError for FSDP1."""
    entries = values.get("fsdp_config") or {}
    if not isinstance(entries, dict):
        raise UsageError("fsdp_config is not a group of keys", where=str(path), fix=FSDP_FIX)
    named = {key if str(key).startswith("fsdp_") else f"fsdp_{key}": value for key, value in entries.items()}
    known = {name for name in vars(launch_command_parser().parse_args(["-"])) if name.startswith("fsdp_")}
    _refuse_unknown(named, known, path)
    if str(named.get("fsdp_version", 1)) != "2":
        raise UsageError("only version 2 of FSDP is supported", where=str(path), fix=FSDP_FIX)
    return named


@dataclass(frozen=True)
class Launch:
    """How to start the processes: how many, on cpu or cuda, with how many threads each."""

    processes: int
    device: str
    threads: int
    config: LaunchConfig = LaunchConfig()

    def environment(self) -> dict[str, str]:
        """Return the environment variables that the launcher's command line needs."""
        asks = self.config.sharded and self.device == "cpu"  # on GPUs the command line does
        fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"} if asks else {}
        return {"OMP_NUM_THREADS": str(self.threads), **fsdp}

    def launcher_line(self) -> list[str]:
        """Return the launcher's command line, up to the module."""
        port = self.config.port
        if self.device == "cuda":
            line = ["accelerate", "launch", *(["--config_file", str(self.config.path)] if self.config.path else [])]
            line += ["--use_fsdp", "--fsdp_version", "2"] if self.config.sharded else ["--multi_gpu"]
            line += ["--num_processes", str(self.processes), "--num_machines", "1"]
            line += ["--main_process_port", str(port or 0), "--mixed_precision", "no", "--dynamo_backend", "no"]
            return [*line, "-m"]
        where = ["--master_addr", "127.0.0.1", "--master_port", str(port)] if port else ["--standalone"]
        return ["torchrun", *where, "--nproc_per_node", str(self.processes), "-m"]

    def summary(self, arguments: Sequence[str]) -> str:
        """Return the log line on what is launched, and how to launch the same by hand."""
        place = "on the CPU (gloo)" if self.device == "cpu" else f"on {self.processes} GPUs (nccl)"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''} each"
        how = "sharded (FSDP2), " if self.config.sharded else ""
        variables = [f"{name}={value}" for name, value in self.environment().items()]
        by_hand = " ".join([*variables, shlex.join([*self.launcher_line(), "gptkit", *arguments])])
        return f"launched {self.processes} processes {place}, {how}{threads}; to launch them by hand: {by_hand}"


def plan_launch(
    options: TrainingOptions, config: LaunchConfig, *, gpus: int, cores: int, environment: Mapping[str, str]
) -> Launch | None:
    """Return how to start the processes that the options ask for; None for one process, which needs no launcher.

    Options override the file, the file overrides the defaults of this machine. Raises UsageError for processes or
    devices that it does not have.
    """
    if options.device == "mps":
        raise UsageError("an Apple GPU runs only one process", where="--device mps", fix="leave --num-processes out")
    if options.device == "cuda" and not gpus:
        raise UsageError("no CUDA device available", where="--device", fix="leave it out, or use --device cpu")
    if options.device == "auto" and gpus and config.use_cpu:
        fix = "add --device cpu or --device cuda"
        raise UsageError("the file says use_cpu, but this machine has GPUs", where=str(config.path), fix=fix)
    device = "cuda" if gpus and options.device != "cpu" else "cpu"
    available = gpus if config.gpu_ids is None else len(config.gpu_ids.split(","))
    asked = options.num_processes or config.num_processes
    processes = asked or (available if device == "cuda" else None)  # all GPUs if a file is named without a number
    if not processes:
        message = "the number of processes is not given"
        raise UsageError(message, where="--accelerate-config", fix="pass --num-processes N")
    if device == "cuda" and processes > available:
        message = f"{processes} processes need a GPU each; available: {available}"
        raise UsageError(message, where="--num-processes", fix=f"pass --num-processes {available}, or --device cpu")
    if processes == 1:
        return None
    if device == "cpu" and processes > max(8, MOST_PER_CORE * cores):
        message = f"{processes} processes are too many for {cores} core{'s' if cores > 1 else ''}"
        raise UsageError(message, where="--num-processes", fix=f"pass --num-processes {max(2, cores)}")
    threads = environment.get("OMP_NUM_THREADS", "")
    each = int(threads) if threads.isdecimal() and int(threads) else max(1, cores // processes)
    return Launch(processes, device, each, config)


def launch(
    plan: Launch, arguments: Sequence[str], note_run: Callable[[Path], object], *, module: str = "gptkit"
) -> dict[str, Any]:
    """Run `module` with this command line in every rank, wait for all, and return rank 0's result.

    `note_run` is called with the directory of the run that the ranks opened, however they ended. Raises the first error
    that a rank reported; Interrupted after a signal, once the ranks have committed a checkpoint; UsageError for a port
    in use, and OutOfResources if the ranks could not be started.
    """
    _refuse_port_in_use(plan)
    with tempfile.TemporaryDirectory(prefix="gptkit-launch-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            with signals.default_interrupts(), _launcher_in_charge(plan, folder):
                _start(plan, [module, *arguments], folder)
        except ChildFailedError as failed:
            raise _cause(folder, failed.failures) from None
        except SignalException as stopped:
            # The ranks' own errors name the checkpoint and the command that resumes.
            errors = sorted(ranks.errors_in(folder), key=lambda error: error.error.kind != Interrupted.kind)
            _drop_logs(errors[1:])
            if errors:
                raise errors[0].error from None
            number = stopped.sigval
            raise Interrupted(f"interrupted by {number.name}", signal_number=number, fix=AGAIN) from None
        except (OSError, RuntimeError, ValueError) as error:
            message = f"the processes could not be started: {str(error).strip().splitlines()[0]}"
            raise OutOfResources(message, fix="try again, or use another port") from error
        finally:
            if (folder / ranks.RUN).exists():
                note_run(Path((folder / ranks.RUN).read_text(encoding="utf-8")))
        result: dict[str, Any] = json.loads((folder / ranks.RESULT).read_text())
        return result


def _start(plan: Launch, words: Sequence[str], folder: Path) -> None:
    _, *line = plan.launcher_line()
    if plan.device == "cuda":
        parsed = launch_command_parser().parse_args([*line[1:], *words])
    else:
        parsed = elastic.get_args_parser().parse_args([*line, *words])
    parsed.log_dir = str(folder)
    # No flags exist for these, but Accelerate passes on whatever attributes torch's launcher knows.
    parsed.shutdown_timeout = GRACE_SECONDS
    parsed.signals_to_handle = ",".join(signal.Signals(number).name for number in signals.handled_signals())
    parsed.standalone = plan.config.port is None
    parsed.local_addr = "127.0.0.1"  # a machine without a network may not know its own name
    if plan.device == "cuda":
        launch_command(parsed)
    else:
        elastic.run(parsed)


@contextlib.contextmanager
def _launcher_in_charge(plan: Launch, folder: Path) -> Iterator[None]:
    """Set the launcher's variables and silence its log; afterwards restore the environment and the signal handlers."""
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in signals.handled_signals()}
    os.environ |= {"ACCELERATE_USE_FSDP": "false", **plan.environment(), **ranks.launcher_environment(folder)}
    if plan.device == "cpu" and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if os.getcwd() not in sys.path:  # ranks start with -m: a file beside the data must not shadow a library
        os.environ["PYTHONSAFEPATH"] = "1"
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)


def _refuse_port_in_use(plan: Launch) -> None:
    if plan.config.port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the launcher's own socket does
        try:
            probe.bind(("", plan.config.port))
        except OSError:
            fix = "leave main_process_port out to use a free one"
            where = str(plan.config.path)
            raise UsageError(f"port {plan.config.port} is in use", where=where, fix=fix) from None


def _cause(folder: Path, failures: Mapping[int, ProcessFailure]) -> GptkitError:
    """Return the error that ended all ranks, and delete the logs of the errors that followed from it."""
    errors = ranks.errors_in(folder)
    reporting = {error.rank for error in errors}
    stopped = {rank for rank, failure in failures.items() if failure.exitcode == -signal.SIGTERM}  # by the launcher
    silent = [(rank, failure) for rank, failure in failures.items() if rank not in reporting | stopped]
    killed = min(silent, key=lambda pair: pair[1].timestamp, default=None)
    if killed is not None and (not errors or killed[1].timestamp - NOTICE_SECONDS < errors[0].time):
        _drop_logs(errors)
        return _silent_end(*killed)
    if not errors:
        return _silent_end(*next(iter(failures.items())))
    _drop_logs(errors[1:])
    first = errors[0].error
    if not first.message.startswith(("ImportError:", "ModuleNotFoundError:")):
        return first
    message = f"process {errors[0].rank} could not start: {first.message}"  # a broken installation, not a bug
    return OutOfResources(message, where=first.where, fix="repair its Python environment")


def _silent_end(rank: int, failure: ProcessFailure) -> GptkitError:
    if failure.exitcode < 0:
        message = f"process {rank} was killed by {failure.signal_name()}"
        fix = f"if memory ran out, lower --micro-batch or --num-processes; else {AGAIN}"
        return OutOfResources(message, fix=fix if failure.exitcode == -signal.SIGKILL else AGAIN)
    message = f"process {rank} ended with exit code {failure.exitcode} and reported no error"
    return OutOfResources(message, fix="see its output above")


def _drop_logs(errors: Sequence[ranks.RankError]) -> None:
    for _, _, _, error in errors:
        if error.exit_code == 1 and error.where:
            Path(error.where).unlink(missing_ok=True)
