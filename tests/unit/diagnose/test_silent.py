from __future__ import annotations

import pytest

from ipttrace.evidence import Scene
from ipttrace.netfilter import Backend, Basis, TableFamily, Verdict
from ipttrace.path import ChainHop, Outcome, PacketPath, Strength
from tests import builders as b
from tests.unit.diagnose.cases import BACKENDS, filter_rule, freed, texts, why

NATIVE = {"backend": Backend.NFT, "family": TableFamily.INET, "handle": 7}


def queued(
    rule: str = "-j NFQUEUE --queue-num 3", outcome: Outcome = Outcome.DROPPED
) -> PacketPath:
    return b.path(filter_rule(rule), outcome=outcome)


IN_QUEUE = freed("nf_queue", "NOT_SPECIFIED")


@pytest.mark.parametrize("outcome", [Outcome.DROPPED, Outcome.LOST])
def test_a_queue_that_nobody_reads(outcome: Outcome) -> None:
    trail = IN_QUEUE if outcome is Outcome.DROPPED else None
    diagnosis = why(queued(outcome=outcome), scene=Scene(trail, queues=frozenset({0, 2})))
    assert diagnosis.cause == "queue-no-listener"
    assert diagnosis.summary == (
        "dropped at filter/INPUT 1: it was queued to queue 3, and no program listens there"
    )
    assert "nfnetlink_queue lists no listener on queue 3" in texts(diagnosis)
    assert [str(ref) for ref in diagnosis.rules] == ["filter/INPUT 1"]


@pytest.mark.parametrize(
    ("rule", "queues"),
    [
        ("-j NFQUEUE --queue-num 3", frozenset({3})),
        ("-j NFQUEUE --queue-num 3", None),
        ("-j NFQUEUE --queue-num 3 --queue-bypass", frozenset[int]()),
        ("-j NFQUEUE --queue-balance 3:4", frozenset({3, 4})),
        ("-j NFQUEUE", frozenset({0})),
    ],
)
def test_a_queue_that_may_be_read_is_not_blamed(rule: str, queues: frozenset[int] | None) -> None:
    diagnosis = why(queued(rule), scene=Scene(IN_QUEUE, queues=queues))
    assert diagnosis.cause not in {"queue-no-listener", "tproxy-no-socket"}


def test_a_queue_that_a_later_chain_dropped_for_is_not_blamed() -> None:
    scene = Scene(freed("nft_do_chain"), queues=frozenset())
    assert why(queued(), scene=scene).cause not in {"queue-no-listener", "tproxy-no-socket"}


def test_one_of_several_queues_that_is_not_read() -> None:
    scene = Scene(IN_QUEUE, queues=frozenset({3}))
    diagnosis = why(queued("-j NFQUEUE --queue-balance 3:5"), scene=scene)
    assert diagnosis.summary.endswith(
        "queued to queues 3, 4, 5, and no program listens on queues 4, 5"
    )


@pytest.mark.parametrize(
    "rule", ["tcp dport 8443 queue to 9", "queue num 9", "queue flags fanout to 9"]
)
def test_a_native_queue(rule: str) -> None:
    hop = b.rule_hop("fw", "in", 1, rule, verdict=Verdict.QUEUE, **NATIVE)  # type: ignore[arg-type]
    scene = Scene(IN_QUEUE, queues=frozenset({3}))
    diagnosis = why(b.path(hop, outcome=Outcome.DROPPED), scene=scene)
    assert diagnosis.cause == "queue-no-listener"
    assert "queue 9" in diagnosis.summary
    assert diagnosis.remedy[-1] == "or delete the rule: nft delete rule inet fw in handle 7"


def proxied(backend: Backend, verdict: Verdict | None) -> ChainHop:
    text = "-p tcp -j TPROXY --on-port 9999 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0"
    basis = Basis.REPORTED if backend is Backend.NFT else Basis.UNKNOWN
    return b.rule_hop(
        "mangle", "PREROUTING", 1, text, backend=backend, verdict=verdict, basis=basis
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_proxy_without_socket(backend: Backend) -> None:
    legacy = backend is Backend.LEGACY
    path = b.path(proxied(backend, None if legacy else Verdict.DROP), outcome=Outcome.DROPPED)
    location = "nf_hook_slow" if legacy else "nft_do_chain"
    diagnosis = why(path, scene=Scene(freed(location)))
    assert diagnosis.cause == "tproxy-no-socket"
    assert diagnosis.summary == (
        "dropped at mangle/PREROUTING 1: TPROXY found no transparent socket on port 9999"
    )
    assert "ss -tlnp 'sport = :9999'" in diagnosis.remedy[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_proxied_packet_that_went_on_is_no_proxys_fault(backend: Backend) -> None:
    hops = (proxied(backend, Verdict.ACCEPT), b.policy_hop("filter", "INPUT"))
    assert why(b.path(*hops, outcome=Outcome.LOST)).cause == "unknown"


def test_a_proxied_packet_that_died_of_something_else() -> None:
    path = b.path(proxied(Backend.LEGACY, None), outcome=Outcome.DROPPED)
    assert why(path, scene=Scene(freed("ip_rcv", "IP_RPFILTER"))).cause != "tproxy-no-socket"


def test_without_events_it_is_inferred() -> None:
    diagnosis = why(b.path(proxied(Backend.LEGACY, None), outcome=Outcome.LOST))
    assert diagnosis.cause == "tproxy-no-socket"
    assert diagnosis.evidence[-1].strength is Strength.INFERRED
