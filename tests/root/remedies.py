"""What the tests of remedies have in common: a router between a client and a service."""

from __future__ import annotations

from typing import Any

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.probe import ProbeSpec
from tests.root.causes import Probed, probe
from tests.root.kernel import Iptables, Listeners, Namespaces, run
from tests.root.routed import Routed, build_routed

V4 = PacketFamily.IPV4
PORT, WAIT = 80, 6.0
OTHER = "198.51.100.77"
"""Another address of the client."""

full = pytest.mark.full


def later(*wanted: tuple[object, ...]) -> list[Any]:
    """Return parameters that are not of the default run."""
    return [pytest.param(*each, marks=full) for each in wanted]


def build_served(namespaces: Namespaces, listen: Listeners) -> Routed:
    """Return client -- router -- backend, where a service listens."""
    made = build_routed(namespaces)
    listen(made.backend.netns, made.backend.ipv4, PORT)
    run("ip", "-n", made.client.netns, "address", "add", f"{OTHER}/24", "dev", "eth0")
    link = run("ip", "-n", made.client.netns, "-br", "link", "show", "eth0").split()[2]
    entry = f"neigh add {OTHER} lladdr {link} dev eth0 nud permanent"
    run("ip", "-n", made.netns, *entry.split())
    return made


def send(routed: Routed, src: str | None = None, **words: object) -> Probed:
    """Probe the backend by a real client."""
    spec = ProbeSpec("tcp", routed.backend.ipv4, PORT, src=src, wait=WAIT)
    return probe(spec, routed.netns, from_netns=routed.client.netns, **words)


def follow(routed: Routed, remedy: str) -> None:
    """Run the command of a remedy in the router."""
    run("sh", "-c", remedy.partition(": ")[2], netns=routed.netns)


def nft(routed: Routed, *lines: str) -> None:
    """Load native nft commands into the router."""
    run("nft", "-f", "-", netns=routed.netns, stdin="\n".join(lines))


def add(routed: Routed, iptables: Iptables, *lines: str) -> None:
    """Add rules to the router, each as words of iptables."""
    for line in lines:
        iptables(routed.netns, V4, *line.split())


def ip(routed: Routed, words: str) -> None:
    """Run a command of ip in the router."""
    run("ip", "-n", routed.netns, *words.split())


def works(routed: Routed, probed: Probed, number: int = 0) -> None:
    """Fail unless the remedy lets the packet and its answers pass."""
    follow(routed, probed.diagnosis.remedy[number])
    assert send(routed).cause == "answered"
