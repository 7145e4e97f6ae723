"""The ends behind a rule that hands the packet on: to a queue, or to a proxy's socket."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.remedy import delete_rule, is_native
from ipttrace.diagnose.walk import name, packet_before
from ipttrace.netfilter import Basis, Verdict
from ipttrace.path import ChainHop, Diagnosis, Evidence, Outcome, Strength

UNTOLD = frozenset({Outcome.DROPPED, Outcome.LOST})
"""Fates of packets that came back from nowhere."""

QUEUE_NUMBERS = re.compile(
    r"--queue-(?:num|balance) (\d+)(?::(\d+))?|\bqueue(?: flags \S+)?(?: to| num)? (\d+)(?:-(\d+))?"
)
BYPASS = re.compile(r"--queue-bypass|\bqueue\b.*\bbypass\b")
ON_PORT = re.compile(r"--on-port (\d+)")

NOT_FREED = frozenset({"NETFILTER_DROP"})
"""The reason of a packet that a chain or a match refused, not a queue."""


def queue_no_listener(case: Case) -> Diagnosis | None:
    """Return the cause where NFQUEUE's queue has no program (nf_queue in net/netfilter/nf_queue.c).

    A full queue frees the packet at the same place, so the list of queues must have been read.
    """
    last = case.last
    queues = case.scene.queues
    if last is None or last.verdict is not Verdict.QUEUE or queues is None:
        return None
    numbers = _queue_numbers(last.rule or "")
    unserved = [number for number in numbers if number not in queues]
    drop = case.drop
    freed_by_queue = drop is None or drop.reason not in NOT_FREED
    if not unserved or case.path.outcome not in UNTOLD or not freed_by_queue:
        return None
    if BYPASS.search(last.rule or "") or (len(unserved) < len(numbers) and drop is None):
        return None
    return Diagnosis(
        Cause.QUEUE_NO_LISTENER,
        f"dropped at {name(last)}: it was queued to {_in_words(numbers)}, and no program listens "
        + ("there" if len(unserved) == len(numbers) else f"on {_in_words(unserved)}"),
        (last.ref,),
        tuple(_of_queue(case, last, unserved)),
        remedy=tuple(_serve(last, unserved)),
    )


def _of_queue(case: Case, last: ChainHop, unserved: Sequence[int]) -> Iterator[Evidence]:
    yield from _last_report(last)
    text = f"nfnetlink_queue lists no listener on {_in_words(unserved)}"
    yield Evidence(text, Strength.MATCHED)
    if case.drop is not None:
        where = case.drop.location or "the kernel"
        yield Evidence(f"the kernel freed it: {case.drop.reason} in {where}", case.drop.basis)


def _serve(last: ChainHop, unserved: Sequence[int]) -> Iterator[str]:
    native = is_native(last.chain, last.rule)
    word = "bypass" if native else "--queue-bypass"
    yield (
        f"start the program that reads {_in_words(unserved)}; which are read: "
        "cat /proc/net/netfilter/nfnetlink_queue"
    )
    yield f"or let packets pass while none does, with {word} in {last.ref}"
    yield f"or delete the rule: {_delete(last)}"


def _in_words(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"queue {numbers[0]}"
    return f"queues {', '.join(map(str, numbers[:8]))}{', ...' if len(numbers) > 8 else ''}"


def _queue_numbers(rule: str) -> Sequence[int]:
    """Return the queues that a rule may choose: 0 where it names none."""
    found = QUEUE_NUMBERS.search(rule)
    if found is None:
        return (0,)
    first, last = found[1] or found[3], found[2] or found[4]
    return range(int(first), int(last or first) + 1)


def _last_report(last: ChainHop) -> Iterator[Evidence]:
    yield Evidence(f"{name(last)} is the kernel's last report of it", Strength.REPORTED)


def _delete(hop: ChainHop) -> str:
    return delete_rule(hop.ref, is_native(hop.chain, hop.rule))


def tproxy_no_socket(case: Case) -> Diagnosis | None:
    """Return the cause where TPROXY drops for want of a socket (tproxy_tg4 in xt_TPROXY.c).

    nft's own `tproxy` statement does not drop then: the rule counts as not matched.
    """
    last = case.last
    if last is None or last.target != "TPROXY" or case.path.outcome not in UNTOLD:
        return None
    if case.drop is not None and case.drop.reason not in NOT_FREED:
        return None
    port = ON_PORT.search(last.rule or "")
    number = int(port[1]) if port and int(port[1]) else packet_before(case.path, last).dport
    letter = "u" if case.path.packet.protocol == "udp" else "t"
    listing = f"ss -{letter}lnp {shlex.quote(f'sport = :{number}')}"
    return Diagnosis(
        Cause.TPROXY_NO_SOCKET,
        f"dropped at {name(last)}: TPROXY found no transparent socket on port {number}",
        (last.ref,),
        tuple(_of_proxy(case, last)),
        remedy=(
            f"start the proxy, with IP_TRANSPARENT set; what listens there: {listing}",
            f"or delete the rule: {_delete(last)}",
        ),
    )


def _of_proxy(case: Case, last: ChainHop) -> Iterator[Evidence]:
    yield from _last_report(last)
    if last.basis is Basis.REPORTED and last.verdict is Verdict.DROP:
        yield Evidence("the kernel reported that this rule dropped it", Strength.REPORTED)
    if case.drop is not None:
        where = case.drop.location or "the kernel"
        yield Evidence(f"the kernel freed it: {case.drop.reason} in {where}", case.drop.basis)
    text = "TPROXY drops a packet that it finds no transparent socket for"
    yield Evidence(text, Strength.INFERRED)


CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = (queue_no_listener, tproxy_no_socket)
