from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import jsonschema
import pytest

from ipttrace.netfilter import Backend, Basis, TableFamily
from ipttrace.path import (
    Change,
    Diagnosis,
    Evidence,
    NatHop,
    PacketPath,
    Role,
    Strength,
    Unmatched,
    WireHop,
)
from ipttrace.render.records import chain_record, path_record, rule_record, summary_record
from ipttrace.render.schema import SHIPPED
from ipttrace.ruleset import Counter
from tests import builders as b


@cache
def validator() -> Any:
    schema = json.loads(SHIPPED.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def validated(line: bytes) -> dict[str, Any]:
    assert b"\n" not in line
    record: dict[str, Any] = json.loads(line)
    validator().validate(record)
    return record


def record_of(path: PacketPath) -> dict[str, Any]:
    return validated(path_record(path))


def test_a_path_has_exactly_the_fields_of_the_contract() -> None:
    record = record_of(b.mark_drop_path())
    assert list(record) == [
        "schema",
        "record",
        "id",
        "journey",
        "leg",
        "netns",
        "role",
        "request",
        "time",
        "packet",
        "hops",
        "outcome",
        "ambiguous",
        "rules_changed",
        "diagnosis",
    ]
    assert record["time"] == 1763800000.123456
    assert record["packet"] == {
        "family": "ipv4",
        "protocol": "tcp",
        "src": "203.0.113.7",
        "sport": 40000,
        "dst": "198.51.100.1",
        "dport": 8443,
        "ip_id": 4242,
        "length": 60,
        "ttl": 64,
        "tcp_flags": ["SYN"],
        "icmp": None,
        "in": "eth0",
        "out": None,
        "mark": 0,
        "physical_in": None,
        "physical_out": None,
    }


def test_a_bridges_ports_stand_beside_the_bridge() -> None:
    path = b.mark_drop_path(
        in_interface="br0", physical_in="p1", out_interface="br0", physical_out="p2"
    )
    packet = record_of(path)["packet"]
    names = [packet[field] for field in ("in", "physical_in", "out", "physical_out")]
    assert names == ["br0", "p1", "br0", "p2"]


def test_a_rule_hop_is_written_in_full() -> None:
    hop = record_of(b.redirect_path())["hops"][2]
    assert hop == {
        "kind": "chain",
        "time": 1763800000.123456,
        "backend": "legacy",
        "table_family": "ip",
        "hook": "PREROUTING",
        "priority": -100,
        "table": "nat",
        "chain": "PREROUTING",
        "event": "rule",
        "rule_number": 1,
        "rule_handle": None,
        "rule": "-A PREROUTING -d 198.51.100.1/32 -p tcp -m tcp --dport 8445"
        " -j REDIRECT --to-ports 8443",
        "target": "REDIRECT",
        "verdict": "ACCEPT",
        "basis": "inferred",
        "counter": {"packets": 1, "bytes": 60},
        "changes": {"dport": [8445, 8443]},
        "map_key": None,
    }


def test_a_policy_hop_has_neither_rule_nor_number() -> None:
    hop = record_of(b.path(b.policy_hop("filter", "INPUT", backend=Backend.NFT)))["hops"][0]
    assert (hop["event"], hop["rule"], hop["rule_number"], hop["rule_handle"]) == (
        "policy",
        None,
        None,
        None,
    )
    assert (hop["counter"], hop["changes"], hop["basis"]) == (None, {}, "reported")


def test_nat_and_wire_hops() -> None:
    nat = NatHop(b.TIME, Basis.REPORTED, source=("10.0.0.2:40000", "203.0.113.1:40000"))
    hops = record_of(b.path(nat, WireHop(b.TIME, "contained", "eth0")))["hops"]
    assert hops == [
        {
            "kind": "nat",
            "source": ["10.0.0.2:40000", "203.0.113.1:40000"],
            "destination": None,
            "basis": "reported",
        },
        {"kind": "wire", "event": "contained", "interface": "eth0"},
    ]


def test_two_changes_of_one_field_are_one_from_first_to_last() -> None:
    changes = (Change("mark", 0, 1), Change("mark", 1, 3), Change("ttl", 64, 63))
    hop = record_of(b.path(b.rule_hop("mangle", "INPUT", 1, "-j MARK", *changes)))["hops"][0]
    assert hop["changes"] == {"mark": [0, 3], "ttl": [64, 63]}


def test_the_diagnosis_names_rules_evidence_and_remedy() -> None:
    ref = b.rule_hop("filter", "INPUT", 1, b.DROP_MARKED).ref
    diagnosis = Diagnosis(
        "mark-drop",
        "one sentence",
        (ref,),
        (Evidence("seen", Strength.REPORTED),),
        (Unmatched(ref, "--dport 8445", "8443"),),
        ("iptables-legacy -D INPUT 1",),
    )
    name = {"backend": "legacy", "table_family": "ip", "table": "filter", "chain": "INPUT"}
    assert record_of(replace(b.mark_drop_path(), diagnosis=diagnosis))["diagnosis"] == {
        "cause": "mark-drop",
        "summary": "one sentence",
        "rules": [{**name, "number": 1, "handle": None}],
        "evidence": [{"text": "seen", "strength": "reported"}],
        "unmatched": [{**name, "number": 1, "criterion": "--dport 8445", "actual": "8443"}],
        "remedy": ["iptables-legacy -D INPUT 1"],
    }


def test_icmp_has_no_ports_and_ipv6_no_id() -> None:
    v4 = record_of(b.path(packet=b.icmp()))["packet"]
    v6 = record_of(b.path(packet=replace(b.icmp(b.CLIENT6, b.SERVER6, kind=128), ip_id=9)))
    assert (v4["sport"], v4["dport"], v4["ip_id"]) == (None, None, 4242)
    assert v4["icmp"] == {"type": 8, "code": 0, "id": 77, "seq": 1}
    assert v6["packet"]["ip_id"] is None


def test_an_icmp_error_has_neither_id_nor_sequence() -> None:
    packet = record_of(b.path(packet=b.icmp(kind=3, code=3)))["packet"]
    assert packet["icmp"] == {"type": 3, "code": 3, "id": None, "seq": None}


def test_a_reply_names_its_request() -> None:
    record = record_of(b.reply_path(request=7))
    assert (record["role"], record["request"]) == (Role.REPLY, 7)


def test_a_probe_that_met_no_hop_is_a_path_all_the_same() -> None:
    record = record_of(b.path(netns=None))
    assert (record["hops"], record["netns"], record["diagnosis"]) == ([], None, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [((), None), (("TIMEOUT",), "TIMEOUT"), (("CONNECTED", "SENT"), ["CONNECTED", "SENT"])],
)
def test_client_is_null_a_word_or_a_list(words: tuple[str, ...], expected: object) -> None:
    assert validated(summary_record(b.result(client=words)))["client"] == expected


def test_the_summary_is_as_the_contract_writes_it() -> None:
    result = b.result(b.mark_drop_path(), warnings=("reply not traced: no answer",))
    assert validated(summary_record(result)) == {
        "schema": "ipttrace/1",
        "record": "summary",
        "client": None,
        "trigger": "raw",
        "backends": ["legacy"],
        "traced": {"hits": 1, "packets": 1, "complete": 1, "lost_events": 0, "undecoded": 0},
        "warnings": ["reply not traced: no answer"],
        "clean": True,
        "seconds": 0.42,
    }


def test_control_characters_survive_as_escapes() -> None:
    text = '-m comment --comment "a\x1b[31m\nb" -j DROP'
    line = path_record(b.path(b.rule_hop("filter", "INPUT", 1, text)))
    assert b"\x1b" not in line
    assert validated(line)["hops"][0]["rule"] == f"-A INPUT {text}"


@pytest.mark.parametrize("name", ["eth\udc80", "\ud800", "\udfff\ud800"])
def test_a_lone_surrogate_becomes_a_replacement_character(name: str) -> None:
    record = record_of(b.path(WireHop(b.TIME, "sent", name), in_interface=name))
    assert record["hops"][0]["interface"] == record["packet"]["in"]
    assert "\ufffd" in record["packet"]["in"]


def test_a_chain_and_its_rules_are_records_too() -> None:
    chain = b.chain("mangle", "PREROUTING", [b.MARK_RULE], backend=Backend.NFT)
    head = validated(chain_record("server", chain))
    row = validated(rule_record("server", chain.rules[0], Counter(2, 120)))
    assert (head["hook"], head["priority"], head["policy"], head["rules"]) == (
        "PREROUTING",
        -150,
        "ACCEPT",
        1,
    )
    assert (row["number"], row["handle"], row["target"]) == (1, 11, "MARK")
    assert row["rise"] == {"packets": 2, "bytes": 120}


def test_a_user_chain_has_no_hook_and_no_policy() -> None:
    chain = b.chain("filter", "WEB", ["-j DROP"], family=TableFamily.IP6)
    record = validated(chain_record(None, chain))
    assert (record["hook"], record["policy"], record["counter"]) == (None, None, None)


def test_a_chain_at_ingress_names_its_interfaces() -> None:
    chain = b.chain("guard", "in", [], backend=Backend.NFT, family=TableFamily.NETDEV)
    record = validated(chain_record(None, replace(chain, devices=("eth0", "lo"))))
    assert record["devices"] == ["eth0", "lo"]


def test_a_rule_of_ours_is_refused() -> None:
    own = replace(b.chain("raw", "OUTPUT", ["-j TRACE"]).rules[0], number=None)
    with pytest.raises(ValueError, match="not shown"):
        rule_record(None, own)


def test_the_schema_refuses_a_wrong_word() -> None:
    record = record_of(b.mark_drop_path())
    for field, wrong in (("outcome", "killed"), ("record", "way"), ("time", "now")):
        assert not validator().is_valid({**record, field: wrong})


def test_the_schema_refuses_a_missing_field() -> None:
    record = record_of(b.mark_drop_path())
    for field in record:
        assert not validator().is_valid({k: v for k, v in record.items() if k != field})
