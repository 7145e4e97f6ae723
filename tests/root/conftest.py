"""Fixtures of the tests on the real kernel; the machinery is in tests/root/kernel.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ipttrace.errors import NotSupportedError
from ipttrace.netfilter import Backend, PacketFamily
from tests.root.kernel import (
    Iptables,
    Listeners,
    Namespaces,
    Pair,
    build_pair,
    first_namespace,
    kernel_log_settings,
    load_loggers,
)
from tests.root.routed import Routed, build_routed
from tests.root.sessions import Guardians
from tests.waiting import wait_until


@pytest.fixture(scope="session", autouse=True)
def untouched_first_namespace() -> Iterator[None]:
    """Fail the run if rules, links, routes or log settings of the first namespace changed."""
    if os.geteuid() != 0:
        yield
        return
    load_loggers()
    with kernel_log_settings():
        before = first_namespace()
    yield
    with kernel_log_settings():
        with suppress(AssertionError):
            wait_until(lambda: first_namespace() == before)
        after = first_namespace()
    changed = {name: (old, after.get(name)) for name, old in before.items()}
    assert {name: both for name, both in changed.items() if both[0] != both[1]} == {}


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """Makes namespaces: `namespaces.add("router")` returns the new one's name."""
    with Namespaces() as made:
        yield made


@pytest.fixture
def pair(namespaces: Namespaces) -> Pair:
    """Client 198.51.100.2, 2001:db8::2 -- server 198.51.100.1, 2001:db8::1."""
    return build_pair(namespaces)


@pytest.fixture(params=list(Backend), ids=str)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Both rule engines, one after the other."""
    return Backend(request.param)


@pytest.fixture(params=list(PacketFamily), ids=str)
def family(request: pytest.FixtureRequest) -> PacketFamily:
    """Both families, one after the other."""
    return PacketFamily(request.param)


@pytest.fixture
def iptables(backend: Backend) -> Iptables:
    """The iptables of the backend under test: `iptables(netns, family, "-A", "INPUT", ...)`."""
    return Iptables(backend)


@pytest.fixture
def listen(namespaces: Namespaces) -> Iterator[Listeners]:
    """Opens listening sockets: `listen(netns, address, port, "udp")`; closed before teardown."""
    with Listeners() as listeners:
        yield listeners


@pytest.fixture
def guardians() -> Iterator[Guardians]:
    """Starts guardians; all are disarmed at the end."""
    with Guardians() as made:
        yield made


@pytest.fixture
def routed(namespaces: Namespaces, iptables: Iptables) -> Routed:
    """Return client -- router -- backend; the router has a rule of the backend under test."""
    made = build_routed(namespaces)
    for family in PacketFamily:
        iptables(made.netns, family, "-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT")
    return made


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the kernel's events out of reach."""

    def refuse(session: str) -> object:
        raise NotSupportedError(f"no tracefs for {session}")

    monkeypatch.setattr("ipttrace.cli.compose.TraceInstance", refuse)
