"""Findings about the machine: its kernel, its programs, and what this process may do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ipttrace.checkup.facts import (
    Facts,
    Interior,
    Machine,
    Presence,
    Program,
    Tracefs,
    Unknown,
)
from ipttrace.checkup.finding import SPELL, Adviser, Finding, State, note, ok, problem

OWNER_TABLES_SINCE = (5, 12)
"""NFT_TABLE_F_OWNER came with Linux 5.12."""

SHOWN = ("iptables-legacy", "iptables-nft", "nft")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the kernel, and what is lost without it."""

    name: str
    without: str
    instead: str
    state: State = State.NOTE


INJECT = "probe --in cannot inject packets"
USE_FROM = "send with --from instead"
PAIR = "probe --in injects packets through a veth pair"
LEAVE_IT = "leave it so, the packets are the same"
LOCK_FILE = "XTABLES_LOCKFILE=/tmp/xtables.lock"
TUN = "/dev/net/tun"
USABLE = (Presence.BUILT_IN, Presence.LOADED, Presence.LOADABLE)

PARTS = (
    Part(
        "nf_tables",
        "nothing can be contained, and answers are traced by their addresses alone",
        "trace with --let-out",
        State.PROBLEM,
    ),
    Part("xt_TRACE", "iptables-legacy has no target TRACE", "use --trigger owner"),
    Part(
        "nfnetlink_log",
        "reports of legacy tables are read from the kernel log, which is small and shared",
        "trace chains of nf_tables",
    ),
    Part(
        "nf_log_syslog",
        "the kernel log cannot stand in where another program holds NFLOG group 0",
        "keep group 0 free",
    ),
    Part("xt_bpf", "a TRACE rule cannot hold a pcap filter", "use --trigger owner"),
    Part("act_mirred", INJECT, USE_FROM),
    Part("sch_ingress", INJECT, USE_FROM),
    Part("tun", PAIR, LEAVE_IT),
)


def machine_findings(facts: Facts) -> Iterator[Finding]:
    """Yield what holds for every namespace of the machine."""
    advise = Adviser(facts)
    machine = facts.machine
    yield from _kernel(machine)
    yield from _programs(machine.programs)
    yield from _modules(machine, advise)
    yield from _privileges(facts)
    yield _tracefs(machine.tracefs, advise)


def _kernel(machine: Machine) -> Iterator[Finding]:
    versions = [f"Linux {machine.release}"]
    versions += [f"{name} {version}" for name, version in machine.software.items()]
    yield ok("kernel", ", ".join(versions))
    found = re.match(r"(\d+)\.(\d+)", machine.release)
    if found and (int(found[1]), int(found[2])) < OWNER_TABLES_SINCE:
        yield note(
            "kernel",
            f"Linux {machine.release} is older than 5.12, which brought nft tables that go with"
            " their program; every trace makes one",
            "Boot Linux 5.12 or later, unless your distribution has brought NFT_TABLE_F_OWNER back",
        )


def _programs(programs: Mapping[str, Program]) -> Iterator[Finding]:
    there = [_versioned(name, programs[name]) for name in SHOWN if name in programs]
    absent = [f"no {name}" for name in SHOWN if name not in programs]
    if there:
        yield ok("programs", "; ".join([", ".join(there), *absent, *_meaning(programs)]))
    else:
        text = f"there is neither {', '.join(SHOWN[:-1])} nor {SHOWN[-1]}: no rule can be read"
        yield problem("programs", text, "Install the packages iptables and nftables")
    four, six = (programs.get(name, Program()).backend for name in ("iptables", "ip6tables"))
    if four and six and four is not six:
        yield note(
            "programs",
            f"iptables is iptables-{four}, but ip6tables is ip6tables-{six}",
            f"update-alternatives --set ip6tables /usr/sbin/ip6tables-{four}",
        )


def _versioned(name: str, program: Program) -> str:
    return f"{name} {program.version}" if program.version else name


def _meaning(programs: Mapping[str, Program]) -> Iterator[str]:
    plain = programs.get("iptables")
    if plain is None:
        yield "there is no plain iptables"
    elif plain.backend is not None:
        yield f"iptables is iptables-{plain.backend}"


