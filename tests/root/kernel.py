"""Private network namespaces, their rules and their sockets, for tests on the real kernel."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.system.ipv6_addresses import all_in_use
from ipttrace.system.namespaces import HERE, NAMED, Namespace
from tests.waiting import wait_until

INTERFACE = "eth0"
"""The name of both ends of a pair, each in its own namespace."""


def unique_name(part: str, prefix: str = "t") -> str:
    """Return a name for a namespace that no other test run has."""
    return f"ipt-{prefix}{os.getpid()}-{secrets.token_hex(3)}-{part}"


def run(*command: str, netns: str | None = None, stdin: str | None = None) -> str:
    """Run a program, in namespace `netns` if given; return its stdout, or fail the test."""
    done = in_namespace(netns).run(
        lambda: subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, f"{' '.join(command)} in {netns}: {done.stderr.strip()}"
    return done.stdout


def in_namespace(netns: str | None) -> Namespace:
    """Return the namespace of a name of `ip netns`; None is the one the tests run in."""
    return HERE if netns is None else Namespace(netns, NAMED / netns)


def set_sysctl(netns: str, name: str, value: str) -> None:
    """Write a `net.*` setting of a namespace; `name` is a path below /proc/sys."""
    in_namespace(netns).run(lambda: Path("/proc/sys", name).write_text(value))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One namespace with one interface, and the addresses it has there."""

    netns: str
    ipv4: str
    ipv6: str
    interface: str = INTERFACE

    def address(self, family: PacketFamily) -> str:
        """Return the address of that family."""
        return self.ipv4 if family is PacketFamily.IPV4 else self.ipv6

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a program here; return its stdout."""
        return run(*command, netns=self.netns, stdin=stdin)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket here."""
        return in_namespace(self.netns).run(lambda: socket.socket(family, kind, protocol))


class Namespaces:
    """Makes namespaces, and deletes all of them at the end."""

    def __init__(self, prefix: str = "t") -> None:
        self._stack = ExitStack()
        self._prefix = prefix

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, part: str) -> str:
        """Make a namespace with `lo` up and no duplicate address detection; return its name."""
        name = unique_name(part, self._prefix)
        run("ip", "netns", "add", name)
        self._stack.callback(run, "ip", "netns", "del", name)
        for scope in ("all", "default"):
            set_sysctl(name, f"net/ipv6/conf/{scope}/accept_dad", "0")
            set_sysctl(name, f"net/ipv6/conf/{scope}/router_solicitations", "0")
        run("ip", "link", "set", "lo", "up", netns=name)
        return name


@dataclass(frozen=True, slots=True)
class Pair:
    """`client` -- `server`, joined by a veth link, each with both families."""

    client: Endpoint
    server: Endpoint


ODD_INDEX = "index 7"
"""For a veth end whose peer has another index: the kernel tells at once, not within a second, of
the carrier of a device that stands on one with another index (linkwatch_urgent_event)."""


def build_pair(namespaces: Namespaces) -> Pair:
    """Make two namespaces that reach each other."""
    pair = Pair(
        Endpoint(namespaces.add("client"), "198.51.100.2", "2001:db8::2"),
        Endpoint(namespaces.add("server"), "198.51.100.1", "2001:db8::1"),
    )
    client, server = pair.client.netns, pair.server.netns
    link = f"link add {INTERFACE} {ODD_INDEX} type veth peer name {INTERFACE} netns {server}"
    run("ip", *link.split(), netns=client)
    for end in (pair.client, pair.server):
        lines = (
            f"address add {end.ipv4}/24 dev {end.interface}",
            f"address add {end.ipv6}/64 dev {end.interface} nodad",
            f"link set {end.interface} up",
        )
        end.run("ip", "-batch", "-", stdin="\n".join(lines))
    for end in (pair.client, pair.server):
        wait_for_ipv6(end)
    return pair


