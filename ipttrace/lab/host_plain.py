"""What `ip` says in words, where it knows no JSON: iproute2 before 4.14, and busybox.

Each reader passes over what it does not know; what a route or a rule has beside its fields is kept
in `other`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from ipttrace.lab.host_state import LinkState, ListenerState, PolicyState, RouteState
from ipttrace.lab.host_words import ROUTE_FLAGS, is_ours

BEGIN = re.compile(r"\d+: (?P<name>[^\s:@]+)(?:@(?P<peer>\S+))?: <(?P<flags>[^>]*)>(?P<rest>.*)")
KINDS = frozenset(
    {
        *("bond", "bridge", "dummy", "gre", "gretap", "ifb", "ip6tnl", "ipip", "ipvlan", "macvlan"),
        *("macvtap", "ppp", "sit", "team", "tun", "veth", "vlan", "vrf", "vti", "vxlan"),
        "wireguard",
    }
)
ROUTE_TYPES = frozenset(
    {
        *("unicast", "local", "broadcast", "multicast", "anycast", "throw"),
        *("blackhole", "unreachable", "prohibit"),
    }
)
ROUTE_VALUES = {
    "via": "via",
    "dev": "interface",
    "table": "table",
    "proto": "protocol",
    "src": "source",
    "metric": "metric",
    "mtu": "mtu",
}
SILENT = frozenset({"scope", "pref", "error", "hoplimit", "expires"})
RULE_VALUES = {
    "to": "to",
    "fwmark": "mark",
    "iif": "in_interface",
    "oif": "out_interface",
    "lookup": "table",
    "suppress_prefixlength": "suppress",
    "uidrange": "uidrange",
    "tos": "dsfield",
    "dsfield": "dsfield",
    "ipproto": "ipproto",
    "sport": "sport",
    "dport": "dport",
}
NETSTAT = frozenset({"tcp", "tcp6", "udp", "udp6"})
ENDPOINT = re.compile(r"(?P<address>.*):(?P<port>[1-9]\d{0,4})\Z")
RULE_ENDS = frozenset({"blackhole", "unreachable", "prohibit"})


def plain_links(text: str) -> tuple[LinkState, ...]:
    """Return what `ip -d addr`, or `ip addr`, says."""
    links = [_link(block) for block in _blocks(text)]
    masters = {link.master for link in links}
    # Without -d the kind is not said; most masters are bridges.
    unsaid = {link.name for link in links if not link.kind} & masters
    return tuple(
        msgspec.structs.replace(link, kind="bridge") if link.name in unsaid else link
        for link in links
    )


def _blocks(text: str) -> Iterator[list[str]]:
    """Yield the lines of each interface."""
    block: list[str] = []
    for line in text.splitlines():
        if BEGIN.match(line):
            if block:
                yield block
            block = [line]
        elif block:
            block.append(line)
    if block:
        yield block


def _link(block: list[str]) -> LinkState:
    begin = BEGIN.match(block[0])
    assert begin is not None
    flags = begin["flags"].split(",")
    words = begin["rest"].split()
    rows = [line.split() for line in block[1:] if line.strip()]
    kind = next((row[0] for row in rows if row[0] in KINDS), "")
    ether = [row[1] for row in rows if row[0] == "link/ether" and len(row) > 1]
    held = [row for row in rows if row[0] in ("inet", "inet6") and len(row) > 1]
    mtu = _after(words, "mtu")
    return LinkState(
        name=begin["name"],
        kind=kind or ("loopback" if "LOOPBACK" in flags else ""),
        up="UP" in flags,
        carrier="NO-CARRIER" not in flags,
        arp="NOARP" not in flags,
        mtu=int(mtu) if mtu and mtu.isdecimal() else None,
        mac=ether[0] if ether else None,
        master=_after(words, "master"),
        peer=begin["peer"] if kind == "veth" and not _is_index(begin["peer"]) else None,
        addresses=tuple(_address(row) for row in held),
        peers=tuple(row[3] for row in held if row[2:3] == ["peer"] and len(row) > 3),
    )


def _is_index(peer: str | None) -> bool:
    """Tell whether a peer is elsewhere: `if5` is its number there."""
    return peer is None or re.fullmatch(r"if\d+", peer) is not None


def _address(row: list[str]) -> str:
    if "/" in row[1]:
        return row[1]
    return f"{row[1]}/{32 if row[0] == 'inet' else 128}"


def _after(words: list[str], name: str) -> str | None:
    at = words.index(name) if name in words else len(words)
    return words[at + 1] if at + 1 < len(words) else None


def plain_routes(text: str, family: str) -> tuple[RouteState, ...]:
    """Return what `ip route show table all` says, without what the kernel adds by itself."""
    found: list[RouteState] = []
    lines = [line for line in text.splitlines() if line.strip()]
    for at, line in enumerate(lines):
        if line[0].isspace():
            continue
        ways = []
        for following in lines[at + 1 :]:
            if not following[0].isspace():
                break
            ways.append(following.split())
        found.append(_route(line.split(), ways, family))
    return tuple(route for route in found if route.table != "local" and is_ours(route))


def _route(words: list[str], ways: list[list[str]], family: str) -> RouteState:
    kind = words.pop(0) if words[0] in ROUTE_TYPES else "unicast"
    to = words.pop(0) if words else "default"
    said, other = _said([*words, *(ways[0][1:] if ways else [])])
    others = (_said(way[1:])[0] for way in ways[1:])
    other += [f"a way via {way.get('via')} dev {way.get('interface')}" for way in others]
    ends = (to, said.get("via", ""))
    metric, mtu = said.get("metric", ""), said.get("mtu", "")
    return RouteState(
        to=to,
        family="ipv6" if any(":" in end for end in ends) else family,
        via=said.get("via"),
        interface=said.get("interface") if kind == "unicast" else None,
        table=said.get("table", "main"),
        type=kind,
        source=said.get("source"),
        metric=int(metric) if metric.isdecimal() else None,
        mtu=int(mtu) if mtu.isdecimal() else None,
        onlink="onlink" in said,
        protocol=said.get("protocol", ""),
        other=", ".join(other),
    )


def _said(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the values of the words that a route has fields for, and the other words."""
    said: dict[str, str] = {}
    other: list[str] = []
    left = iter(words)
    for word in left:
        if word in ROUTE_VALUES:
            value = next(left, "")
            if word == "via" and value in ("inet", "inet6"):
                value = next(left, "")
            if value == "lock":
                value = next(left, "")
            said[ROUTE_VALUES[word]] = value
        elif word in SILENT or word == "weight":
            next(left, None)
        elif word in ROUTE_FLAGS:
            said[word] = word
        else:
            other.append(word)
    return said, other


