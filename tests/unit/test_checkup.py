"""Facts in, findings out: each with the state and the advice that it deserves."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.checkup.examine import examine
from ipttrace.checkup.facts import (
    Bridge,
    Facts,
    Interface,
    Listener,
    Presence,
    Privileges,
    Program,
    Tracefs,
    Unknown,
)
from ipttrace.checkup.finding import Finding, State
from ipttrace.checkup.machine import PARTS
from ipttrace.netfilter import Backend, PacketFamily, TableFamily
from tests.healthy import (
    INTERIOR,
    MACHINE,
    NOBODY,
    PROGRAMS,
    SETTINGS,
    USER_NAMESPACE,
    facts,
    table,
)

LEGACY, NFT = Backend.LEGACY, Backend.NFT
CLOSED = Unknown("Permission denied")


def odd(given: Facts) -> list[Finding]:
    """Return the findings that are not ok."""
    return [finding for finding in examine(given) if finding.state is not State.OK]


def the_odd_one(given: Facts) -> Finding:
    [finding] = odd(given)
    return finding


def texts(given: Facts, topic: str) -> list[str]:
    return [finding.text for finding in examine(given) if finding.topic == topic]


def settings(**values: int | Unknown | None) -> dict[str, Any]:
    """Return the settings with some changed, by the last part of their names."""
    changed = {name: values.pop(_last(name), value) for name, value in SETTINGS.items()}
    assert not values
    return changed


def _last(name: str) -> str:
    return name.rpartition(".")[2].replace("-", "_")


def test_a_healthy_host_has_nothing_to_do() -> None:
    found = examine(facts())
    assert {finding.state for finding in found} == {State.OK}
    assert {finding.advice for finding in found} == {None}


# -- rules


def test_rules_in_both_engines_are_the_trap() -> None:
    found = the_odd_one(facts(legacy=(table(LEGACY),), nft=(table(NFT, family=TableFamily.INET),)))
    assert found.state is State.PROBLEM
    assert "a packet must pass both" in found.text
    assert "iptables (iptables-nft) shows only its own" in found.text
    assert found.advice is not None
    assert "ipttrace rules" in found.advice


def test_a_policy_drop_decides_without_any_rule() -> None:
    legacy = (table(LEGACY, rules=0, drops=("INPUT",)),)
    found = the_odd_one(facts(legacy=legacy, nft=(table(NFT),)))
    assert "both decide" in found.text
    assert (
        "ip filter with 0 rules and policy DROP in INPUT" in texts(facts(legacy=legacy), "rules")[0]
    )


def test_empty_tables_of_the_other_engine_are_harmless() -> None:
    given = facts(legacy=(table(LEGACY, rules=0),), nft=(table(NFT),))
    assert odd(given) == []
    assert texts(given, "rules") == [
        "iptables-legacy: ip filter without rules",
        "nf_tables: ip filter with 1 rule",
        "only nf_tables decides; the tables of iptables-legacy are empty",
    ]


def test_a_dormant_table_decides_nothing() -> None:
    given = facts(legacy=(table(LEGACY),), nft=(table(NFT, name="off", dormant=True),))
    assert "nf_tables: ip off dormant" in texts(given, "rules")
    assert "both" not in the_odd_one(given).text


@pytest.mark.parametrize(
    ("shown", "tables", "hidden"),
    [
        (NFT, {"legacy": (table(LEGACY),)}, "legacy"),
        (LEGACY, {"nft": (table(NFT),)}, "nft"),
        (LEGACY, {"nft": (table(NFT, family=TableFamily.INET),)}, None),
        (LEGACY, {"nft": (table(NFT, name="mine"),)}, None),
        (LEGACY, {"legacy": (table(LEGACY),)}, None),
        (None, {"legacy": (table(LEGACY),)}, None),
    ],
)
def test_rules_that_iptables_does_not_show(
    shown: Backend | None, tables: dict[str, Any], hidden: str | None
) -> None:
    programs = {**PROGRAMS, "iptables": Program(shown), "ip6tables": Program(shown)}
    given = replace(facts(**tables), machine=replace(MACHINE, programs=programs))
    found = odd(given)
    assert [finding.state for finding in found] == ([State.PROBLEM] if hidden else [])
    if hidden:
        assert f"Use iptables-{hidden} and ip6tables-{hidden}" in (found[0].advice or "")


def test_native_tables_need_nft() -> None:
    programs = {name: each for name, each in PROGRAMS.items() if name != "nft"}
    machine = replace(MACHINE, programs=programs)
    native = facts(nft=(table(NFT, family=TableFamily.INET),))
    found = the_odd_one(replace(native, machine=machine))
    assert (found.advice, "stay unread" in found.text) == ("Install the package nftables", True)
    found = the_odd_one(replace(facts(nft=(table(NFT),)), machine=machine))
    assert found.text.endswith("no program nft: a trace cannot tell which rule it met")


def test_a_trace_fails_where_nothing_reads_the_legacy_tables() -> None:
    programs = {name: each for name, each in PROGRAMS.items() if name != "iptables-legacy"}
    unread = Unknown(
        "there is no program iptables-legacy-save", "Install it: apt-get install iptables."
    )
    given = replace(facts(legacy=unread), machine=replace(MACHINE, programs=programs))
    found = the_odd_one(given)
    assert (found.topic, found.state) == ("rules", State.PROBLEM)
    assert found.advice == "Install it: apt-get install iptables"


# -- who receives the reports


HELD = Listener(4294963200, 812, "ulogd")


def test_where_the_log_group_is_taken_the_kernel_log_stands_in() -> None:
    found = the_odd_one(facts(listener=HELD, legacy=(table(LEGACY, rules=0),)))
    assert (found.topic, found.state) == ("nflog-group", State.NOTE)
    assert found.text == (
        "NFLOG group 0 is held by ulogd (pid 812): reports of legacy tables are read from the"
        " kernel log instead, which is small and shared"
    )
    assert "(kill 812)" in (found.advice or "")


@pytest.mark.parametrize("legacy", [(table(LEGACY, rules=0),), CLOSED])
def test_a_taken_log_group_is_a_problem_without_the_kernel_log(legacy: Any) -> None:
    given = facts(listener=HELD, legacy=legacy, no_way_out="cannot read the kernel log")
    assert odd(given)[-1].state is State.PROBLEM
    assert "cannot stand in: cannot read the kernel log" in odd(given)[-1].text


def test_a_taken_log_group_matters_little_without_legacy_tables() -> None:
    assert the_odd_one(facts(listener=HELD, no_way_out="closed")).state is State.NOTE


def test_a_holder_that_cannot_be_seen() -> None:
    unread, held = odd(facts(listener=Listener(77), legacy=CLOSED))
    assert unread.topic == "rules"
    assert "the program with netlink port 77" in held.text
    assert "kill " not in (held.advice or "")


def test_our_own_session_holds_the_log_group() -> None:
    legacy = (table(LEGACY, rules=0),)
    found = the_odd_one(facts(listener=HELD, legacy=legacy, sessions={"ab12": 812}))
    assert found.text.endswith("(pid 812), a trace of yours")
    other = the_odd_one(facts(listener=HELD, legacy=legacy, sessions={"ab12": 813}))
    assert "ulogd" in other.text
    assert "of yours" not in other.text


def test_a_logger_without_a_listener_loses_messages() -> None:
    loggers = {PacketFamily.IPV4: "nfnetlink_log", PacketFamily.IPV6: "nf_log_ipv6"}
    found = the_odd_one(facts("web", ("ip", "netns", "exec", "web"), loggers=loggers))
    assert found.text.startswith("the logger of ipv4 is nfnetlink_log, and nobody listens")
    assert found.advice == (
        "To have them in the kernel log:"
        " ip netns exec web sysctl -w net.netfilter.nf_log.2=nf_log_ipv4"
    )
    without = the_odd_one(facts(loggers=loggers, known_loggers=frozenset({"nfnetlink_log"})))
    assert (without.advice or "").endswith("net.netfilter.nf_log.2=NONE")
    assert odd(facts(loggers=loggers, listener=HELD))[0].topic == "nflog-group"


# -- sessions


def test_leftovers_are_cleaned_by_us() -> None:
    left = ("TRACE rule of session dead in raw (ipv4, iptables-legacy)", "device iptt0")
    found = odd(facts("web", leftovers=left))
    assert [finding.text for finding in found] == [
        f"left by a dead session: {each}" for each in left
    ]
    assert {finding.advice for finding in found} == {"ipttrace clean --netns web"}


def test_sessions_at_work_are_named() -> None:
    assert texts(facts(sessions={"ab12": 1, "cd34": 2}), "sessions") == ["at work here: ab12, cd34"]


# -- conntrack and settings


@pytest.mark.parametrize(
    ("count", "limit", "state"),
    [
        (0, 1000, State.OK),
        (799, 1000, State.OK),
        (800, 1000, State.NOTE),
        (1000, 1000, State.PROBLEM),
        (10_000, 0, State.OK),
        (10_000, None, State.OK),
    ],
)
def test_how_full_conntrack_is(count: int, limit: int | None, state: State) -> None:
    given = facts(settings=settings(nf_conntrack_count=count, nf_conntrack_max=limit))
    [found] = [finding for finding in examine(given) if finding.topic == "conntrack"]
    assert found.state is state
    if state is not State.OK:
        assert "sysctl -w net.netfilter.nf_conntrack_max=2000" in (found.advice or "")


def test_one_connection() -> None:
    given = facts(settings=settings(nf_conntrack_count=1))
    assert texts(given, "conntrack") == ["1 connection tracked, 1,000 at most"]


def test_conntrack_that_is_not_loaded() -> None:
    absent = dict.fromkeys(
        (
            "nf_conntrack_count",
            "nf_conntrack_max",
            "nf_conntrack_events",
            "nf_conntrack_log_invalid",
        )
    )
    given = facts(settings=settings(**absent))
    assert odd(given) == []
    assert texts(given, "conntrack") == ["not in the kernel now: no connection is tracked"]


@pytest.mark.parametrize(
    ("changed", "text", "advice"),
    [
        ({"nf_conntrack_events": 0}, "NAT may stay unseen", "nf_conntrack_events=1"),
        ({"nf_conntrack_log_invalid": 255}, "the way of trace reports", "log_invalid=0"),
    ],
)
def test_settings_that_change_what_is_reported(
    changed: dict[str, int], text: str, advice: str
) -> None:
    found = the_odd_one(facts(settings=settings(**changed)))
    assert (found.topic, found.state) == ("sysctl", State.NOTE)
    assert text in found.text
    assert advice in (found.advice or "")


@pytest.mark.parametrize(
    ("forward", "family", "name"),
    [
        (0, TableFamily.IP, "net.ipv4.ip_forward"),
        (0, TableFamily.IP6, "net.ipv6.conf.all.forwarding"),
        (0, TableFamily.BRIDGE, None),
        (1, TableFamily.IP, None),
    ],
)
def test_forward_rules_without_forwarding(
    forward: int, family: TableFamily, name: str | None
) -> None:
    rules = (table(NFT, family=family, forwards=True),)
    interfaces = {"eth0": Interface(forwarding=bool(forward))}
    given = facts(nft=rules, settings=settings(ip_forward=forward), interfaces=interfaces)
    found = odd(given)
    assert [finding.advice for finding in found] == (
        [f"If this is to be a router: sysctl -w {name}=1"] if name else []
    )


@pytest.mark.parametrize(
    ("forward", "fate"), [(0, "are forwarded"), (1, "are dropped")], ids=["off", "on"]
)
def test_an_interface_may_forward_otherwise_than_the_host(forward: int, fate: str) -> None:
    interfaces = {
        "all": Interface(),
        "eth0": Interface(forwarding=bool(forward)),
        "eth1.7": Interface(forwarding=not forward),
    }
    found = the_odd_one(facts(settings=settings(ip_forward=forward), interfaces=interfaces))
    assert found.text == (
        f"net.ipv4.ip_forward = {forward}, but packets for others that come in on eth1.7 {fate}"
    )
    assert found.advice == f"If not meant: sysctl -w net.ipv4.conf.eth1/7.forwarding={forward}"


def test_a_host_that_forwards_nothing_is_no_note() -> None:
    assert odd(facts(nft=(table(NFT),))) == []


def test_bridges_and_br_netfilter() -> None:
    bridge = Bridge("br0")
    seen = odd(facts(bridges=(bridge, Bridge("br1"))))
    assert [finding.text for finding in seen] == [
        f"net.bridge.bridge-nf-call-{tool} = 1: {tool} also sees frames that br0, br1 bridges"
        for tool in ("iptables", "ip6tables")
    ]
    off = settings(bridge_nf_call_iptables=0, bridge_nf_call_ip6tables=0)
    unseen = odd(facts(bridges=(bridge,), settings=off))
    assert unseen[0].text.endswith("iptables does not see frames that br0 bridges")
    assert unseen[0].advice == "If it shall: sysctl -w net.bridge.bridge-nf-call-iptables=1"
    absent = settings(bridge_nf_call_iptables=None, bridge_nf_call_ip6tables=None)
    found = the_odd_one(facts(bridges=(bridge,), settings=absent))
    assert found.advice == (
        "If it shall: modprobe br_netfilter, then sysctl -w net.bridge.bridge-nf-call-iptables=1"
    )


def test_a_bridge_may_show_its_frames_whatever_the_host_says() -> None:
    bridges = (Bridge("br0"), Bridge("br1", frozenset({TableFamily.IP6})))
    off = settings(bridge_nf_call_iptables=0, bridge_nf_call_ip6tables=0)
    found = odd(facts(bridges=bridges, settings=off))
    assert [finding.text.rpartition(": ")[2] for finding in found] == [
        "iptables does not see frames that br0, br1 bridges",
        "ip6tables also sees frames that it bridges",
        "ip6tables does not see frames that br0 bridges",
    ]
    assert found[1].advice == ("If it shall not: ip link set br1 type bridge nf_call_ip6tables 0")


@pytest.mark.parametrize(
    ("every", "own", "expected"),
    [(0, 1, "strict"), (1, 0, "strict"), (1, 2, "loose"), (2, 1, "loose"), (0, 0, "off")],
)
def test_the_higher_rp_filter_acts(every: int, own: int, expected: str) -> None:
    given = facts(interfaces={"all": Interface(every), "eth0": Interface(own)})
    assert f"rp_filter is {expected} on " in " ".join(texts(given, "sysctl"))
    assert len(odd(given)) == (expected == "strict")


def test_route_localnet_is_named_only_where_it_is_set() -> None:
    interfaces = {"all": Interface(), "eth0.100": Interface(route_localnet=True)}
    found = the_odd_one(facts(interfaces=interfaces))
    assert found.text.startswith("route_localnet is set on eth0.100")
    assert (found.advice or "").endswith("sysctl -w net.ipv4.conf.eth0/100.route_localnet=0")


# -- the machine


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
@pytest.mark.parametrize("presence", [Presence.ABSENT, Presence.BLOCKED, CLOSED])
def test_each_missing_part_is_named_with_what_is_lost(
    part: Any, presence: Presence | Unknown
) -> None:
    parts = {**MACHINE.components, part.name: presence}
    found = the_odd_one(facts(inside=False, components=parts))
    assert part.name in found.text
    assert part.without in f"{found.text} {found.advice}"
    if isinstance(presence, Unknown):
        assert found.advice == f"If {part.without}: modprobe {part.name}"
    else:
        assert found.state is part.state


def test_modules_on_disk_are_as_good_as_loaded() -> None:
    parts = {**MACHINE.components, "tun": Presence.LOADABLE, "xt_bpf": Presence.LOADED}
    given = facts(inside=False, components=parts)
    assert odd(given) == []
    assert texts(given, "modules")[0].endswith("; loaded: xt_bpf; loaded when needed: tun")


def test_a_closed_tun_device() -> None:
    found = the_odd_one(facts(inside=False, tun="Permission denied"))
    assert "cannot open /dev/net/tun: Permission denied" in found.text
    assert "have root make" in (found.advice or "")
    parts = {**MACHINE.components, "tun": Presence.LOADABLE}
    absent = partial(facts, inside=False, tun="No such file or directory", components=parts)
    assert odd(absent()) == []
    guest = replace(MACHINE.privileges, first_user_namespace=False)
    advice = [finding.advice or "" for finding in odd(absent(privileges=guest))]
    assert any("load the module that makes it, " in each for each in advice)
    privileges = replace(MACHINE.privileges, missing=("CAP_NET_ADMIN",))
    given = facts(inside=False, tun="Permission denied", privileges=privileges)
    assert [finding.topic for finding in odd(given)] == ["privileges"]


@pytest.mark.parametrize(
    ("tracefs", "advice"),
    [
        (Tracefs(supported=False), "CONFIG_FTRACE"),
        (Tracefs(supported=True, path="/t", refusal="Permission denied"), "Run as root"),
    ],
)
def test_tracefs_that_is_of_no_use(tracefs: Tracefs, advice: str) -> None:
    found = the_odd_one(facts(inside=False, tracefs=tracefs))
    assert (found.topic, found.state) == ("tracefs", State.NOTE)
    assert advice in (found.advice or "")


def test_tracefs_that_nobody_mounted_is_no_loss_to_root() -> None:
    """It is mounted nowhere then: fsmount(2) gives a descriptor (system/tracefs.py)."""
    given = facts(inside=False, tracefs=Tracefs(supported=True))
    assert odd(given) == []
    [text] = texts(given, "tracefs")
    assert "mounts it for itself" in text


@pytest.mark.parametrize(
    ("host_root", "advice"),
    [
        (True, "as the host's root: mount -t tracefs tracefs /sys/kernel/tracing"),
        (False, "Run as the host's root to have them"),
    ],
)
def test_a_mount_of_tracefs_helps_only_whom_it_is_open_to(host_root: Any, advice: str) -> None:
    guest = Privileges(first_user_namespace=False, host_root=host_root)
    found = odd(facts(inside=False, tracefs=Tracefs(supported=True), privileges=guest))
    assert [finding.advice for finding in found if finding.topic == "tracefs"] == [advice]


@pytest.mark.parametrize(
    ("release", "old"),
    [("5.11.9-x", True), ("4.18.0-553.el8", True), ("5.12", False), ("?", False)],
)
def test_a_kernel_without_owner_tables(release: str, *, old: bool) -> None:
    assert [finding.topic for finding in odd(facts(inside=False, release=release))] == (
        ["kernel"] if old else []
    )


def test_programs() -> None:
    [text] = texts(facts(), "programs")
    assert text == (
        "iptables-legacy 1.8.9, iptables-nft 1.8.9, nft 1.0.6; iptables is iptables-nft"
    )
    only_nft = {name: PROGRAMS[name] for name in ("iptables", "iptables-nft")}
    [text] = texts(facts(inside=False, programs=only_nft), "programs")
    assert text == "iptables-nft 1.8.9; no iptables-legacy; no nft; iptables is iptables-nft"
    assert the_odd_one(facts(inside=False, programs={})).state is State.PROBLEM


def test_iptables_and_ip6tables_of_different_engines() -> None:
    programs = {**PROGRAMS, "ip6tables": Program(LEGACY)}
    found = the_odd_one(facts(inside=False, programs=programs))
    assert found.advice == "update-alternatives --set ip6tables /usr/sbin/ip6tables-nft"


# -- privileges


def test_an_ordinary_user_is_told_how_to_get_on() -> None:
    machine = replace(MACHINE, privileges=NOBODY, tracefs=Tracefs(supported=True))
    interior = replace(INTERIOR, legacy=CLOSED, nft=CLOSED, listener=CLOSED, leftovers=CLOSED)
    found = odd(Facts(machine, interior))
    assert [(finding.topic, finding.state) for finding in found] == [
        ("privileges", State.PROBLEM),
        ("tracefs", State.NOTE),
        ("rules", State.NOTE),
        ("rules", State.NOTE),
        ("nflog-group", State.NOTE),
        ("leftovers", State.NOTE),
    ]
    assert found[0].advice == (
        "Run as root: sudo ipttrace ..., or trace in a namespace of your own:"
        " unshare -Ur unshare -n"
    )
    assert found[1].advice == "Run as root to have them"
    assert {finding.advice for finding in found[2:]} == {
        "To see it, run as root: sudo ipttrace doctor"
    }


def test_an_ordinary_user_who_may_not_make_namespaces() -> None:
    found = the_odd_one(facts(inside=False, privileges=replace(NOBODY, may_unshare=False)))
    assert found.advice == "Run as root: sudo ipttrace ..."
    assert found.text.endswith("what works here is doctor alone")


def test_root_of_a_user_namespace() -> None:
    machine = replace(MACHINE, privileges=USER_NAMESPACE)
    given = replace(facts(legacy=CLOSED, leftovers=CLOSED), machine=machine)
    found = odd(given)
    assert [finding.topic for finding in found] == ["privileges", "rules", "leftovers"]
    assert (found[1].advice or "").endswith("unshare -Ur unshare -n")


def test_root_of_a_user_namespace_that_does_not_own_the_network() -> None:
    machine = replace(MACHINE, privileges=USER_NAMESPACE)
    lock = "/run/xtables.lock: Permission denied"
    found = the_odd_one(replace(facts(owned=False, lock=lock), machine=machine))
    assert found.state is State.PROBLEM
    assert "nothing can be traced" in found.text


@pytest.mark.parametrize(
    ("legacy", "state"), [((), State.NOTE), ((table(LEGACY, 0),), State.PROBLEM)]
)
def test_a_closed_xtables_lock(legacy: Any, state: State) -> None:
    found = the_odd_one(facts(lock="/run/xtables.lock: Permission denied", legacy=legacy))
    assert found.state is state
    assert "export XTABLES_LOCKFILE=" in (found.advice or "")


def test_a_namespace_that_cannot_be_entered() -> None:
    closed = Unknown("cannot enter namespace web: Operation not permitted", "Run as root.")
    found = the_odd_one(Facts(MACHINE, closed, "web"))
    assert found.text == (
        "cannot tell anything about namespace web:"
        " cannot enter namespace web: Operation not permitted"
    )
    assert found.advice == "Run as root"


# -- everything may be missing, and every name may be hostile


names = st.text(max_size=12)
unknowns = st.builds(Unknown, names)


@given(
    st.builds(
        Facts,
        st.builds(
            replace,
            st.just(MACHINE),
            components=st.fixed_dictionaries(
                {part.name: st.one_of(st.sampled_from(Presence), unknowns) for part in PARTS}
            ),
            tracefs=st.one_of(unknowns, st.builds(Tracefs, st.booleans(), names, names)),
            privileges=st.builds(
                Privileges, st.tuples(names), st.booleans(), st.booleans(), st.booleans()
            ),
            programs=st.dictionaries(st.sampled_from([*PROGRAMS]), st.just(Program())),
            tun=st.one_of(st.none(), names),
        ),
        st.one_of(
            unknowns,
            st.builds(
                replace,
                st.just(INTERIOR),
                owned=st.one_of(st.booleans(), unknowns),
                legacy=st.one_of(unknowns, st.just((table(LEGACY),)), st.just(())),
                nft=st.one_of(
                    unknowns, st.builds(lambda name: (table(NFT, name=name),), names), st.just(())
                ),
                loggers=st.one_of(unknowns, st.dictionaries(st.sampled_from(PacketFamily), names)),
                listener=st.one_of(
                    unknowns, st.none(), st.builds(Listener, st.just(1), st.just(2), names)
                ),
                settings=st.dictionaries(
                    st.sampled_from([*SETTINGS]), st.one_of(unknowns, st.none(), st.integers())
                ),
                interfaces=st.one_of(
                    unknowns,
                    st.dictionaries(
                        names,
                        st.builds(Interface, st.integers(0, 2), st.booleans(), st.booleans()),
                    ),
                ),
                bridges=st.one_of(
                    unknowns,
                    st.tuples(
                        st.builds(Bridge, names, st.frozensets(st.sampled_from([*TableFamily])))
                    ),
                ),
                sessions=st.one_of(unknowns, st.dictionaries(names, st.integers(0, 9))),
                leftovers=st.one_of(unknowns, st.tuples(names)),
                lock=st.one_of(st.none(), names),
            ),
        ),
        st.one_of(st.none(), names),
    )
)
def test_any_facts_give_printable_findings_with_advice(given: Facts) -> None:
    for finding in examine(given):
        assert finding.text.isprintable()
        assert (finding.advice is None) == (finding.state is State.OK)
        assert finding.advice is None or finding.advice.isprintable()


@pytest.mark.parametrize("name", ["br 0", "$(reboot)", "a;b", "x\x1b[2Jy"])
def test_commands_quote_hostile_names(name: str) -> None:
    found = the_odd_one(facts(interfaces={name: Interface(route_localnet=True)}))
    assert "\x1b" not in found.text
    command = (found.advice or "").partition(": ")[2]
    assert len(shlex.split(command)) == 3
