"""What `ip -j`, `ss` and `sysctl` say of a host, as values of a snapshot.

Each reader raises ValueError for what it cannot read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ipttrace.lab.host_state import LinkState, ListenerState, PolicyState, RouteState
from ipttrace.lab.sysctls import matters

ROUTE_WORDS = frozenset(
    [
        "type",
        "dst",
        "gateway",
        "dev",
        "table",
        "protocol",
        "scope",
        "prefsrc",
        "metric",
        "flags",
        "metrics",
        "pref",
        "via",
        "error",
    ]
)
ROUTE_FLAGS = frozenset({"onlink", "linkdown", "dead", "pervasive", "offload", "trap"})
RULE_WORDS = frozenset(
    {
        *("priority", "src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "iif", "oif"),
        *("table", "action", "protocol", "not", "suppress_prefixlen"),
        *("uid_start", "uid_end", "tos", "dsfield", "ipproto"),
        *(f"{port}{part}" for port in ("sport", "dport") for part in ("", "_start", "_end")),
    }
)
BRIDGE_OPTIONS = (
    "vlan_filtering",
    "nf_call_iptables",
    "nf_call_ip6tables",
    "nf_call_arptables",
)
PROCESS = re.compile(r'users:\(\("((?:[^"\\]|\\.)*)"')
ENDPOINT = re.compile(r"(?P<address>.*?)(?:%(?P<interface>[^\]:]+))?(?P<close>\]?):(?P<port>\d+)\Z")
WAITING = {"tcp": "LISTEN", "udp": "UNCONN"}


def read_links(text: str) -> tuple[LinkState, ...]:
    """Return what `ip -d -j addr` says."""
    return tuple(_link(each) for each in _objects(text) if each.get("ifname"))


def _link(said: Mapping[str, Any]) -> LinkState:
    flags = said.get("flags", ())
    kind = said.get("linkinfo", {}).get("info_kind", "")
    addresses = [each for each in said.get("addr_info", ()) if "local" in each]
    return LinkState(
        name=str(said["ifname"]),
        kind=str(kind or ("loopback" if "LOOPBACK" in flags else "")),
        up="UP" in flags,
        carrier="NO-CARRIER" not in flags,
        arp="NOARP" not in flags,
        mtu=said.get("mtu"),
        mac=said.get("address") if said.get("link_type") == "ether" else None,
        master=said.get("master"),
        peer=said.get("link") if kind == "veth" else None,
        addresses=tuple(f"{each['local']}/{_length(each)}" for each in addresses),
        peers=tuple(f"{each['address']}/{each['prefixlen']}" for each in addresses if _peer(each)),
        other=", ".join(_options(said.get("linkinfo", {}))) if kind == "bridge" else "",
    )


def _options(linkinfo: Mapping[str, Any]) -> list[str]:
    """Return the options of a bridge that send frames another way, where they are set."""
    data = linkinfo.get("info_data", {})
    return [f"{option} {data[option]}" for option in BRIDGE_OPTIONS if data.get(option)]


def _peer(address: Mapping[str, Any]) -> bool:
    return "address" in address and address["address"] != address["local"]


def _length(address: Mapping[str, Any]) -> int:
    """Return the prefix of an address: with a peer, the length said is the peer's."""
    if _peer(address):
        return 32 if address.get("family") == "inet" else 128
    return int(address["prefixlen"])


def read_routes(text: str, family: str) -> tuple[RouteState, ...]:
    """Return what `ip -j route show table all` says, without what the kernel adds by itself."""
    routes = (_route(each, family) for each in _objects(text) if "dst" in each)
    return tuple(route for route in routes if route.table != "local" and is_ours(route))


def is_ours(route: RouteState) -> bool:
    """Tell whether a route is not one that every address brings with it."""
    return route.type in ("unicast", "blackhole", "unreachable", "prohibit", "throw")