def plain_policy(text: str, family: str) -> tuple[PolicyState, ...]:
    """Return what `ip rule` says."""
    rows = (line.partition(":") for line in text.splitlines())
    return tuple(
        _policy(int(priority), rest.split(), family)
        for priority, colon, rest in rows
        if colon and priority.strip().isdecimal()
    )


def _policy(priority: int, words: list[str], family: str) -> PolicyState:
    said: dict[str, str] = {}
    other: list[str] = []
    left = iter(words)
    for word in left:
        if word == "from":
            said["from"] = next(left, "all")
        elif word in RULE_VALUES:
            said[RULE_VALUES[word]] = next(left, "")
        elif word in RULE_ENDS:
            said["action"] = word
        elif word == "not":
            said["not"] = word
        else:
            other.append(word)
    source = said.get("from", "all")
    return PolicyState(
        priority=priority,
        family=family,
        source=None if source == "all" else source,
        to=said.get("to"),
        mark=said.get("mark"),
        in_interface=said.get("in_interface"),
        out_interface=said.get("out_interface"),
        table=said.get("table"),
        action=said.get("action", "lookup"),
        inverted="not" in said,
        suppress_prefix=int(said["suppress"]) if said.get("suppress", "").isdecimal() else None,
        uidrange=said.get("uidrange"),
        dsfield=said.get("dsfield"),
        ipproto=said.get("ipproto"),
        sport=said.get("sport"),
        dport=said.get("dport"),
        other=" ".join(other),
    )


def plain_listeners(text: str) -> tuple[ListenerState, ...]:
    """Return what `netstat -lntup` says."""
    found: dict[ListenerState, None] = {}
    for line in text.splitlines():
        words = line.split()
        match = ENDPOINT.match(words[3]) if len(words) > 4 else None
        if match and words[0] in NETSTAT:
            process = words[-1].partition("/")[2]
            address = "*" if match["address"] == "::" else match["address"]
            listener = ListenerState(words[0][:3], address, int(match["port"]), process=process)
            found[listener] = None
    return tuple(found)
