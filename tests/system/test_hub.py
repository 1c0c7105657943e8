"""The probe of the hub: short, obedient, and clear about the cure. No test here touches a network."""

from __future__ import annotations

import errno
import socket
import time

import pytest

from gptkit.errors import InputError
from gptkit.system import hub
from gptkit.system.hub import OFFLINE_SWITCHES, require_hub


class Connections:
    """Stands in for socket.create_connection and keeps where it was sent."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.answers = True
        self.delay = 0.0

    def __call__(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.asked.append(address)
        time.sleep(self.delay)
        if not self.answers:
            raise OSError
        return socket.socket()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (*OFFLINE_SWITCHES, *proxies, *map(str.upper, proxies), "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    stand_in = Connections()
    monkeypatch.setattr(hub.socket, "create_connection", stand_in)
    return stand_in


def test_a_hub_that_answers_is_enough(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    require_hub("hf:gpt2")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    require_hub("hf:gpt2")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443")
    require_hub("hf:gpt2")
    assert connections.asked == [("huggingface.co", 443), ("mirror.example", 80), ("mirror.example", 8443)]


def test_a_proxy_is_the_first_hop(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("127.0.0.1:3128", "http://127.0.0.1:3128"):
        monkeypatch.setenv("https_proxy", proxy)
        require_hub()
    monkeypatch.setenv("no_proxy", "huggingface.co")
    require_hub()
    assert connections.asked == [("127.0.0.1", 3128), ("127.0.0.1", 3128), ("huggingface.co", 443)]


def test_a_hub_that_refuses_is_named_with_the_cure(connections: Connections) -> None:
    connections.answers = False
    with pytest.raises(InputError, match=r"huggingface.co:443 does not answer.*hf:gpt2.*local directory"):
        require_hub("hf:gpt2")


def test_a_name_that_never_resolves_costs_no_more_than_the_probe(connections: Connections) -> None:
    connections.delay = 1.0
    began = time.monotonic()
    with pytest.raises(InputError):
        require_hub(seconds=0.1)
    assert time.monotonic() - began < 0.9


@pytest.mark.parametrize("switch", OFFLINE_SWITCHES)
def test_a_user_who_forbids_the_network_is_obeyed(
    connections: Connections, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv(switch, "1")
    with pytest.raises(InputError, match=f"unset {switch}"):
        require_hub("hf:gpt2")
    assert connections.asked == []


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (OSError("401 Client Error.\nRepository Not Found"), InputError),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), InputError),
        (RuntimeError(), InputError),
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
    ],
)
def test_only_what_the_hub_did_is_told_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, error: Exception, becomes: type[Exception]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(hub, "require_hub", lambda name: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", failing)
    monkeypatch.setattr("datasets.load_dataset", failing)
    for fetch in (lambda: hub.load_dataset("hf:some/data:config"), lambda: hub.snapshot("hf:x", ["*"], what="a model")):
        with pytest.raises(becomes) as caught:
            fetch()
        assert "\n" not in str(caught.value)