def _route(said: Mapping[str, Any], family: str) -> RouteState:
    hops = said.get("nexthops", ())
    first = {**said, **hops[0]} if hops else said
    flags = {*said.get("flags", ()), *first.get("flags", ())}
    other = [f"a way via {_gateway(hop)} dev {hop.get('dev')}" for hop in hops[1:]]
    other += [f"{word} {said[word]}" for word in said if word not in ROUTE_WORDS | {"nexthops"}]
    other += sorted(flags - ROUTE_FLAGS)
    kind = str(said.get("type", "unicast"))
    metrics = {name: value for each in said.get("metrics", ()) for name, value in each.items()}
    ends = (str(said["dst"]), str(said.get("gateway", "")))
    return RouteState(
        to=ends[0],
        family="ipv6" if any(":" in end for end in ends) else family,
        via=_gateway(first),
        interface=first.get("dev") if kind == "unicast" else None,
        table=str(said.get("table", "main")),
        type=kind,
        source=said.get("prefsrc"),
        metric=said.get("metric"),
        mtu=metrics.get("mtu"),
        onlink="onlink" in flags,
        protocol=str(said.get("protocol", "")),
        other=", ".join(other),
    )


def _gateway(said: Mapping[str, Any]) -> str | None:
    if "via" in said:
        return str(said["via"].get("host"))
    gateway = said.get("gateway")
    return None if gateway is None else str(gateway)


def read_policy(text: str, family: str) -> tuple[PolicyState, ...]:
    """Return what `ip -j rule` says."""
    return tuple(_policy(each, family) for each in _objects(text))


def _policy(said: Mapping[str, Any], family: str) -> PolicyState:
    mark = said.get("fwmark")
    mask = said.get("fwmask")
    other = [
        word if said[word] is None else f"{word} {said[word]}" for word in said.keys() - RULE_WORDS
    ]
    return PolicyState(
        priority=int(said.get("priority", 0)),
        family=family,
        source=_network(said, "src"),
        to=_network(said, "dst"),
        mark=f"{mark}/{mask}" if mark and mask else mark,
        in_interface=said.get("iif"),
        out_interface=said.get("oif"),
        table=said.get("table"),
        action=str(said.get("action", "lookup")).replace("to_tbl", "lookup"),
        inverted="not" in said,
        suppress_prefix=said.get("suppress_prefixlen"),
        uidrange=_range(said, "uid"),
        dsfield=_word(said, "dsfield") or _word(said, "tos"),
        ipproto=_word(said, "ipproto"),
        sport=_range(said, "sport"),
        dport=_range(said, "dport"),
        other=", ".join(sorted(other)),
    )


def _word(said: Mapping[str, Any], word: str) -> str | None:
    return str(said[word]) if word in said else None


def _range(said: Mapping[str, Any], word: str) -> str | None:
    if f"{word}_start" in said:
        return f"{said[f'{word}_start']}-{said[f'{word}_end']}"
    return _word(said, word)


def _network(said: Mapping[str, Any], word: str) -> str | None:
    address = said.get(word, "all")
    if address == "all":
        return None
    length = said.get(f"{word}len")
    return str(address) if length is None else f"{address}/{length}"


def read_listeners(text: str) -> tuple[ListenerState, ...]:
    """Return what `ss -lntup` says; lines that are no socket are passed over."""
    found: dict[tuple[object, ...], ListenerState] = {}
    for line in text.splitlines():
        words = line.split(None, 5)
        if len(words) < 5 or WAITING.get(words[0]) != words[1]:
            continue
        match = ENDPOINT.match(words[4])
        if match is None or not 1 <= int(match["port"]) <= 65535:
            continue
        process = PROCESS.search(words[5]) if len(words) > 5 else None
        listener = ListenerState(
            protocol=words[0],
            address=match["address"].removeprefix("[").removesuffix("]"),
            port=int(match["port"]),
            interface=match["interface"],
            process=process[1] if process else "",
        )
        key = (listener.protocol, listener.address, listener.port, listener.interface)
        found.setdefault(key, listener)
    return tuple(found.values())


def read_sysctls(text: str) -> dict[str, str]:
    """Return the settings of `sysctl -a` that matter to a packet."""
    pairs = (line.partition("=") for line in text.splitlines())
    named = ((name.strip(), value.strip()) for name, equals, value in pairs if equals)
    return {name: value for name, value in named if matters(name)}


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object by what it says first: ip(8) writes `dst` of an encapsulation as well."""
    return dict(reversed(pairs))


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON list; those that say nothing are passed over."""
    if not text.strip():
        return []
    try:
        found = json.loads(text, object_pairs_hook=_first_of_each)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(found, list):
        raise TypeError("no list")
    return [each for each in found if isinstance(each, dict) and each]
