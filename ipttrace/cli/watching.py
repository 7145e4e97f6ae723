"""Joins the kernel's side to the core for a watch."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from ipttrace.cli.compose import Note, open_side
from ipttrace.cli.watch_request import Watch
from ipttrace.netfilter import Hook
from ipttrace.path import PacketPath
from ipttrace.request import TraceRequest
from ipttrace.result import TraceResult
from ipttrace.system import capabilities
from ipttrace.system.clock import SystemClock
from ipttrace.system.namespaces import Namespace, find_namespaces
from ipttrace.system.pcap_filter import compile_filter
from ipttrace.tracer import Side
from ipttrace.watch import WatchLimits, WatchSession

__all__ = ["Watch", "watch"]

LONGEST = 86400.0
"""Seconds after which the rules of a watch without an end go by themselves."""
SPARE = 60.0
"""Seconds that a forgotten rule outlives the watch."""


def never() -> bool:
    """Say that nobody wants the watch to end."""
    return False


def watch(
    wanted: Watch,
    *,
    give: Callable[[PacketPath], None],
    note: Note,
    cancelled: Callable[[], bool] = never,
    begun: Callable[[WatchSession], None] = lambda _: None,
) -> tuple[TraceResult, bool]:
    """Watch; return the totals, and whether the user ended it.

    `begun` gets the session before it arms, to ask it how far it has come.
    """
    packet_filter = compile_filter(wanted.filter_text)
    traced = find_namespaces(wanted.netns)
    capabilities.require_privilege()
    if wanted.seconds is not None:
        rate = "without a limit" if wanted.limit is None else f"at most {wanted.limit} packets/s"
        note(f"watching {rate} for {wanted.seconds:g} s; Ctrl-C ends it")
    for caution in packet_filter.cautions:
        note(caution)
    session = secrets.token_hex(4)
    clock = SystemClock()
    with ExitStack() as cleaning:
        sides: list[Side] = []
        for namespace in traced:
            held = cleaning.enter_context(namespace.held())
            guardian, side = open_side(held, session, None, clock, note)
            cleaning.callback(guardian.disarm)
            sides.append(replace(side, is_gone=partial(_is_gone, namespace, held)))
        request = TraceRequest(
            session=session,
            filter=packet_filter,
            limit=wanted.limit,
            hooks=(Hook.PREROUTING, Hook.OUTPUT),
            trigger=wanted.trigger,
            lifetime=(LONGEST if wanted.seconds is None else wanted.seconds) + SPARE,
        )
        limits = WatchLimits(wanted.seconds, wanted.packets)
        watching = WatchSession(sides, clock, limits, cancelled)
        begun(watching)
        result = watching.run(request, give)
        return result, watching.interrupted


def _is_gone(named: Namespace, held: Namespace) -> bool:
    """Tell whether a name no longer stands for the namespace that is held."""
    return named.name is not None and not held.is_same(named)
