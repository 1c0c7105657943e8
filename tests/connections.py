"""Watches for connections that a process attempts, by Python's own audit of them.

Where CONNECTIONS names a file, every attempt to reach another machine is written there as a line. `sitecustomize.py` in
a folder of PYTHONPATH starts the watch in child processes too.
"""

from __future__ import annotations

import os
import sys
from typing import Any

EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
HERE = ("::1", "::", "localhost", "0.0.0.0")


def watch() -> None:
    """Write down every attempt from now on; there is no way to stop it, which is why it is one."""
    sys.addaudithook(_listen)


def _listen(event: str, facts: tuple[Any, ...]) -> None:
    path = os.environ.get("CONNECTIONS")
    if event not in EVENTS or not path:
        return
    address = facts[0] if event.startswith("socket.get") else facts[-1]
    host = address[0] if isinstance(address, tuple) else address
    if _is_elsewhere(host):
        with open(path, "a") as file:
            file.write(f"{event} {host!r} {' '.join(sys.argv)[:200]}\n")


def _is_elsewhere(host: object) -> bool:
    """Say whether this is another machine: no socket of the file system, no name or number of this one."""
    name = host.decode("utf-8", "replace") if isinstance(host, bytes) else host
    if not isinstance(name, str) or not name or name.startswith(("/", "\0")):
        return False
    return name not in HERE and not name.startswith("127.") and name != os.uname().nodename
