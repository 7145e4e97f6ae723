"""The causes that lie in connection tracking: its table is full, its entry is old, its NAT is half.

Functions of the kernel: resolve_normal_ct, __nf_conntrack_alloc (nf_conntrack_core.c), and
nf_nat_inet_fn, nf_nat_setup_info (nf_nat_core.c).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from ipttrace.diagnose.answers import evidence, stranger, words
from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.exempt import answer_remedy
from ipttrace.diagnose.stale import stale_conntrack
from ipttrace.diagnose.untracked import untracked_no_nat
from ipttrace.diagnose.walk import endpoint, name, packet_before
from ipttrace.evidence import Connection
from ipttrace.netfilter import CONNTRACK_PRIORITY, FATAL_VERDICTS, Hook
from ipttrace.path import (
    LEFT,
    ChainHop,
    Diagnosis,
    DropHop,
    Evidence,
    Outcome,
    PacketPath,
    Strength,
    WireHop,
)

COUNT, MOST = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"
DROPPED, EARLY = "nf_conntrack.drop", "nf_conntrack.early_drop"

GOT_AN_ANSWER = frozenset({"CONNECTED", "REPLIED", "ECONNREFUSED", "ECONNRESET"})
"""What a client's call returns after an answer came back."""


def conntrack_full(case: Case) -> Diagnosis | None:
    """Return the cause where conntrack dropped the packet because it had no room for its entry."""
    last, drop = case.last, case.drop
    told = drop is not None and drop.reason == "NETFILTER_DROP"
    before = last is None or (
        last.hook in (Hook.PREROUTING, Hook.OUTPUT)
        and (last.priority or 0) < CONNTRACK_PRIORITY
        and last.verdict not in FATAL_VERDICTS
    )
    untold = case.scene.trail is None and case.path.outcome is Outcome.LOST
    if not before or not (told or untold) or not case.risen(DROPPED):
        return None
    count, most = (_number(case, name) for name in (COUNT, MOST))
    if count is None or most is None or count < most:
        return None
    return Diagnosis(
        Cause.CONNTRACK_FULL,
        f"dropped by connection tracking: its table is full ({count} of {most} entries)",
        evidence=tuple(_of_full(case, count, most)),
        remedy=(
            (
                "to allow more, in the first namespace of the host: "
                f"sysctl -w net.netfilter.nf_conntrack_max={most * 2}"
            ),
            "or see who fills it: conntrack -L | awk '{print $1, $5}' | sort | uniq -c | sort -n",
        ),
    )


def _of_full(case: Case, count: int, most: int) -> Iterator[Evidence]:
    yield Evidence(f"nf_conntrack_count is {count}, nf_conntrack_max is {most}", Strength.MATCHED)
    yield Evidence("conntrack's counter of drops rose", Strength.MATCHED)
    if case.drop is not None:
        where = f" in {case.drop.location}" if case.drop.location else ""
        yield Evidence(f"the kernel freed it: {case.drop.reason}{where}", case.drop.basis)


def _number(case: Case, setting: str) -> int | None:
    text = case.scene.settings.get(setting, "")
    return int(text) if text.isdecimal() else None


def hairpin_no_masquerade(case: Case) -> Diagnosis | None:
    """Return the cause where DNAT sent the packet back to where it came from, with its source."""
    path = case.path
    rewriter = _rewriter(path)
    if rewriter is None or path.outcome is not Outcome.FORWARDED or _is_contained(path):
        return None
    if path.in_interface is None or path.in_interface != path.out_interface:
        return None
    last = packet_before(path, None)
    if case.packet.src != path.packet.src or case.replies or case.client in GOT_AN_ANSWER:
        return None
    if any(
        route is not None and route.gateway for route in (case.scene.route, case.scene.route_back)
    ):
        return None
    entry = _entry(case)
    if entry is None or entry.replied:
        return None
    return Diagnosis(
        Cause.HAIRPIN_NO_MASQUERADE,
        f"{name(rewriter)} sent it back by {path.in_interface} to {endpoint(last)} with the "
        f"client's own address {last.src}, so the answer goes straight to the client, which "
        "expects it from elsewhere",
        (rewriter.ref,),
        tuple(_of_hairpin(case, entry)),
        remedy=(_masquerade(case, rewriter),),
    )


def _rewriter(path: PacketPath) -> ChainHop | None:
    for hop in path.chain_hops:
        if hop.hook is Hook.PREROUTING and any(c.field == "dst" for c in hop.changes):
            return hop
    return None


def _is_contained(path: PacketPath) -> bool:
    return any(isinstance(hop, WireHop) and hop.event == "contained" for hop in path.hops)


def _entry(case: Case) -> Connection | None:
    flow = case.path.packet.flow
    found = case.scene.connections or ()
    return next((each for each in found if each.original == flow), None)


