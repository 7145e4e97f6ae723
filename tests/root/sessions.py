"""Guardians for tests: each with its own session, all taken back at the end."""

from __future__ import annotations

import re
import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from ipttrace.netfilter import Backend, Hook, PacketFamily
from ipttrace.packet import Flow
from ipttrace.request import TraceRequest
from ipttrace.ruleset import TAG
from ipttrace.system.guardian import Guardian
from tests.root.kernel import in_namespace, run

LOOPBACK = {PacketFamily.IPV4: "127.0.0.1", PacketFamily.IPV6: "::1"}
FAR = {PacketFamily.IPV4: "203.0.113.7", PacketFamily.IPV6: "2001:db8:7::7"}
PORT = 8445
COMMENT = re.compile(rf'--comment "?{TAG}([a-z0-9]+)"?')


def new_session() -> str:
    """Return a session's name that no other test has."""
    return secrets.token_hex(4)


def tcp_flow(family: PacketFamily, src: str | None = None) -> Flow:
    """Return a TCP flow to the loopback address."""
    return Flow(family, "tcp", src or FAR[family], LOOPBACK[family], 40000, PORT)


def udp_flow(family: PacketFamily) -> Flow:
    """Return a UDP flow over `lo`, its source port open."""
    return Flow(family, "udp", LOOPBACK[family], LOOPBACK[family], None, PORT)


def send_udp(netns: str, family: PacketFamily, count: int = 1) -> None:
    """Send datagrams of `udp_flow`; nobody listens."""
    version = socket.AF_INET if family is PacketFamily.IPV4 else socket.AF_INET6

    def send() -> None:
        for _ in range(count):
            with socket.socket(version, socket.SOCK_DGRAM) as client:
                client.sendto(b"ipttrace", (LOOPBACK[family], PORT))

    in_namespace(netns).run(send)


@dataclass
class Guardians:
    """Starts guardians in namespaces; disarms all at the end."""

    notices: list[str] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, netns: str, session: str, *, legacy: bool = True) -> Guardian:
        """Start a guardian; what it notices goes to `notices`."""
        guardian = Guardian.start(
            in_namespace(netns), session=session, legacy=legacy, notify=self.notices.append
        )
        self._stack.callback(guardian.disarm)
        return guardian


def request(
    backend: Backend, flow: Flow, *, session: str | None = None, hook: Hook = Hook.PREROUTING
) -> TraceRequest:
    """Return a request for the raw trigger of one backend, without replies."""
    return replace(
        TraceRequest(session or new_session(), hook, flow, replies=False),
        backends=frozenset({backend}),
    )


def program(backend: Backend, family: PacketFamily) -> str:
    """Return `iptables-legacy` or one of its three siblings."""
    return f"{'iptables' if family is PacketFamily.IPV4 else 'ip6tables'}-{backend}"


def saved_raw(netns: str, backend: Backend, family: PacketFamily) -> list[str]:
    """Return the raw table as its own tool saves it, counters too; nothing if there is none."""
    names = "ip_tables_names" if family is PacketFamily.IPV4 else "ip6_tables_names"
    tables = in_namespace(netns).run(Path("/proc/thread-self/net", names).read_text).split()
    if backend is Backend.LEGACY and "raw" not in tables:
        return []
    lines = run(f"{program(backend, family)}-save", "-c", netns=netns).splitlines()
    start = lines.index("*raw") if "*raw" in lines else len(lines)
    return [line for line in lines[start:] if line.startswith((":", "["))][: _end(lines[start:])]


def _end(lines: list[str]) -> int:
    """Return how many chains and rules there are before the table's COMMIT."""
    body = lines[: lines.index("COMMIT")] if "COMMIT" in lines else lines
    return sum(line.startswith((":", "[")) for line in body)


def own_rules(netns: str, backend: Backend, family: PacketFamily) -> list[str]:
    """Return the rules in raw that bear a tag of ours."""
    return [line for line in saved_raw(netns, backend, family) if COMMENT.search(line)]


def nft_tables(netns: str) -> list[str]:
    """Return the nft tables as `family name`."""
    listed = run("nft", "list", "tables", netns=netns).splitlines()
    return [line.removeprefix("table ") for line in listed if line]


def restore(netns: str, backend: Backend, family: PacketFamily, *lines: str) -> None:
    """Load the raw table with counters, as `iptables-restore -c` does."""
    text = "\n".join(["*raw", *lines, "COMMIT", ""])
    run(f"{program(backend, family)}-restore", "-c", netns=netns, stdin=text)
