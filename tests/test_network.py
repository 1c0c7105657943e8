"""The probe of the hub: fast, honest about why, and never by way of the real network here."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from gptkit import network
from gptkit.errors import InputError
from gptkit.network import OFFLINE_SWITCHES, require_hub


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listening socket that HF_ENDPOINT names."""
    for name in (*OFFLINE_SWITCHES, "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield listening


def test_a_hub_that_answers_is_enough(server: socket.socket) -> None:
    require_hub("hf:gpt2")


def test_a_hub_that_refuses_is_named_with_the_cure(server: socket.socket) -> None:
    server.close()
    with pytest.raises(InputError, match=r"does not answer.*hf:gpt2.*local directory"):
        require_hub("hf:gpt2")


def test_a_name_that_never_resolves_costs_no_more_than_the_probe(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve_slowly(*_: object, **__: object) -> socket.socket:
        time.sleep(1)
        raise OSError

    monkeypatch.setattr(network.socket, "create_connection", resolve_slowly)
    began = time.monotonic()
    with pytest.raises(InputError):
        require_hub(seconds=0.1)
    assert time.monotonic() - began < 0.9


def test_a_proxy_is_the_first_hop(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://huggingface.invalid")
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{server.getsockname()[1]}")
    require_hub()


@pytest.mark.parametrize("switch", OFFLINE_SWITCHES)
def test_a_user_who_forbids_the_network_is_obeyed(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv(switch, "1")
    with pytest.raises(InputError, match=f"unset {switch}"):
        require_hub("hf:gpt2")