def _of_hairpin(case: Case, entry: Connection) -> Iterator[Evidence]:
    interface = case.path.in_interface
    yield Evidence(f"it came in and left by {interface}, its source unchanged", Strength.REPORTED)
    state = f"{entry.state} " if entry.state else ""
    yield Evidence(f"conntrack's entry is {state}[UNREPLIED]", Strength.MATCHED)
    yield Evidence("no answer to it came through this host", Strength.INFERRED)


def _masquerade(case: Case, rewriter: ChainHop) -> str:
    last = packet_before(case.path, None)
    words = ["-t", "nat", "-A", "POSTROUTING", "-o", case.path.out_interface or "", "-s", last.src]
    words += ["-d", last.dst, "-p", last.protocol]
    if last.dport is not None:
        words += ["--dport", str(last.dport)]
    program = "ip6tables" if ":" in last.dst else "iptables"
    command = [f"{program}-{rewriter.chain.backend}", *words, "-j", "MASQUERADE"]
    return f"to let answers come back through this host: {shlex.join(command)}"


def asymmetric_reply(case: Case) -> Diagnosis | None:
    """Return the cause where the answer did not go back: it went elsewhere, or died here."""
    path = case.path
    if case.client in GOT_AN_ANSWER:
        return None
    if path.outcome is Outcome.DELIVERED and path.in_interface is not None:
        return next(filter(None, (_astray(case, reply) for reply in case.replies)), None)
    return _died_on_its_way_back(case) if path.outcome in LEFT else None


def _astray(case: Case, reply: PacketPath) -> Diagnosis | None:
    came, left = case.path.in_interface, reply.out_interface
    if (died := _where_it_died(reply)) is not None:
        return _dead_answer(case, reply, died, "delivered")
    if reply.outcome is not Outcome.SENT or left in (None, came):
        return None
    text = f"the request came in by {came}, its answer left by {left}"
    summary = f"the request came in by {came} and was delivered, but its answer left by {left}"
    said = (Evidence(ARRIVED, Strength.REPORTED), Evidence(text, Strength.REPORTED))
    return Diagnosis(Cause.ASYMMETRIC_REPLY, summary, (), said, remedy=(_way_back(case),))


def _died_on_its_way_back(case: Case) -> Diagnosis | None:
    """Return the cause where the answers to a packet that left came in, and all of them died."""
    came_in = [reply for reply in case.replies if reply.in_interface is not None]
    deaths = [_where_it_died(reply) for reply in came_in]
    if not deaths or deaths[0] is None or None in deaths:
        return None
    word = "sent" if case.path.outcome is Outcome.SENT else "forwarded"
    return _dead_answer(case, came_in[0], deaths[0], word)


def _dead_answer(case: Case, reply: PacketPath, died: _Death, word: str) -> Diagnosis:
    where, hop = died
    said = [Evidence(f"the answer (packet {reply.id}) {where}", Strength.REPORTED)]
    if word == "delivered":
        said.insert(0, Evidence(ARRIVED, Strength.REPORTED))
    summary = f"the request was {word}, but its answer {where}"
    if hop is None:
        return Diagnosis(
            Cause.ASYMMETRIC_REPLY, summary, (), tuple(said), remedy=(_way_back(case),)
        )
    if (found := stranger(case, reply)) is not None:
        summary = f"{summary}: {words(found)}"
        said += evidence(found)
    remedy = (answer_remedy(case, reply, hop),)
    return Diagnosis(Cause.ASYMMETRIC_REPLY, summary, (hop.ref,), tuple(said), remedy=remedy)


def _way_back(case: Case) -> str:
    return f"to see the way back: ip route get {case.path.packet.src} from {case.packet.dst}"


ARRIVED = "the request reached its socket"
_Death = tuple[str, ChainHop | None]
"""In words, and the rule or policy that did it."""


def _where_it_died(reply: PacketPath) -> _Death | None:
    last = reply.chain_hops[-1] if reply.chain_hops else None
    way = "out" if reply.in_interface is None else "back"
    if last is not None and last.verdict in FATAL_VERDICTS:
        word = "was rejected" if reply.outcome is Outcome.REJECTED else "was dropped"
        return f"{word} on its way {way}, at {name(last)}", last
    drop = next((hop for hop in reversed(reply.hops) if isinstance(hop, DropHop)), None)
    if drop is None or reply.outcome is not Outcome.DROPPED:
        return None
    where = f" in {drop.location}" if drop.location else ""
    return f"died on its way {way}: {drop.reason}{where}", None


CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = (
    conntrack_full,
    stale_conntrack,
    untracked_no_nat,
    hairpin_no_masquerade,
    asymmetric_reply,
)
