"""What the kernel did about a packet that no rule killed, as evidence."""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.client import HELD_BACK
from ipttrace.diagnose.killing import freed
from ipttrace.diagnose.remote import from_here, is_refusal, kind
from ipttrace.path import Evidence, Strength

RATE_LIMITS = tuple(
    f"{group}OutRateLimit{whose}" for group in ("Icmp.", "Icmp6") for whose in ("Host", "Global")
)
"""Counters of ICMP errors that the kernel held back (icmpv4_xrlim_allow, icmp_global_allow)."""
ANSWER_COUNTERS = ("Tcp.OutRsts", "Udp.NoPorts", "Udp6NoPorts")


def kernel_words(case: Case) -> Iterator[Evidence]:
    """Yield what the kernel did about the packet, whatever the client got."""
    yield from freed(case)
    for reset in case.trail.resets:
        reason = f" ({reset.reason})" if reset.reason else ""
        yield Evidence(f"the kernel's TCP sent a reset{reason}", Strength.REPORTED)
    for each in case.trail.errors:
        yield Evidence(f"the kernel made ICMP {each.type}/{each.code} for it", Strength.REPORTED)
    if not case.trail.resets:
        yield from _answers(case)
    yield Evidence("no REJECT rule was met", Strength.REPORTED)


def _answers(case: Case) -> Iterator[Evidence]:
    refusals = [each for each in case.replies if is_refusal(each.packet) and from_here(each)]
    for each in refusals[:1]:
        yield Evidence(f"answered with {kind(each.packet)} by this host", Strength.REPORTED)
    if refusals:
        return
    for counter in RATE_LIMITS:
        if case.risen(counter):
            text = (
                f"{HELD_BACK}: {counter} rose by {case.risen(counter)}; the sender sees a timeout"
            )
            yield Evidence(text, Strength.MATCHED)


def counted(case: Case) -> Iterator[Evidence]:
    """Yield the counters of refusals that rose."""
    for counter in ANSWER_COUNTERS:
        if rise := case.risen(counter):
            alone = Strength.MATCHED if rise == 1 else Strength.INFERRED
            yield Evidence(f"{counter} rose by {rise}", alone)