def _modules(machine: Machine, advise: Adviser) -> Iterator[Finding]:
    by_presence: dict[Presence, list[str]] = {}
    for part in PARTS:
        presence = machine.components[part.name]
        if isinstance(presence, Presence):
            by_presence.setdefault(presence, []).append(part.name)
    usable = [each for each in USABLE if each in by_presence]
    if usable:
        yield ok("modules", "; ".join(f"{each}: {', '.join(by_presence[each])}" for each in usable))
    for part in PARTS:
        yield from _missing(part, machine.components[part.name], advise)
    if machine.tun and machine.components["tun"] in USABLE and not advise.privileges.missing:
        yield from _closed_tun(machine, machine.tun, advise)


def _closed_tun(machine: Machine, why: str, advise: Adviser) -> Iterator[Finding]:
    loadable = machine.components["tun"] is Presence.LOADABLE
    if loadable and machine.privileges.first_user_namespace:
        return  # the module makes the device, and a probe loads it
    how = f"have root make {TUN} and open it to you"
    if loadable:
        how = f"load the module that makes it, {advise.host('modprobe', 'tun')}"
    text = f"cannot open {TUN}: {why}: {PAIR}"
    yield note("modules", text, f"{_sentence(LEAVE_IT)}, or {how}")


def _missing(part: Part, presence: Presence | Unknown, advise: Adviser) -> Iterator[Finding]:
    if isinstance(presence, Unknown):
        hint = f"If {part.without}: {advise.host('modprobe', part.name)}"
        unknown = Unknown(presence.reason, presence.hint or hint)
        yield advise.unreadable("modules", f"whether the kernel has {part.name}", unknown)
    elif presence is Presence.BLOCKED:
        text = f"{part.name} is {presence}: {part.without}"
        advice = (
            "Remove its `install` line from /etc/modprobe.d; if kernel.modules_disabled is 1,"
            f" reboot; or {part.instead}"
        )
        yield Finding("modules", part.state, text, advice)
    elif presence is Presence.ABSENT:
        text = f"this kernel has no {part.name}: {part.without}"
        packages = "install your distribution's package of extra kernel modules"
        yield Finding("modules", part.state, text, f"{_sentence(part.instead)}, or {packages}")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _privileges(facts: Facts) -> Iterator[Finding]:
    rights = facts.machine.privileges
    if rights.missing:
        alone = f", or trace in a namespace of your own: {SPELL}" if rights.may_unshare else ""
        labs = ", and in a user namespace of their own lab, check and tui --lab"
        yield problem(
            "privileges",
            f"this process lacks {', '.join(rights.missing)}: nothing can be traced here; what"
            f" works here is doctor{labs if rights.may_unshare else ' alone'}",
            f"Run as root: sudo ipttrace ...{alone}",
        )
        return
    inside = facts.interior
    if isinstance(inside, Interior) and inside.owned is False:
        yield problem(
            "privileges",
            "this process is root of its user namespace, but the network namespace belongs to"
            " another one: nothing can be traced in it",
            f"Run as the host's root, or make both namespaces: {SPELL}",
        )
        return
    if not rights.first_user_namespace:
        yield note(
            "privileges",
            "root of a user namespace: what belongs to the host is closed (tracefs, modules,"
            " namespaces of others)",
            "Run as the host's root to have them",
        )
    else:
        yield ok("privileges", "all that tracing needs")
    if isinstance(inside, Interior) and inside.lock:
        judge = note if inside.legacy == () else problem
        text = f"no TRACE rule can be set in tables of iptables-legacy: xtables lock {inside.lock}"
        yield judge("privileges", text, f"Name a lock file of your own: export {LOCK_FILE}")


def _tracefs(tracefs: Tracefs | Unknown, advise: Adviser) -> Finding:
    lost = "the kernel's own reasons for drops cannot be read"
    if isinstance(tracefs, Unknown):
        return advise.unreadable("tracefs", "whether tracefs is mounted", tracefs)
    if not tracefs.supported:
        return note("tracefs", f"this kernel has no tracefs: {lost}", "Boot one with CONFIG_FTRACE")
    rights = advise.privileges
    if tracefs.path is None and rights.first_user_namespace and not rights.missing:
        return ok("tracefs", "mounted nowhere; ipttrace mounts it for itself alone while it traces")
    if tracefs.path is None and rights.host_root:
        mount = advise.host("mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing")
        return note("tracefs", f"tracefs is not mounted: {lost}", mount)
    if tracefs.path is not None and tracefs.refusal is None:
        return ok("tracefs", f"mounted at {tracefs.path}, can be used")
    where = f"at {tracefs.path} is closed ({tracefs.refusal})" if tracefs.path else "is not mounted"
    who = "root" if rights.first_user_namespace else "the host's root"
    return note("tracefs", f"tracefs {where}: {lost}", f"Run as {who} to have them")
