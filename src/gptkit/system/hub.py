"""Whether the Hugging Face hub can be reached; asked only when something `hf:` was named. Standard library alone."""

from __future__ import annotations

import os
import socket
import threading
from urllib.parse import urlsplit

from gptkit.errors import InputError

PROBE_SECONDS = 2.0
OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def require_hub(what: str = "hf:", *, seconds: float = PROBE_SECONDS) -> None:
    """Return if the hub (HF_ENDPOINT, or the proxy that leads there) answers within `seconds`.

    Raises InputError with the cure otherwise, or if an environment variable forbids the network.
    """
    for switch in OFFLINE_SWITCHES:
        if os.environ.get(switch, "").lower() in ("1", "true", "yes", "on"):
            fix = f"unset {switch}, or name a local directory instead of hf:"
            raise InputError(f"{switch} forbids the network", where=what, fix=fix)
    host, port = _first_hop()
    if not _answers(host, port, seconds):
        fix = "connect to the network, or name a local directory instead of hf:"
        raise InputError(f"{host}:{port} does not answer within {seconds:g} s", where=what, fix=fix)


def _first_hop() -> tuple[str, int]:
    import urllib.request  # here, because it would be a tenth of every start

    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host = endpoint.hostname or "huggingface.co"
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(endpoint.scheme)
    hop = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else endpoint
    return hop.hostname or host, hop.port or (443 if hop.scheme == "https" else 80)


def _answers(host: str, port: int, seconds: float) -> bool:
    answers: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    # A thread, because looking up a name heeds no timeout.
    probe = threading.Thread(target=connect, daemon=True)
    probe.start()
    probe.join(seconds)
    return answers == [True]
