"""Findings about the ways of trace reports, and about sessions of ours, in one namespace."""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.checkup.facts import Facts, Interior, Listener, Unknown
from ipttrace.checkup.finding import Adviser, Finding, note, ok, problem
from ipttrace.netfilter import NFPROTO_NUMBER, PacketFamily

NETLINK_LOGGER = "nfnetlink_log"
NOBODY = "NONE"
BY_KERNEL_LOG = "are read from the kernel log instead, which is small and shared"
STOP_IT = "Stop it while you trace legacy tables"
KERNEL_LOGGERS = {PacketFamily.IPV4: "nf_log_ipv4", PacketFamily.IPV6: "nf_log_ipv6"}
"""The loggers that write to the kernel log (net/netfilter/nf_log_syslog.c)."""


def report_findings(facts: Facts, inside: Interior) -> Iterator[Finding]:
    """Yield who receives trace reports, which sessions work, and what dead ones left."""
    advise = Adviser(facts)
    yield _log_group(inside, advise)
    yield from _loggers(inside, advise)
    yield _sessions(inside, advise)
    yield from _leftovers(inside, advise)


def _log_group(inside: Interior, advise: Adviser) -> Finding:
    held = inside.listener
    if isinstance(held, Unknown):
        return advise.unreadable("nflog-group", "who holds NFLOG group 0", held)
    if held is None:
        return ok("nflog-group", "NFLOG group 0 is free; reports of legacy tables arrive there")
    text = f"NFLOG group 0 is held by {_holder(held)}"
    if _is_ours(held, inside):
        return note("nflog-group", f"{text}, a trace of yours", "A second one waits until it ends")
    if inside.legacy == ():
        return note("nflog-group", f"{text}; there are no legacy tables to need it", _stop(held))
    if inside.no_way_out is not None:
        text = f"{text}, and the kernel log cannot stand in: {inside.no_way_out}"
        return problem("nflog-group", text, _stop(held))
    return note("nflog-group", f"{text}: reports of legacy tables {BY_KERNEL_LOG}", _stop(held))


def _is_ours(held: Listener, inside: Interior) -> bool:
    sessions = inside.sessions
    return not isinstance(sessions, Unknown) and held.pid in sessions.values()


def _holder(held: Listener) -> str:
    if held.pid is None:
        return f"the program with netlink port {held.port}"
    return f"{held.name or 'a program'} (pid {held.pid})"


def _stop(held: Listener) -> str:
    if held.pid is None:
        return f"{STOP_IT}; its process can be seen on the host only"
    return f"{STOP_IT} (kill {held.pid}); chains of nf_tables need no group"


def _loggers(inside: Interior, advise: Adviser) -> Iterator[Finding]:
    loggers = inside.loggers
    if isinstance(loggers, Unknown):
        yield advise.unreadable("nf_log", "who is given reports of legacy tables", loggers)
        return
    lost = [f for f, logger in loggers.items() if logger == NETLINK_LOGGER]
    if lost and inside.listener is None:
        names = " and ".join(lost)
        text = (
            f"the logger of {names} is {NETLINK_LOGGER}, and nobody listens: netfilter's messages"
            " (TRACE of others, invalid packets) are lost. ipttrace does not mind"
        )
        back = {f: _kernel_logger(f, inside) for f in lost}
        settings = [f"net.netfilter.nf_log.{_number(f)}={logger}" for f, logger in back.items()]
        yield note("nf_log", text, f"To have them in the kernel log: {advise.setting(*settings)}")
        return
    each = ", ".join(f"{family} {_logger(logger)}" for family, logger in loggers.items())
    yield ok("nf_log", f"loggers: {each}; ipttrace sets its own while it traces, and puts it back")


def _number(family: PacketFamily) -> int:
    return NFPROTO_NUMBER[family.table_family]


def _kernel_logger(family: PacketFamily, inside: Interior) -> str:
    logger = KERNEL_LOGGERS[family]
    return logger if logger in inside.known_loggers else NOBODY


def _logger(logger: str) -> str:
    return "none" if logger == NOBODY else logger


def _sessions(inside: Interior, advise: Adviser) -> Finding:
    sessions = inside.sessions
    if isinstance(sessions, Unknown):
        return advise.unreadable("sessions", "which sessions of ipttrace are at work", sessions)
    if not sessions:
        return ok("sessions", "no session of yours is at work here")
    return ok("sessions", f"at work here: {', '.join(sessions)}")


def _leftovers(inside: Interior, advise: Adviser) -> Iterator[Finding]:
    leftovers = inside.leftovers
    if isinstance(leftovers, Unknown):
        yield advise.unreadable("leftovers", "whether dead sessions left anything", leftovers)
        return
    if not leftovers:
        yield ok("leftovers", "dead sessions left nothing")
    for left in leftovers:
        yield problem("leftovers", f"left by a dead session: {left}", advise.tool("clean"))