def wait_for_ipv6(end: Endpoint) -> None:
    """Return once `end` answers neighbour solicitations: its addresses are in use, link-local too.
    The kernel adds that one when linkwatch tells of the carrier.
    """
    wait_until(lambda: _has_link_local(end), what=f"a link-local address in {end.netns}")
    wait_for_addresses(end.netns)


def _has_link_local(end: Endpoint) -> bool:
    table = Path("/proc/thread-self/net/if_inet6")
    rows = [line.split() for line in in_namespace(end.netns).run(table.read_text).splitlines()]
    return any(row[5] == end.interface and row[0].startswith("fe80") for row in rows)


def wait_for_addresses(netns: str) -> None:
    """Return once packets to each of the IPv6 addresses there are taken, `nodad` or not."""
    inside = in_namespace(netns)
    wait_until(lambda: inside.run(all_in_use), what=f"IPv6 addresses in use in {netns}")


@dataclass(frozen=True, slots=True)
class Iptables:
    """`iptables` and `ip6tables` of one backend."""

    backend: Backend

    def __call__(self, netns: str, family: PacketFamily, *words: str) -> str:
        """Run iptables or ip6tables in `netns`, waiting for the lock; return its stdout."""
        program = "iptables" if family is PacketFamily.IPV4 else "ip6tables"
        return run(f"{program}-{self.backend}", "-w", "20", *words, netns=netns)

    def save(self, netns: str, family: PacketFamily) -> str:
        """Return `iptables-save -c`."""
        program = "iptables" if family is PacketFamily.IPV4 else "ip6tables"
        return run(f"{program}-{self.backend}-save", "-c", netns=netns)


class Listeners:
    """Opens listening sockets in namespaces, and closes all of them at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, netns: str, address: str, port: int, protocol: str = "tcp") -> socket.socket:
        """Bind `address` and `port` in `netns`; the kernel itself completes TCP handshakes."""
        version = ipaddress.ip_address(address).version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        opened = in_namespace(netns).run(lambda: socket.socket(family, kind))
        self._stack.callback(opened.close)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
        if protocol == "tcp":
            opened.listen(64)
        return opened


KERNEL_LOG_LOCK = Path(tempfile.gettempdir()) / "ipttrace-tests-kernel-log.lock"


@contextmanager
def kernel_log_settings() -> Iterator[None]:
    """Keep nf_log_all_netns, a setting of the first namespace, to this process for a while."""
    with KERNEL_LOG_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


COUNTERS = re.compile(r"\[\d+:\d+\]")
SAVE_PROGRAMS = ("iptables-legacy-save", "ip6tables-legacy-save")
LOG_SETTINGS = Path("/proc/sys/net/netfilter")


def load_loggers() -> None:
    """Load the kernel log's logger, where it is a module, before anything is looked at.

    Loading it sets the loggers of the namespaces that are there, the first one too, and the first
    LOG rule or trace would do it (nf_log_syslog_init in net/netfilter/nf_log_syslog.c).
    """
    if Path("/proc/modules").exists():
        run("modprobe", "nf_log_syslog")


def first_namespace() -> dict[str, str]:
    """Return what no test may change in the namespace that the tests run in."""
    state = {program: _rules(run(program)) for program in SAVE_PROGRAMS}
    state["nft"] = run("nft", "-s", "list", "ruleset")
    state["links"] = run("ip", "-o", "link")
    for version in ("-4", "-6"):
        state[f"routes {version}"] = run("ip", version, "route", "show", "table", "all")
        state[f"routing rules {version}"] = run("ip", version, "rule")
    for path in [*LOG_SETTINGS.glob("nf_log/*"), LOG_SETTINGS / "nf_log_all_netns"]:
        state[str(path)] = path.read_text()
    return state


def _rules(saved: str) -> str:
    lines = (line for line in saved.splitlines() if not line.startswith("#"))
    return COUNTERS.sub("", "\n".join(lines))
