"""Hand-made values for tests: packets, hops, paths and rulesets as the kernel would give them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ipttrace.event import TraceKind
from ipttrace.netfilter import (
    Backend,
    Basis,
    ChainRef,
    Hook,
    PacketFamily,
    TableFamily,
    Verdict,
    builtin_priority,
)
from ipttrace.packet import IcmpHeader, PacketSummary
from ipttrace.path import ChainHop, Change, Hop, NatHop, Outcome, PacketPath, Role, WireHop
from ipttrace.result import TraceResult, TraceTotals
from ipttrace.ruleset import Chain, Counter, Rule, Ruleset

TIME = 1763800000.123456
CLIENT, SERVER = "203.0.113.7", "198.51.100.1"
CLIENT6, SERVER6 = "2001:db8:7::7", "2001:db8:1::1"

HOOKS = {hook.value: hook for hook in Hook}
ONE_PACKET = Counter(1, 60)

VERDICTS = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.REJECT,
    "RETURN": Verdict.RETURN,
    "REDIRECT": Verdict.ACCEPT,
    "DNAT": Verdict.ACCEPT,
    "SNAT": Verdict.ACCEPT,
    "MASQUERADE": Verdict.ACCEPT,
    "NFQUEUE": Verdict.QUEUE,
    "MARK": Verdict.CONTINUE,
    "CONNMARK": Verdict.CONTINUE,
    "LOG": Verdict.CONTINUE,
    "CT": Verdict.CONTINUE,
}
"""What a target decides; any other word is a user chain (JUMP, or GOTO after -g)."""


def tcp(
    src: str = CLIENT,
    dst: str = SERVER,
    *,
    sport: int = 40000,
    dport: int = 8443,
    flags: tuple[str, ...] = ("SYN",),
    **fields: Any,
) -> PacketSummary:
    """Return a TCP packet; IPv6 if its addresses are."""
    v6 = ":" in src
    defaults: dict[str, Any] = {"length": 60, "ttl": 64, "ip_id": None if v6 else 4242}
    return PacketSummary(
        PacketFamily.IPV6 if v6 else PacketFamily.IPV4,
        "tcp",
        src,
        dst,
        sport,
        dport,
        tcp_flags=flags,
        **{**defaults, **fields},
    )


def udp(src: str = CLIENT, dst: str = SERVER, **fields: Any) -> PacketSummary:
    """Return a UDP packet."""
    return replace(tcp(src, dst, **fields), protocol="udp", tcp_flags=())


def icmp(
    src: str = CLIENT, dst: str = SERVER, *, kind: int = 8, code: int = 0, **fields: Any
) -> PacketSummary:
    """Return an ICMP or ICMPv6 packet: an echo request unless told otherwise."""
    v6 = ":" in src
    echo = kind in ((128, 129) if v6 else (0, 8))
    header = IcmpHeader(kind, code, 77 if echo else None, 1 if echo else None)
    base = tcp(src, dst)
    return replace(
        base,
        protocol="icmp6" if v6 else "icmp",
        sport=None,
        dport=None,
        tcp_flags=(),
        length=84,
        icmp=header,
        **fields,
    )


def chain_ref(
    table: str = "filter",
    chain: str = "INPUT",
    backend: Backend = Backend.LEGACY,
    family: TableFamily = TableFamily.IP,
) -> ChainRef:
    """Return the name of a chain."""
    return ChainRef(backend, family, table, chain)


def rule(ref: ChainRef, text: str, number: int, *, handle: int | None = None) -> Rule:
    """Return rule `number` of a chain, its text with or without `-A CHAIN`."""
    if not text.startswith("-A ") and ref.table_family in (TableFamily.IP, TableFamily.IP6):
        text = f"-A {ref.chain} {text}"
    words = text.split()
    target = next((b for a, b in itertools.pairwise(words) if a in ("-j", "-g")), None)
    if handle is None and ref.backend is Backend.NFT:
        handle = number + 10
    return Rule(ref, number, number, text, target, "-g" in words, Counter(0, 0), handle)


def chain(
    table: str,
    name: str,
    rules: Iterable[str] = (),
    *,
    policy: Verdict = Verdict.ACCEPT,
    backend: Backend = Backend.LEGACY,
    family: TableFamily = TableFamily.IP,
) -> Chain:
    """Return an iptables chain: built-in if its name is a hook's, with that hook's priority."""
    ref = chain_ref(table, name, backend, family)
    made = tuple(rule(ref, text, number) for number, text in enumerate(rules, 1))
    hook = HOOKS.get(name)
    if hook is None:
        return Chain(ref, made)
    return Chain(ref, made, hook, builtin_priority(table, hook), policy, Counter(0, 0))


def ruleset(*chains: Chain) -> Ruleset:
    """Return a ruleset of these chains."""
    return Ruleset({each.ref: each for each in chains})


def rule_hop(
    table: str,
    name: str,
    number: int,
    text: str,
    *changes: Change,
    hook: Hook | None = None,
    backend: Backend = Backend.LEGACY,
    family: TableFamily = TableFamily.IP,
    counter: Counter | None = ONE_PACKET,
    **fields: Any,
) -> ChainHop:
    """Return the hop of a matched rule; its verdict follows from the target, as legacy's does."""
    made = rule(chain_ref(table, name, backend, family), text, number)
    where = hook or HOOKS.get(name, Hook.INPUT)
    jump = Verdict.GOTO if made.goto else Verdict.JUMP
    legacy = backend is Backend.LEGACY
    values: dict[str, Any] = {
        "verdict": VERDICTS.get(made.target, jump) if made.target else Verdict.CONTINUE,
        "basis": Basis.INFERRED if legacy else Basis.REPORTED,
        "priority": builtin_priority(table, where),
        "handle": made.handle,
        "event": TraceKind.RULE,
    }
    return ChainHop(
        time=TIME,
        chain=made.chain,
        hook=where,
        number=number,
        rule=made.text,
        target=made.target,
        counter=counter,
        changes=changes,
        **{**values, **fields},
    )


