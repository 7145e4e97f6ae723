"""Findings about connection tracking, and about settings that change what a trace means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ipttrace.checkup.facts import Facts, Interface, Interior, Setting, Table, Unknown
from ipttrace.checkup.finding import Adviser, Finding, note, ok, problem
from ipttrace.netfilter import TableFamily

COUNT = "net.netfilter.nf_conntrack_count"
LIMIT = "net.netfilter.nf_conntrack_max"
EVENTS = "net.netfilter.nf_conntrack_events"
INVALID = "net.netfilter.nf_conntrack_log_invalid"
ALL_LOGS = "net.netfilter.nf_log_all_netns"
FORWARD = {
    TableFamily.IP: "net.ipv4.ip_forward",
    TableFamily.IP6: "net.ipv6.conf.all.forwarding",
}
BRIDGED = {
    TableFamily.IP: "net.bridge.bridge-nf-call-iptables",
    TableFamily.IP6: "net.bridge.bridge-nf-call-ip6tables",
}
SETTINGS = (COUNT, LIMIT, EVENTS, INVALID, ALL_LOGS, *FORWARD.values(), *BRIDGED.values())
"""What is to be read of a namespace."""

NEARLY_FULL = 0.8
"""Of the connections that can be tracked."""

ALL = "all"
"""Stands among the interfaces."""

STRICT, LOOSE = 1, 2
"""RFC 3704; Documentation/networking/ip-sysctl.rst."""


def setting_findings(facts: Facts, inside: Interior) -> Iterator[Finding]:
    """Yield how full conntrack is, and what each setting means for a trace."""
    advise = Adviser(facts)
    yield from _unreadable(inside, advise)
    yield from _conntrack(inside, advise)
    yield from _messages(inside, advise)
    yield from _forwarding(inside, advise)
    yield from _bridges(inside, advise)
    yield from _interfaces(inside, advise)


def _unreadable(inside: Interior, advise: Adviser) -> Iterator[Finding]:
    for name, value in inside.settings.items():
        if isinstance(value, Unknown):
            yield advise.unreadable("sysctl", name, value)


def _value(inside: Interior, name: str) -> int | None:
    """Return a setting; None where the kernel has none, or it could not be read."""
    value: Setting = inside.settings.get(name)
    return value if isinstance(value, int) else None


def _conntrack(inside: Interior, advise: Adviser) -> Iterator[Finding]:
    count, limit = _value(inside, COUNT), _value(inside, LIMIT)
    if count is None:
        if inside.settings.get(COUNT) is None:
            yield ok("conntrack", "not in the kernel now: no connection is tracked")
        return
    noun = "connection" if count == 1 else "connections"
    text = f"{count:,} {noun} tracked" if count else "no connection is tracked now"
    if not limit:
        yield ok("conntrack", text)
        return
    text = f"{text}, {limit:,} at most"
    more = f"In the host's first namespace: {advise.host('sysctl', '-w', f'{LIMIT}={limit * 2}')}"
    if count >= limit:
        yield problem("conntrack", f"full: {text}; packets of new ones are dropped", more)
    elif count >= limit * NEARLY_FULL:
        yield note("conntrack", f"nearly full: {text}", more)
    else:
        yield ok("conntrack", text)


def _messages(inside: Interior, advise: Adviser) -> Iterator[Finding]:
    events, invalid = _value(inside, EVENTS), _value(inside, INVALID)
    if events == 0:
        text = f"{EVENTS} = 0: conntrack reports no new connection, so NAT may stay unseen"
        yield note("sysctl", text, advise.setting(f"{EVENTS}=1"))
    elif events is not None:
        yield ok("sysctl", f"{EVENTS} = {events}: conntrack reports new connections")
    if invalid:
        text = f"{INVALID} = {invalid}: conntrack's messages come the way of trace reports"
        yield note("sysctl", text, f"If nobody needs them: {advise.setting(f'{INVALID}=0')}")
    elif invalid == 0:
        yield ok("sysctl", f"{INVALID} = 0: conntrack logs no packet that it calls invalid")
    everywhere = _value(inside, ALL_LOGS)
    if everywhere is not None:
        whose = "of all namespaces" if everywhere else "of this namespace only"
        yield ok("sysctl", f"{ALL_LOGS} = {everywhere}: the kernel log has netfilter lines {whose}")


def _forwarding(inside: Interior, advise: Adviser) -> Iterator[Finding]:
    for family, name in FORWARD.items():
        value = _value(inside, name)
        if value is None:
            continue
        others = _other_forwarding(inside, bool(value)) if family is TableFamily.IP else ()
        if others:
            fate = "are dropped" if value else "are forwarded"
            text = f"{name} = {value}, but packets for others that come in on {', '.join(others)}"
            setting = [f"net.ipv4.conf.{_key(each)}.forwarding={value}" for each in others]
            yield note("sysctl", f"{text} {fate}", f"If not meant: {advise.setting(*setting)}")
        elif value:
            yield ok("sysctl", f"{name} = {value}: packets for others are forwarded")
        elif _has_forward_rules(inside, family):
            text = f"{name} = 0: rules in FORWARD see nothing, packets for others are dropped"
            advice = f"If this is to be a router: {advise.setting(f'{name}=1')}"
            yield note("sysctl", text, advice)
        else:
            yield ok("sysctl", f"{name} = 0: packets for others are dropped when routed")


def _other_forwarding(inside: Interior, value: bool) -> Sequence[str]:
    """Return the interfaces that were set after net.ipv4.ip_forward, to something else."""
    if isinstance(inside.interfaces, Unknown):
        return ()
    named = (each for each in inside.interfaces.items() if each[0] != ALL)
    return [name for name, interface in named if interface.forwarding is not value]


def _has_forward_rules(inside: Interior, family: TableFamily) -> bool:
    tables: list[Table] = []
    for read in (inside.legacy, inside.nft):
        tables += [] if isinstance(read, Unknown) else read
    return any(table.forwards and table.family in (family, TableFamily.INET) for table in tables)


def _bridges(inside: Interior, advise: Adviser) -> Iterator[Finding]:
    bridges = inside.bridges
    if isinstance(bridges, Unknown):
        yield advise.unreadable("sysctl", "whether there are bridges", bridges)
        return
    if not bridges:
        yield ok("sysctl", "no bridge is here: net.bridge.* are of no account")
        return
    for family, name in BRIDGED.items():
        value = _value(inside, name)
        tool = name.rpartition("-")[2]
        state = "br_netfilter is not loaded" if value is None else f"{name} = {value}"
        own = [each for each in bridges if value == 0 and family in each.families]
        rest = [each.name for each in bridges if each not in own]
        for each in own:
            yield _seen_by_its_own_option(each.name, f"nf_call_{tool}", advise)
        if rest and value:
            text = f"{state}: {tool} also sees frames that {', '.join(rest)} bridges"
            advice = f"If it shall not: {advise.setting(f'{name}=0')}"
            yield note("sysctl", text, advice)
        elif rest:
            text = f"{state}: {tool} does not see frames that {', '.join(rest)} bridges"
            yield note("sysctl", text, f"If it shall: {_make_it_see(name, value, advise)}")
        if value is None:
            return


def _seen_by_its_own_option(bridge: str, option: str, advise: Adviser) -> Finding:
    """Say what a bridge's own switch does (br_nf_pre_routing, net/bridge/br_netfilter_hooks.c)."""
    tool = option.rpartition("_")[2]
    text = f"{option} is set on {bridge}: {tool} also sees frames that it bridges"
    off = advise.here("ip", "link", "set", bridge, "type", "bridge", option, "0")
    return note("sysctl", text, f"If it shall not: {off}")


