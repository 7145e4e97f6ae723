"""The JSON Schema of the records, generated from their types and shipped with the package.

`python -m ipttrace.render.schema` writes the shipped file anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ipttrace.render.record_types import RECORDS, SCHEMA

SHIPPED = Path(__file__).with_name("ipttrace-1.schema.json")
"""The file that programs validate against."""


def json_schema() -> dict[str, Any]:
    """Return the schema of one line: exactly one of the records, told apart by `record`."""
    references, definitions = msgspec.json.schema_components(RECORDS, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        "description": "One line of `ipttrace --json`. Fields are only ever added.",
        "oneOf": list(references),
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """Return what the shipped file must hold."""
    return json.dumps(json_schema(), indent=2) + "\n"


def write_shipped() -> None:
    """Write the shipped file anew, after a field was added."""
    SHIPPED.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    write_shipped()