def policy_hop(
    table: str,
    name: str,
    verdict: Verdict = Verdict.ACCEPT,
    *,
    backend: Backend = Backend.LEGACY,
    family: TableFamily = TableFamily.IP,
) -> ChainHop:
    """Return the hop at the end of a built-in chain."""
    hook = Hook(name)
    basis = Basis.INFERRED if backend is Backend.LEGACY else Basis.REPORTED
    return ChainHop(
        TIME,
        chain_ref(table, name, backend, family),
        hook,
        builtin_priority(table, hook),
        TraceKind.POLICY,
        verdict,
        basis,
    )


def path(
    *hops: Hop,
    outcome: Outcome = Outcome.DELIVERED,
    packet: PacketSummary | None = None,
    number: int = 1,
    role: Role = Role.PROBE,
    **fields: Any,
) -> PacketPath:
    """Return the path of a packet that came in on eth0, unless its first hop is OUTPUT."""
    first = next((hop for hop in hops if isinstance(hop, ChainHop)), None)
    local = first is not None and first.hook is Hook.OUTPUT
    values: dict[str, Any] = {
        "netns": "server",
        "in_interface": None if local else "eth0",
        "out_interface": "lo" if local else None,
        "hops": hops,
        "outcome": outcome,
    }
    return PacketPath(
        id=number, role=role, time=TIME, packet=packet or tcp(), **{**values, **fields}
    )


def result(*paths: PacketPath, client: Sequence[str] = (), **fields: Any) -> TraceResult:
    """Return a run in which nothing was lost."""
    totals = TraceTotals(hits=len(paths), packets=len(paths), complete=len(paths))
    values: dict[str, Any] = {
        "totals": totals,
        "backends": tuple(sorted({hop.chain.backend for p in paths for hop in p.chain_hops})),
        "seconds": 0.42,
    }
    return TraceResult(paths, client=tuple(client), **{**values, **fields})


MARK_RULE = "-p tcp -m tcp --dport 8443 -j MARK --set-xmark 0x1/0xffffffff"
DROP_MARKED = "-m mark --mark 0x1 -j DROP"
REDIRECT_RULE = f"-d {SERVER}/32 -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443"
LOCAL_RULE = "-o lo -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443"


