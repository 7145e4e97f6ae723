"""What `ipset save` writes, as far as sets can be built without that program.

A set is `create NAME TYPE options`, an entry `add NAME ENTRY options` (ipset(8)).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from ipttrace.lab.missing import Missing
from ipttrace.lab.parts import check_interface_name

TYPES = frozenset(
    {
        *("hash:ip", "hash:net", "hash:ip,port", "hash:net,port", "hash:net,iface"),
        *("hash:ip,port,ip", "hash:ip,port,net", "list:set"),
    }
)
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136}
NAME_BYTES = 31
"""IPSET_MAXNAMELEN is 32 with the final zero (uapi/linux/netfilter/ipset/ip_set.h)."""
MOST_ENTRIES = 3000
"""Of all sets: each takes a question to the kernel."""
FAMILIES = {"inet": 4, "inet6": 6}
WITHOUT = {
    "netmask": "its mask",
    "bitmask": "its mask",
    "markmask": "its mask",
}
"""Options of a set that change what it holds."""
ENTRY_WITHOUT = frozenset({"nomatch"})
"""An entry with it is an exception: without it, it would mean the contrary."""
VALUED = frozenset(
    {
        *("family", "hashsize", "maxelem", "timeout", "netmask", "bitmask", "markmask", "size"),
        *("bucketsize", "initval", "range", "packets", "bytes", "comment", "skbmark", "skbprio"),
        "skbqueue",
    }
)


@dataclass(slots=True)
class IpSet:
    """One set."""

    name: str
    type: str
    family: str
    maxelem: int | None
    entries: list[str] = field(default_factory=list)

    @property
    def parts(self) -> tuple[str, ...]:
        """What an entry consists of: `ip`, `net`, `port`, `iface`, `set`."""
        return tuple(self.type.partition(":")[2].split(","))

    def lines(self) -> list[str]:
        """Return the set as `ipset save` writes it."""
        limit = f" maxelem {self.maxelem}" if self.maxelem else ""
        family = "" if self.type == "list:set" else f" family {self.family}"
        begin = f"create {self.name} {self.type}{family}{limit}"
        return [begin, *(f"add {self.name} {entry}" for entry in self.entries)]


@dataclass(slots=True)
class IpSets:
    """Sets, and the lines that none of them holds."""

    sets: dict[str, IpSet] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)

    def text(self) -> str:
        """Return the sets as `ipset save` writes them."""
        return "".join(f"{line}\n" for each in self.sets.values() for line in each.lines())


def read_ipsets(text: str, source: str = "ipset") -> IpSets:
    """Return the sets that can be built; each line that cannot be had is named."""
    found = IpSets()
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    # A list may name sets that come behind it.
    for number, line in sorted(lines, key=lambda each: each[1].startswith("add ")):
        try:
            _take(found, shlex.split(line))
        except ValueError as error:
            found.missing.append(Missing(line, str(error), source, number))
    found.missing.sort(key=lambda each: each.line or 0)
    return found


def _take(found: IpSets, words: Sequence[str]) -> None:
    if words[0] == "create":
        made = _created(words)
        found.sets[made.name] = made
    elif words[0] == "add":
        _add(found, words)
    else:
        raise ValueError("it is no line of ipset save")


def _created(words: Sequence[str]) -> IpSet:
    if len(words) < 3:
        raise ValueError("a set needs a name and a type")
    name, kind = words[1:3]
    if not name.isprintable() or len(name.encode()) > NAME_BYTES:
        raise ValueError("it cannot name a set")
    if kind not in TYPES:
        raise ValueError(f"sets of type {kind} are not built")
    options = dict(_options(words[3:]))
    for option, what in WITHOUT.items():
        if option in options:
            raise ValueError(f"a set is not built without {what}: {option} {options[option]}")
    family = options.get("family", "inet")
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family}")
    limit = options.get("maxelem", "")
    return IpSet(name, kind, family, int(limit) if limit.isdecimal() else None)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    left = iter(words)
    for word in left:
        yield word, next(left, "") if word in VALUED else ""


def _add(found: IpSets, words: Sequence[str]) -> None:
    if len(words) < 3 or words[1] not in found.sets:
        raise ValueError("its set is not built")
    if sum(len(each.entries) for each in found.sets.values()) >= MOST_ENTRIES:
        raise ValueError(f"more than {MOST_ENTRIES} entries")
    options = dict(_options(words[3:]))
    for option in ENTRY_WITHOUT & options.keys():
        raise ValueError(f"no entry is added without its {option}")
    into = found.sets[words[1]]
    values = words[2].split(",")
    if len(values) != len(into.parts):
        raise ValueError(f"an entry of {into.type} has {len(into.parts)} parts")
    for part, value in zip(into.parts, values, strict=True):
        CHECKS[part](value, into, found)
    into.entries.append(words[2])


def _check_ip(value: str, into: IpSet, _: IpSets) -> None:
    if ip_address(value).version != FAMILIES[into.family]:
        raise ValueError(f"{value} is not of family {into.family}")


def _check_net(value: str, into: IpSet, _: IpSets) -> None:
    network = ip_network(value)
    if network.version != FAMILIES[into.family] or network.prefixlen == 0:
        raise ValueError(f"{value} is no network that the set can hold")


def _check_port(value: str, _: IpSet, __: IpSets) -> None:
    port_of(value)


def _check_iface(value: str, _: IpSet, __: IpSets) -> None:
    check_interface_name(value, "iface")


def _check_set(value: str, _: IpSet, found: IpSets) -> None:
    if value not in found.sets:
        raise ValueError(f"set {value} is not built")


CHECKS: dict[str, Callable[[str, IpSet, IpSets], None]] = {
    "ip": _check_ip,
    "net": _check_net,
    "port": _check_port,
    "iface": _check_iface,
    "set": _check_set,
}


def port_of(text: str) -> tuple[int, int]:
    """Return protocol and port of `tcp:80`, or of `80`, which is TCP's."""
    protocol, colon, port = text.rpartition(":")
    number = PROTOCOLS.get(protocol if colon else "tcp")
    if number is None or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{text} is no port of TCP, UDP, SCTP or UDP-Lite")
    return number, int(port)
