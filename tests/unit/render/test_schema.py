from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from ipttrace.render.schema import SHIPPED, json_schema, schema_text

LATER_HOPS: list[dict[str, Any]] = [
    {
        "kind": "route",
        "decision": "local",
        "in": "eth0",
        "out": "lo",
        "via": None,
        "table": "local",
        "source": "198.51.100.1",
        "basis": "inferred",
    },
    {
        "kind": "socket",
        "state": "listen",
        "address": "0.0.0.0",
        "port": 8443,
        "pid": 77,
        "process": "python3",
        "netns": "server",
    },
    {"kind": "drop", "reason": "NO_SOCKET", "location": "tcp_v4_rcv", "basis": "reported"},
    {"kind": "reset", "reason": "NO_SOCKET", "by": "kernel"},
]


def test_the_shipped_file_is_the_generated_one() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == schema_text()


def test_it_is_a_valid_schema_that_tells_records_apart() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    words = [
        schema["$defs"][each["$ref"].rpartition("/")[2]]["properties"]["record"]["enum"]
        for each in schema["oneOf"]
    ]
    assert words == [
        [record]
        for record in (
            "path",
            "summary",
            "chain",
            "rule",
            "finding",
            "lab",
            "lab-up",
            "lab-run",
            "check",
            "coverage",
            "twin",
        )
    ]


@pytest.mark.parametrize("hop", LATER_HOPS, ids=lambda hop: str(hop["kind"]))
def test_hops_of_later_evidence_are_described_already(hop: dict[str, Any]) -> None:
    schema = json.loads(SHIPPED.read_text())
    items = schema["$defs"]["PathRecord"]["properties"]["hops"]["items"]
    validator = jsonschema.Draft202012Validator({"$defs": schema["$defs"], **items})
    validator.validate(hop)
    assert not validator.is_valid({**hop, "kind": "guess"})
    assert not validator.is_valid({"kind": hop["kind"]})