def article_rules(backend: Backend = Backend.LEGACY) -> Ruleset:
    """Return the rules of the lab `article-complete`."""
    return ruleset(
        chain("raw", "PREROUTING", backend=backend),
        chain("raw", "OUTPUT", backend=backend),
        chain("mangle", "PREROUTING", [MARK_RULE], backend=backend),
        chain("nat", "PREROUTING", [REDIRECT_RULE], backend=backend),
        chain("nat", "OUTPUT", [LOCAL_RULE], backend=backend),
        chain("filter", "INPUT", [DROP_MARKED], backend=backend),
        chain("filter", "OUTPUT", backend=backend),
    )


def mark_drop_path(backend: Backend = Backend.LEGACY, **fields: Any) -> PacketPath:
    """Return `article-complete` from outside to 8443: marked, then dropped for its mark."""
    return path(
        policy_hop("raw", "PREROUTING", backend=backend),
        rule_hop("mangle", "PREROUTING", 1, MARK_RULE, Change("mark", 0, 1), backend=backend),
        policy_hop("mangle", "PREROUTING", backend=backend),
        policy_hop("nat", "PREROUTING", backend=backend),
        policy_hop("mangle", "INPUT", backend=backend),
        rule_hop("filter", "INPUT", 1, DROP_MARKED, backend=backend),
        outcome=Outcome.DROPPED,
        **fields,
    )


def redirect_path(backend: Backend = Backend.LEGACY, **fields: Any) -> PacketPath:
    """Return `article-complete` from outside to 8445: redirected to 8443 and delivered."""
    return path(
        policy_hop("raw", "PREROUTING", backend=backend),
        policy_hop("mangle", "PREROUTING", backend=backend),
        rule_hop(
            "nat", "PREROUTING", 1, REDIRECT_RULE, Change("dport", 8445, 8443), backend=backend
        ),
        policy_hop("mangle", "INPUT", backend=backend),
        policy_hop("filter", "INPUT", backend=backend),
        policy_hop("nat", "INPUT", backend=backend),
        **{"packet": tcp(dport=8445), **fields},
    )


def local_path(backend: Backend = Backend.LEGACY, **fields: Any) -> PacketPath:
    """Return `article-complete` from the server itself to its own 8445: it dies on lo."""
    return path(
        policy_hop("raw", "OUTPUT", backend=backend),
        policy_hop("mangle", "OUTPUT", backend=backend),
        rule_hop("nat", "OUTPUT", 1, LOCAL_RULE, Change("dport", 8445, 8443), backend=backend),
        policy_hop("filter", "OUTPUT", backend=backend),
        policy_hop("mangle", "POSTROUTING", backend=backend),
        policy_hop("nat", "POSTROUTING", backend=backend),
        policy_hop("raw", "PREROUTING", backend=backend),
        rule_hop("mangle", "PREROUTING", 1, MARK_RULE, Change("mark", 0, 1), backend=backend),
        policy_hop("mangle", "PREROUTING", backend=backend),
        policy_hop("mangle", "INPUT", backend=backend),
        rule_hop("filter", "INPUT", 1, DROP_MARKED, backend=backend),
        **{
            "outcome": Outcome.DROPPED,
            "packet": tcp(SERVER, SERVER, dport=8445),
            **fields,
        },
    )


def forward_path(last: WireHop, **fields: Any) -> PacketPath:
    """Return a packet that is forwarded with its source rewritten, ending with `last`."""
    return path(
        policy_hop("filter", "FORWARD"),
        rule_hop("nat", "POSTROUTING", 1, "-o eth1 -j MASQUERADE"),
        NatHop(TIME, Basis.REPORTED, source=(f"{CLIENT}:40000", "203.0.113.1:40000")),
        last,
        **{"outcome": Outcome.FORWARDED, "out_interface": "eth1", **fields},
    )


def reply_path(request: int = 1, **fields: Any) -> PacketPath:
    """Return the SYN-ACK that answers `tcp()`."""
    return path(
        policy_hop("raw", "OUTPUT"),
        policy_hop("filter", "OUTPUT"),
        WireHop(TIME, "contained", "eth0"),
        **{
            "number": 2,
            "role": Role.REPLY,
            "request": request,
            "outcome": Outcome.SENT,
            "packet": tcp(SERVER, CLIENT, sport=8443, dport=40000, flags=("SYN", "ACK")),
            "out_interface": "eth0",
            **fields,
        },
    )
