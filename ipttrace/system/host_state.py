"""Reading the state of one namespace for a snapshot; changes nothing.

A legacy table that does not exist is not asked for, because to ask is to make it (see `rulesets`),
and nf_tables is asked only where it has tables.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ipttrace.errors import NotSupportedError
from ipttrace.lab.host_state import ListenerState, Snapshot
from ipttrace.lab.snapshot_file import END, snapshot_of_sections
from ipttrace.lab.sysctls import PLAIN, name_of, paths_of_interfaces
from ipttrace.netfilter import PacketFamily
from ipttrace.system import commands
from ipttrace.system.commands import Running
from ipttrace.system.namespaces import Namespace
from ipttrace.system.rulesets import present

TIMEOUT = 60.0
"""Seconds: 50,000 rules take some."""
IP_COMMANDS = (
    "ip -d -j addr",
    "ip -4 -j route show table all",
    "ip -6 -j route show table all",
    "ip -4 -j rule",
    "ip -6 -j rule",
)
SOCKETS = "ss -lntup"
SYS = Path("/proc/sys")
PROC_NET = Path("/proc/thread-self/net")
LISTENING = {"tcp": "0A", "udp": "07"}
"""TCP_LISTEN, TCP_CLOSE as /proc/net/tcp and udp write them (net/ipv4/tcp_ipv4.c)."""


def read_host(namespace: Namespace, now: float) -> Snapshot:
    """Return the state of a namespace; `now` is in seconds since the epoch.

    Raises NotSupportedError without ip(8), NotPermittedError where we may not look; everything
    else that cannot be read is named in `unread`.
    """
    unread: list[str] = []
    started = _started(namespace, unread)
    sections = {END: "", "uname -a": " ".join(os.uname())}
    sections |= {command: _output(running) for command, running in started.items()}
    snapshot = snapshot_of_sections(sections)
    listeners = snapshot.listeners
    if SOCKETS not in sections:
        listeners = namespace.run(listeners_in_proc)
    where = f" ({namespace})" if namespace.name else ""
    return msgspec.structs.replace(
        snapshot,
        host=f"{os.uname().nodename}{where}",
        taken=datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        sysctls=namespace.run(_sysctls),
        listeners=listeners,
        unread=(*snapshot.unread, *unread),
    )


def _started(namespace: Namespace, unread: list[str]) -> dict[str, Running]:
    """Start all programs at once; return them by the command that a section is called by."""
    programs = list(IP_COMMANDS)
    if commands.find("ip") is None:
        raise NotSupportedError(
            f"cannot read {namespace}: there is no program ip",
            "Install it: apt-get install iproute2",
        )
    programs += _rule_commands(namespace, unread)
    for optional in ("ipset save", SOCKETS):
        if commands.find(optional.split()[0]) is not None:
            programs.append(optional)
    return {command: _start(_arguments(command), namespace) for command in programs}


def _arguments(command: str) -> list[str]:
    """Return the words of a command, with the program that is there for it."""
    program, *rest = command.split()
    if commands.find(program) is None:
        program = program.replace("-legacy", "").replace("-nft", "")
    return [program, *rest]


def _rule_commands(namespace: Namespace, unread: list[str]) -> list[str]:
    """Return what is to be asked for rules: only what has tables."""
    there = namespace.run(present)
    wanted = []
    for family in PacketFamily:
        program = "iptables" if family is PacketFamily.IPV4 else "ip6tables"
        if family in there.legacy:
            wanted.append(f"{program}-legacy-save -c")
        if family.table_family in there.nft:
            wanted.append(f"{program}-nft-save -c")
    if there.nft:
        wanted.append("nft list ruleset")
    found = []
    for command in wanted:
        if commands.find(_arguments(command)[0]) is None:
            unread.append(f"{command}: there are tables, and no such program")
        else:
            found.append(command)
    return found


def _start(arguments: Sequence[str], namespace: Namespace) -> Running:
    what = f"cannot read the state of {namespace} ({' '.join(arguments)})"
    return commands.start(arguments, what=what, namespace=namespace)


def _output(running: Running) -> str:
    text = running.output(TIMEOUT)
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _sysctls() -> dict[str, str]:
    """Return the settings that matter, of the calling thread's namespace."""
    interfaces = [name for _, name in socket.if_nameindex()]
    paths = [*sorted(PLAIN), *paths_of_interfaces(interfaces)]
    found = {path: _text(SYS / path) for path in paths}
    return {name_of(path): text for path, text in found.items() if text is not None}


def _text(path: Path) -> str | None:
    try:
        return " ".join(path.read_text().split())
    except OSError:
        return None


# ---------------------------------------------------------------- without ss


def listeners_in_proc() -> tuple[ListenerState, ...]:
    """Return the sockets that wait, as /proc/net tells: not to which interface they are bound."""
    found: dict[ListenerState, None] = {}
    for protocol, state in LISTENING.items():
        for version in ("", "6"):
            for row in _rows(PROC_NET / f"{protocol}{version}"):
                if row[3] == state:
                    found[_listener(protocol, row[1])] = None
    return tuple(each for each in found if each.port)


def _rows(table: Path) -> Iterable[list[str]]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        yield line.split()


def _listener(protocol: str, endpoint: str) -> ListenerState:
    """Read `0100007F:1F90`: 32-bit words in host order, the port as a number."""
    digits, _, port = endpoint.partition(":")
    words = [digits[at : at + 8] for at in range(0, len(digits), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, "little") for word in words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    address = socket.inet_ntop(family, packed)
    return ListenerState(protocol, "*" if address == "::" else address, int(port, 16))
