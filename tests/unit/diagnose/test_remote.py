"""What is known of a packet that left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.diagnose import Case, diagnose
from ipttrace.evidence import Crossing, NeighbourWait, Scene, Trail
from ipttrace.path import Diagnosis, Outcome, PacketPath, WireHop
from tests import builders as b
from tests.unit.diagnose.cases import texts

SENT = WireHop(b.TIME, "sent", "eth1")
GONE = Trail((Crossing(b.TIME, "eth0"),), (Crossing(b.TIME, "eth1"),))


def why(trail: Trail | None = GONE, path: PacketPath | None = None, **fields: Any) -> Diagnosis:
    path = path or b.forward_path(SENT)
    return diagnose(Case(path, scene=Scene(trail=trail), **fields))


@pytest.mark.parametrize("client", [None, "TIMEOUT"])
def test_nothing_came_back(client: str | None) -> None:
    diagnosis = why(client=client)
    assert diagnosis.cause == "remote-silent"
    assert diagnosis.summary == "forwarded by eth1, and nothing came back"
    assert "given to eth1 to be sent" in texts(diagnosis)


def test_udp_need_not_be_answered() -> None:
    diagnosis = why(path=replace(b.forward_path(SENT), packet=b.udp()))
    assert diagnosis.cause == "remote-silent"
    assert diagnosis.summary.endswith("; a UDP service need not answer")


def test_without_events_the_chains_tell_that_it_left() -> None:
    diagnosis = why(None)
    assert diagnosis.cause == "remote-silent"
    assert [each.strength for each in diagnosis.evidence[-2:]] == ["inferred", "inferred"]


def test_a_packet_that_waits_for_its_neighbour_has_not_left() -> None:
    waits = (NeighbourWait(b.TIME, "eth1", b.SERVER),)
    assert why(replace(GONE, queued=(), waits=waits)).cause == "unknown"


def test_a_packet_that_goes_on_in_a_traced_namespace_is_not_remote() -> None:
    path = b.forward_path(SENT)
    later = b.path(number=2, netns="backend", leg=2)
    assert why(path=path, paths=(path, later)).cause == "unknown"


@pytest.mark.parametrize(
    ("client", "cause"),
    [
        ("CONNECTED", "answered"),
        ("REPLIED", "answered"),
        ("ECONNREFUSED", "remote-refused"),
        ("ECONNRESET", "remote-refused"),
        ("EHOSTUNREACH", "unknown"),
    ],
)
def test_what_the_client_got_tells_of_an_answer_that_was_not_traced(
    client: str, cause: str
) -> None:
    diagnosis = why(client=client)
    assert diagnosis.cause == cause
    if cause != "unknown":
        assert f"the client got {client}" in texts(diagnosis)


def test_a_contained_probe_cannot_know() -> None:
    diagnosis = why(path=b.forward_path(WireHop(b.TIME, "contained", "eth1")))
    assert (diagnosis.cause, diagnosis.summary) == (
        "unknown",
        "left by eth1 (contained); use --let-out to go further",
    )


def test_a_reset_after_the_answer_ends_a_connection_that_was_made() -> None:
    back: dict[str, Any] = {"outcome": Outcome.FORWARDED, "in_interface": "eth1"}
    took = b.reply_path(**back)
    reset = b.reply_path(number=3, **back, packet=b.tcp(b.SERVER, b.CLIENT, flags=("RST", "ACK")))
    assert why(replies=(took, reset), client="ECONNRESET").cause == "answered"
    assert why(replies=(reset,), client="ECONNREFUSED").cause == "remote-refused"
