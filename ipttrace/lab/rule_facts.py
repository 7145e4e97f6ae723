"""What the rules of a save file say of the host that they were made for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from ipttrace.decode.iptables_save import VALUE_OPTIONS, split_words
from ipttrace.lab.old_syntax import translate
from ipttrace.lab.save_file import Line, SaveFile, SaveTable
from ipttrace.netfilter import TABLE_HOOKS, TableFamily

Network = IPv4Network | IPv6Network

OPTIONS = {
    "-i": "in",
    "--in-interface": "in",
    "-o": "out",
    "--out-interface": "out",
    "-s": "source",
    "--source": "source",
    "--src": "source",
    "-d": "destination",
    "--destination": "destination",
    "--dst": "destination",
    "-p": "protocol",
    "--protocol": "protocol",
    "-j": "target",
    "--jump": "target",
    "-g": "target",
    "--goto": "target",
    "--dport": "ports",
    "--destination-port": "ports",
    "--dports": "ports",
    "--destination-ports": "ports",
    "--ports": "ports",
    "--to-destination": "to",
    "--to": "to",
    "--to-source": "to",
    "--to-ports": "to",
    "--to-port": "to",
    "--physdev-in": "port-in",
    "--physdev-out": "port-out",
}

NAMED_PORTS = {
    "ftp": 21,
    "ssh": 22,
    "telnet": 23,
    "smtp": 25,
    "domain": 53,
    "http": 80,
    "www": 80,
    "pop3": 110,
    "ntp": 123,
    "imap2": 143,
    "imap": 143,
    "https": 443,
    "imaps": 993,
    "pop3s": 995,
    "mysql": 3306,
    "postgresql": 5432,
}
"""Some of /etc/services: iptables-save writes numbers, people write names."""
PROTOCOLS = {"6": "tcp", "17": "udp"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What one rule says, in values; what it negates is left out but for `not_out`."""

    line: int
    source: str
    """The file."""
    version: int
    """Of IP: 4 or 6."""
    table: str
    chain: str
    hooks: frozenset[str]
    """The built-in chains from which it can be reached."""
    target: str
    to_chain: bool
    """Whether its target is a chain of the user's."""
    in_interface: str | None
    out_interface: str | None
    not_out: str | None
    from_network: Network | None
    to_network: Network | None
    protocol: str | None
    ports: tuple[int, ...]
    odd_ports: tuple[str, ...]
    """Ports that are no numbers here, and ranges that only their ends stand for."""
    to: str | None
    """What a NAT target translates to."""
    bridge_ports: tuple[str, ...]

    @property
    def place(self) -> str:
        """`rules.v4 line 12`."""
        return f"{self.source} line {self.line}"


def facts_of(file: SaveFile) -> Iterator[Facts]:
    """Yield what each rule says."""
    for table in file.tables:
        said = [_options(split_words(translate(rule.body) or rule.body)) for rule in table.rules]
        targets = [options.get("target", "") for options, _ in said]
        reached = _reached(table, targets)
        chains = {line.chain for line in table.chains}
        for rule, (options, negated) in zip(table.rules, said, strict=True):
            hooks = reached.get(rule.chain, frozenset())
            yield _facts(_Place(file, table.name, rule, hooks), options, negated, chains)


@dataclass(frozen=True, slots=True)
class _Place:
    file: SaveFile
    table: str
    rule: Line
    hooks: frozenset[str]


def _facts(
    place: _Place,
    said: Mapping[str, str],
    negated: Mapping[str, str],
    chains: Collection[str],
) -> Facts:
    ports, odd = _ports(said.get("ports", ""))
    version = 6 if place.file.family is TableFamily.IP6 else 4
    target = said.get("target", "")
    return Facts(
        line=place.rule.number,
        source=place.file.source,
        version=version,
        table=place.table,
        chain=place.rule.chain,
        hooks=place.hooks,
        target=target,
        to_chain=target in chains,
        in_interface=said.get("in"),
        out_interface=said.get("out"),
        not_out=negated.get("out"),
        from_network=_network(said.get("source"), version),
        to_network=_network(said.get("destination"), version),
        protocol=PROTOCOLS.get(said.get("protocol", ""), said.get("protocol")),
        ports=ports,
        odd_ports=odd,
        to=said.get("to"),
        bridge_ports=tuple(said[name] for name in ("port-in", "port-out") if name in said),
    )


def _options(words: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the values of the options we know, and of those that stand behind a `!`."""
    said: dict[str, str] = {}
    negated: dict[str, str] = {}
    at = 0
    while at < len(words) - 1:
        word = words[at]
        if word in OPTIONS:
            into = negated if at > 0 and words[at - 1] == "!" else said
            into.setdefault(OPTIONS[word], words[at + 1])
            at += 2
        else:
            at += 2 if word in VALUE_OPTIONS else 1
    return said, negated


@lru_cache(100_000)
def _network(text: str | None, version: int) -> Network | None:
    """Return a network, None for any and for what is none."""
    if text is None:
        return None
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    return network if network.version == version and network.prefixlen > 0 else None


def _ports(text: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the ports of `22`, `ssh`, `80,443` and the ends of ranges, and what is odd."""
    ports: dict[int, None] = {}
    odd = []
    for part in filter(None, text.split(",")):
        ends = [_port(end) for end in part.split(":")]
        ports |= {end: None for end in ends if end is not None}
        if len(ends) > 1 or None in ends:
            odd.append(part)
    return tuple(ports), tuple(odd)


def _port(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdecimal() else NAMED_PORTS.get(text)
    return number if number is not None and 1 <= number <= 65535 else None


def _reached(table: SaveTable, targets: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return for each chain the built-in chains from which it is reached."""
    names = {line.chain for line in table.chains}
    jumps: dict[str, set[str]] = {}
    for rule, target in zip(table.rules, targets, strict=True):
        if target in names:
            jumps.setdefault(rule.chain, set()).add(target)
    reached: dict[str, set[str]] = {}
    for hook in TABLE_HOOKS.get(table.name, ()):
        todo = [hook.value]
        while todo:
            chain = todo.pop()
            if hook.value not in reached.setdefault(chain, set()):
                reached[chain].add(hook.value)
                todo += jumps.get(chain, ())
    return {chain: frozenset(hooks) for chain, hooks in reached.items()}