def _make_it_see(name: str, value: int | None, advise: Adviser) -> str:
    setting = advise.setting(f"{name}=1")
    return (
        f"{advise.host('modprobe', 'br_netfilter')}, then {setting}" if value is None else setting
    )


def _interfaces(inside: Interior, advise: Adviser) -> Iterator[Finding]:
    if isinstance(inside.interfaces, Unknown):
        yield advise.unreadable("sysctl", "rp_filter of the interfaces", inside.interfaces)
        return
    named = {name: each for name, each in inside.interfaces.items() if name != ALL}
    yield from _path_filters(inside.interfaces.get(ALL, Interface()), named)
    local = [name for name, each in inside.interfaces.items() if each.route_localnet]
    if local:
        settings = [f"net.ipv4.conf.{_key(name)}.route_localnet=0" for name in local]
        yield note(
            "sysctl",
            f"route_localnet is set on {', '.join(local)}: 127.0.0.0/8 can be reached from there",
            f"Unless a DNAT to 127.0.0.1 needs it: {advise.setting(*settings)}",
        )


def _path_filters(every: Interface, named: Mapping[str, Interface]) -> Iterator[Finding]:
    """Say what rp_filter does; the higher of `all` and the interface's own acts."""
    acting = {name: max(every.rp_filter, each.rp_filter) for name, each in named.items()}
    strict = [name for name, value in acting.items() if value == STRICT]
    loose = [name for name, value in acting.items() if value == LOOSE]
    if strict:
        yield note(
            "sysctl",
            f"rp_filter is strict on {', '.join(strict)}: a packet is dropped there unless the"
            " route back to its source leads out by the same interface",
            "Give probe --in such a source; see its route with: ip route get SOURCE",
        )
    if loose:
        text = f"rp_filter is loose on {', '.join(loose)}: a source needs a route, any will do"
        yield ok("sysctl", text)
    if not strict and not loose:
        where = "rp_filter is off on every interface" if named else "no interface but lo is here"
        yield ok("sysctl", where)


def _key(name: str) -> str:
    """Return an interface's name as sysctl(8) takes it: with `/` for a dot."""
    return name.replace(".", "/")
