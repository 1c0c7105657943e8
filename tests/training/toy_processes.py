"""The toy's runs in processes of their own: one, or two that train together with gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("training_toy.py")


def start(*arguments: str, rank: int = 0, world: int = 1, port: int = 0) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE", "RANK"))}
    environment["OMP_NUM_THREADS"] = "1"
    if world > 1:
        environment |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        environment |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )


def run_pair(*arguments: str, code: int = 0) -> None:
    """Run the script on two processes; both must exit with `code`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start(*arguments, rank=rank, world=2, port=port) for rank in (0, 1)]
    for process in processes:
        errors = process.communicate(timeout=100)[1]
        assert process.returncode == code, errors
