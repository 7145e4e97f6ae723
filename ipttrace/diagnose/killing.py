"""What the kernel told of the moment in which a chain ended a packet, beside the chain's report."""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.client import HELD_BACK, reject_answer
from ipttrace.netfilter import PacketFamily, Verdict
from ipttrace.path import ChainHop, Evidence, Strength

LIMITED = {
    PacketFamily.IPV4: ("Icmp.OutRateLimitHost", "Icmp.OutRateLimitGlobal"),
    PacketFamily.IPV6: ("Icmp6OutRateLimitHost",),
}
"""What rises when an ICMP error is not sent because too many were (icmpv4_xrlim_allow)."""

SENT_ERRORS = {
    PacketFamily.IPV4: "Icmp.OutDestUnreachs",
    PacketFamily.IPV6: "Icmp6OutDestUnreachs",
}
RESETS = "Tcp.OutRsts"


def freed(case: Case) -> Iterator[Evidence]:
    """Yield the kernel's reason for freeing the packet, and the function that did it."""
    if (drop := case.drop) is not None:
        where = f" in {drop.location}" if drop.location else ""
        yield Evidence(f"the kernel freed it: {drop.reason}{where}", drop.basis)


def killed(case: Case, hop: ChainHop) -> Iterator[Evidence]:
    """Yield how the kernel freed the packet, and for a REJECT what became of its answer."""
    yield from freed(case)
    if hop.verdict is Verdict.REJECT:
        yield from _answer(case, hop)


def _answer(case: Case, hop: ChainHop) -> Iterator[Evidence]:
    family = case.path.packet.family
    words, _ = reject_answer(hop, family)
    if words == "a TCP reset":
        if case.scene.trail is not None and not case.trail.resets:
            text = "the kernel's TCP sent no reset (no tcp_send_reset): the rule made it"
            yield Evidence(text, Strength.REPORTED)
        if case.scene.counters is not None and not case.risen(RESETS):
            yield Evidence("TcpOutRsts did not rise", Strength.MATCHED)
    elif limited := _limited(case):
        text = f"{HELD_BACK}: {limited} rose"
        yield Evidence(text, Strength.MATCHED)
    elif case.risen(sent := SENT_ERRORS[family]):
        text = f"an ICMP error was sent ({sent.replace('.', '')} rose)"
        yield Evidence(text, Strength.MATCHED)


def _limited(case: Case) -> str | None:
    """Return the counter by which the ICMP error was held back; None where it was not."""
    family = case.path.packet.family
    if case.risen(SENT_ERRORS[family]):
        return None
    name = next((name for name in LIMITED[family] if case.risen(name)), None)
    return name.replace(".", "") if name else None
