"""The causes of which the proof is that no socket of the namespace takes the packet.

They differ only in the socket tables: the port is open nowhere, on another address, or in another
namespace of this host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipttrace.diagnose.case import Case
from ipttrace.diagnose.catalogue import Cause
from ipttrace.diagnose.drops import rewrites
from ipttrace.diagnose.endpoints import holder, place, port_words, socket_words, where
from ipttrace.diagnose.kernel_words import counted, kernel_words
from ipttrace.diagnose.remedy import what_listens
from ipttrace.diagnose.remote import from_here, is_refusal
from ipttrace.evidence import SocketEntry
from ipttrace.path import Diagnosis, Evidence, Outcome, SocketState, Strength
from ipttrace.takers import taking

NO_SOCKET = "NO_SOCKET"
SHOWN = 4
"""Sockets that are named one by one."""


def nobody_there(case: Case) -> Diagnosis | None:
    """Return the cause where no socket of this namespace takes the packet."""
    if case.path.outcome is not Outcome.REFUSED or not _is_nobody_there(case):
        return None
    sockets, elsewhere = case.scene.sockets, case.scene.elsewhere
    taker = taking(sockets or (), case.packet, case.path.in_interface)
    others = [each for each in sockets or () if each.state is SocketState.LISTEN]
    evidence = (*rewrites(case.path), *kernel_words(case), *counted(case))
    if others and taker is None:
        return _other_address(case, others, (*evidence, *_also_elsewhere(elsewhere)))
    if elsewhere and taker is None:
        return _other_netns(case, elsewhere, evidence)
    return _no_listener(case, taker, evidence)


def _is_nobody_there(case: Case) -> bool:
    """Tell whether the kernel said so; without its events, whether the socket table does."""
    reasons = [drop.reason for drop in case.trail.drops]
    reasons += [reset.reason or "" for reset in case.trail.resets]
    if NO_SOCKET in reasons:
        return True
    if case.followed or case.scene.sockets is None:
        return False
    answered = any(is_refusal(each.packet) and from_here(each) for each in case.replies)
    empty = taking(case.scene.sockets, case.packet, case.path.in_interface) is None
    return empty and (answered or case.client == "ECONNREFUSED")


def _no_listener(
    case: Case, taker: SocketEntry | None, evidence: tuple[Evidence, ...]
) -> Diagnosis:
    packet = case.packet
    summary = f"refused: every chain let it in, but no socket takes {port_words(case.packet)} here"
    if case.scene.sockets is None:
        said = "the socket table could not be read: the port may be open on another address"
        evidence = (*evidence, Evidence(said, Strength.INFERRED))
    elif taker is not None:
        said = f"there is one now: {socket_words(taker)}"
        evidence = (*evidence, Evidence(said, Strength.MATCHED))
    else:
        said = f"no socket is on {packet.protocol} port {packet.dport}"
        evidence = (*evidence, Evidence(said, Strength.MATCHED))
    remedy = (
        "start the service, or correct the port",
        f"to see what listens there{where(case.path)}: {what_listens(packet)}",
    )
    return Diagnosis(Cause.NO_LISTENER, summary, evidence=evidence, remedy=remedy)


def _other_address(
    case: Case, others: Sequence[SocketEntry], evidence: tuple[Evidence, ...]
) -> Diagnosis:
    packet = case.packet
    places = " and ".join(dict.fromkeys(place(each) for each in others))
    summary = (
        f"refused: {port_words(packet)} is open here, but only on {places}, not on {packet.dst}"
        f"{_way_in(case, others)}"
    )
    seen = tuple(Evidence(socket_words(each), Strength.MATCHED) for each in others[:SHOWN])
    every = "[::]" if ":" in packet.dst else "0.0.0.0"  # noqa: S104 - told, never bound to
    remedy = (
        f"let {holder(others[0])} listen on {packet.dst} or on {every} as well",
        f"to see what listens there{where(case.path)}: {what_listens(packet)}",
    )
    cause = Cause.LISTENER_OTHER_ADDRESS
    return Diagnosis(cause, summary, evidence=(*evidence, *seen), remedy=remedy)


def _way_in(case: Case, others: Sequence[SocketEntry]) -> str:
    bound = any(each.interface for each in others)
    return f" as it came in on {case.path.in_interface or 'lo'}" if bound else ""


def _other_netns(
    case: Case, elsewhere: Sequence[SocketEntry], evidence: tuple[Evidence, ...]
) -> Diagnosis:
    first = elsewhere[0]
    count = len({each.netns for each in elsewhere})
    if count == 1:
        does = f"{first.netns} of this host has it open"
    else:
        does = f"{count} other namespaces of this host have it open; likely meant is {first.netns}"
    summary = (
        f"refused: no socket takes {port_words(case.packet)} here, "
        f"but {does}: {socket_words(first)}"
    )
    remedy = (
        (
            f"if that one is meant, send to an address of {first.netns}, "
            "or publish the port there by a DNAT rule (a container engine's -p)"
        ),
        f"to see what listens here{where(case.path)}: {what_listens(case.packet)}",
    )
    evidence = (*evidence, *_also_elsewhere(elsewhere))
    return Diagnosis(Cause.LISTENER_OTHER_NETNS, summary, evidence=evidence, remedy=remedy)


def _also_elsewhere(elsewhere: Sequence[SocketEntry]) -> Iterator[Evidence]:
    for each in elsewhere[:SHOWN]:
        yield Evidence(f"in {each.netns}: {socket_words(each)}", Strength.INFERRED)
    if len(elsewhere) > SHOWN:
        yield Evidence(f"and {len(elsewhere) - SHOWN} more sockets", Strength.INFERRED)
