"""What is said of a packet that went on into another namespace of this host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.diagnose.onward import HERE, Onward, OtherNamespace, tell_onward
from ipttrace.evidence import SocketEntry
from ipttrace.path import Diagnosis, Outcome, PacketPath, Role, SocketState, WireHop
from tests.builders import forward_path, policy_hop, reply_path, result, tcp

WEB = OtherNamespace("web", pid=812, process="nginx")
SWITCH = OtherNamespace("switch")
TRANSLATED = tcp(dst="203.0.113.2")
ARRIVES = Onward(((WEB,),), arrives=True)
KNOWN = Diagnosis("unknown", "forwarded by eth1", remedy=("tcpdump",))


def probe(**fields: object) -> PacketPath:
    known = {"netns": "router", "diagnosis": KNOWN, "last_packet": TRANSLATED} | fields
    return replace(forward_path(WireHop(1.0, "sent", "eth1")), **known)  # type: ignore[arg-type]


def told(path: PacketPath, onward: Onward, *traced: str | None) -> Diagnosis:
    (found,) = tell_onward(result(path), traced or ("router",), lambda _: onward).paths
    assert found.diagnosis is not None
    return found.diagnosis


def test_the_namespace_that_has_the_destination_is_named_and_how_to_follow_it() -> None:
    found = told(probe(), ARRIVES)
    advice, rest = found.remedy
    assert rest == "tcpdump"
    assert advice == (
        "it goes on in namespace web (pid 812, nginx); to follow it there, "
        "repeat with: --netns router --netns web"
    )
    assert [each.text for each in found.evidence] == [
        "203.0.113.2 is an address of namespace web (pid 812, nginx)"
    ]


def test_all_namespaces_on_the_way_are_to_be_traced() -> None:
    found = told(probe(), Onward(((SWITCH, WEB),), arrives=True))
    assert found.remedy[0] == (
        "it goes on in namespace switch, by links from there to namespace web (pid 812, nginx); "
        "to follow it there, repeat with: --netns router --netns switch --netns web"
    )


def test_the_other_end_of_the_interface_is_named_where_nobody_has_the_destination() -> None:
    found = told(probe(), Onward(((SWITCH,),)))
    assert [each.text for each in found.evidence] == [
        "the other end of eth1 is in namespace switch"
    ]
    assert found.remedy[0].endswith("repeat with: --netns router --netns switch")


def test_the_user_chooses_where_several_namespaces_have_the_destination() -> None:
    found = told(probe(), Onward(((WEB,), (SWITCH,)), arrives=True))
    assert found.remedy[0].startswith(
        "it goes on to namespace web (pid 812, nginx) or namespace switch; "
    )


def test_a_contained_packet_would_go_on() -> None:
    path = probe()
    path = replace(path, hops=(policy_hop("filter", "FORWARD"), WireHop(1.0, "contained", "eth1")))
    assert told(path, ARRIVES).remedy[0] == (
        "it would go on in namespace web (pid 812, nginx); to follow it there, "
        "repeat with: --let-out --netns router --netns web"
    )


def test_the_namespace_of_the_tool_has_no_name_but_a_path() -> None:
    found = told(probe(netns=None), Onward(((OtherNamespace(here=True, pid=1),),)), None)
    assert found.remedy[0] == (
        "it goes on in the namespace that ipttrace was started in; to follow it there, "
        f"repeat with: --netns {HERE} --netns {HERE}"
    )


@pytest.mark.parametrize(
    ("namespace", "words", "argument"),
    [
        (OtherNamespace("web"), "namespace web", "web"),
        (OtherNamespace(pid=812), "the namespace of pid 812", "812"),
        (OtherNamespace(pid=812, process="nginx"), "the namespace of pid 812 (nginx)", "812"),
        (
            OtherNamespace(container="3f29a1c4e5b6" + "0" * 52, pid=812, process="nginx"),
            "container 3f29a1c4e5b6 (pid 812, nginx)",
            "3f29a1c4e5b6",
        ),
    ],
)
def test_a_namespace_has_the_name_that_netns_takes(
    namespace: OtherNamespace, words: str, argument: str
) -> None:
    assert (str(namespace), namespace.argument) == (words, argument)


def test_a_name_is_quoted_for_the_shell() -> None:
    found = told(probe(), Onward(((OtherNamespace("a b"),),)))
    assert found.remedy[0].endswith("repeat with: --netns router --netns 'a b'")


@pytest.mark.parametrize(
    "path",
    [
        probe(outcome=Outcome.DELIVERED),
        probe(outcome=Outcome.DROPPED),
        probe(role=Role.OBSERVED),
        reply_path(diagnosis=KNOWN),
    ],
    ids=["delivered", "dropped", "observed", "reply"],
)
def test_only_a_probe_that_left_goes_on(path: PacketPath) -> None:
    assert told(path, ARRIVES) == KNOWN


def test_only_the_last_traced_leg_goes_on() -> None:
    first, second = probe(), probe(netns="switch", id=2, leg=2)
    found = tell_onward(result(first, second), ("router", "switch"), lambda _: ARRIVES).paths
    assert [path.diagnosis == KNOWN for path in found] == [True, False]


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert told(probe(), Onward()) == KNOWN


def socket(address: str, **fields: object) -> SocketEntry:
    known: dict[str, object] = {"pid": 812, "process": "nginx", "backlog": 5} | fields
    return SocketEntry("tcp", SocketState.LISTEN, address, 8443, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sockets", "words"),
    [
        ((), "no socket is on tcp port 8443"),
        ((socket("127.0.0.1"),), "tcp port 8443 is open only on 127.0.0.1:8443 (nginx (pid 812))"),
        (
            (socket("0.0.0.0", waiting=6),),
            (
                "nginx (pid 812), listening on 0.0.0.0:8443, does not accept fast enough: "
                "6 connections wait, and the backlog is 5"
            ),
        ),
    ],
)
@pytest.mark.parametrize("cause", ["remote-refused", "remote-silent"])
def test_what_is_wrong_with_the_sockets_there_is_said(
    cause: str, sockets: tuple[SocketEntry, ...], words: str
) -> None:
    onward = replace(ARRIVES, sockets=(sockets,))
    found = told(probe(diagnosis=Diagnosis(cause, "forwarded by eth1")), onward)
    assert found.summary == (f"forwarded by eth1; in namespace web (pid 812, nginx): {words}")


def test_a_socket_there_that_takes_it_is_evidence_alone() -> None:
    onward = replace(ARRIVES, sockets=((socket("0.0.0.0", interface="eth7"),),))
    found = told(probe(diagnosis=Diagnosis("remote-silent", "forwarded by eth1")), onward)
    assert found.summary == "forwarded by eth1"
    assert found.evidence[-1].text.startswith("in namespace web (pid 812, nginx): nginx (pid 812)")


def test_nothing_is_said_of_sockets_that_were_not_looked_at() -> None:
    found = told(probe(diagnosis=Diagnosis("remote-refused", "forwarded by eth1")), ARRIVES)
    assert found.summary == "forwarded by eth1"
    assert len(found.evidence) == 1
