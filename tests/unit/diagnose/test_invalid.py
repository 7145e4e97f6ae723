from __future__ import annotations

from typing import Any

import pytest

from ipttrace.event import ForeignLog
from ipttrace.evidence import Connection, Scene
from ipttrace.packet import PacketSummary
from ipttrace.path import Diagnosis, Evidence, Outcome, Strength
from tests import builders as b
from tests.unit.diagnose.cases import filter_rule, why

NOTHING_KNOWN = Scene(connections=())
LOOSE = "net/netfilter/nf_conntrack_tcp_loose"


def invalid(packet: PacketSummary, scene: Scene = NOTHING_KNOWN, **words: Any) -> Diagnosis:
    hop = filter_rule("-m conntrack --ctstate INVALID -j DROP")
    diagnosis = why(b.path(hop, outcome=Outcome.DROPPED, packet=packet), scene=scene, **words)
    assert diagnosis.cause == "conntrack-invalid"
    return diagnosis


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("FIN", "SYN"), "no TCP sends this combination of flags"),
        ((), "no TCP sends this combination of flags"),
        (("SYN", "ACK"), "a SYN-ACK begins no connection"),
        (("RST",), "a reset begins no connection"),
        (("FIN", "ACK"), "a FIN begins no connection"),
    ],
)
def test_flags_that_begin_no_connection(flags: tuple[str, ...], reason: str) -> None:
    diagnosis = invalid(b.tcp(flags=flags))
    assert reason in diagnosis.summary
    said = next(each for each in diagnosis.evidence if reason in each.text)
    assert said.strength is Strength.INFERRED


@pytest.mark.parametrize(("loose", "told"), [("0", True), ("1", False)])
def test_an_ack_without_connection(loose: str, told: bool) -> None:
    scene = Scene(connections=(), settings={LOOSE: loose})
    assert ("nf_conntrack_tcp_loose is 0" in invalid(b.tcp(flags=("ACK",)), scene).summary) is told


def test_a_segment_that_does_not_fit_its_connection() -> None:
    packet = b.tcp(flags=("ACK",))
    entry = Connection(packet.flow, packet.flow.reversed(), 14, "ESTABLISHED")
    diagnosis = invalid(packet, Scene(connections=(entry,), before=(entry,)))
    assert "do not fit the connection that conntrack knows, in state ESTABLISHED" in (
        diagnosis.summary
    )


@pytest.mark.parametrize("packet", [b.tcp(), b.udp(), b.tcp(flags=("RST",))])
def test_nothing_is_said_where_nothing_tells(packet: PacketSummary) -> None:
    assert invalid(packet, Scene()).summary.count(": ") == 1


def test_an_icmp_answer_without_request() -> None:
    assert "no request" in invalid(b.icmp(kind=0)).summary


def log(packet: PacketSummary | None, prefix: str = "nf_ct_proto_6: SEQ is over ") -> ForeignLog:
    return ForeignLog(b.TIME, prefix, packet)


def test_what_conntrack_logged_is_the_surest() -> None:
    packet = b.tcp(flags=("ACK",))
    diagnosis = invalid(packet, logged=[log(packet)])
    assert Evidence("conntrack logged 'SEQ is over' of it", Strength.REPORTED) in (
        diagnosis.evidence
    )
    assert not any("log_invalid" in remedy for remedy in diagnosis.remedy)


@pytest.mark.parametrize(
    "other",
    [
        log(None),
        log(b.tcp(flags=("ACK",), sport=1)),
        log(b.tcp(flags=("ACK",), ip_id=1)),
        log(b.tcp(flags=("ACK",)), "user: SEQ is over "),
    ],
)
def test_what_was_logged_of_others_is_not_evidence(other: ForeignLog) -> None:
    diagnosis = invalid(b.tcp(flags=("ACK",)), logged=[other])
    assert "logged" not in diagnosis.summary
    assert any("nf_conntrack_log_invalid=255" in remedy for remedy in diagnosis.remedy)
