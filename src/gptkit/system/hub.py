"""Download data sets and snapshots from the Hugging Face hub, only for names that start with `hf:`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gptkit.errors import GptkitError, InputError

PROBE_SECONDS = 2.0
NETWORK_ERRORS = (ConnectionError, TimeoutError, socket.gaierror)
OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def snapshot(name: str, patterns: Sequence[str], *, what: str) -> Path:
    """Download the files of hf:NAME that match `patterns` and return their folder; errors call them `what`."""
    require_hub(name)
    from huggingface_hub import snapshot_download

    with translate_hub_errors(name, f"{what} cannot be fetched", fix="check the name and the network"):
        return Path(snapshot_download(name.removeprefix("hf:"), allow_patterns=list(patterns)))


def load_dataset(name: str, **options: Any) -> Any:
    """Load the data set hf:NAME[:CONFIG] with `datasets.load_dataset(..., **options)`."""
    require_hub(name)
    import datasets

    path, _, configuration = name.removeprefix("hf:").partition(":")
    with translate_dataset_errors(name):
        return datasets.load_dataset(path, configuration or None, **options)


@contextmanager
def translate_hub_errors(name: str, problem: str, *, fix: str) -> Iterator[None]:
    """Translate whatever the hub's libraries raise to InputError; errors of the operating system pass through.

    The libraries raise some twenty types, from their own to those of three HTTP clients.
    """
    try:
        yield
    except GptkitError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, NETWORK_ERRORS):
            raise  # a full disk is not the hub's fault
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{problem}: {reason}", where=name, fix=f"{fix}; if it is gated, set HF_TOKEN") from error


def translate_dataset_errors(name: str) -> AbstractContextManager[None]:
    """Translate errors while opening or reading the data set `name`."""
    fix = "check the name, its :CONFIG and the network"
    return translate_hub_errors(name, "the hub data set cannot be read", fix=fix)


def require_hub(what: str = "hf:", *, seconds: float = PROBE_SECONDS) -> None:
    """Raise InputError unless the hub (HF_ENDPOINT, or the proxy in front of it) answers within `seconds`.

    Raise it at once if an environment variable forbids the network.
    """
    for switch in OFFLINE_SWITCHES:
        if os.environ.get(switch, "").lower() in ("1", "true", "yes", "on"):
            fix = f"unset {switch}, or pass a local directory instead of hf:"
            raise InputError(f"{switch} forbids network access", where=what, fix=fix)
    host, port = _first_hop()
    if not _answers(host, port, seconds):
        fix = "connect to the network, or pass a local directory instead of hf:"
        raise InputError(f"{host}:{port} does not answer within {seconds:g} s", where=what, fix=fix)


def _first_hop() -> tuple[str, int]:
    import urllib.request  # not at the top: it would take a tenth of every start-up

    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host = endpoint.hostname or "huggingface.co"
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(endpoint.scheme)
    hop = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else endpoint
    return hop.hostname or host, hop.port or (443 if hop.scheme == "https" else 80)


def _answers(host: str, port: int, seconds: float) -> bool:
    answered = threading.Event()

    def connect() -> None:
        with suppress(OSError):
            socket.create_connection((host, port), timeout=seconds).close()
            answered.set()

    # In a thread, because the name lookup obeys no timeout.
    probe = threading.Thread(target=connect, daemon=True)
    probe.start()
    probe.join(seconds)
    return answered.is_set()
