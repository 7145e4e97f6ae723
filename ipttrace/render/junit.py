"""Cases of a check as JUnit XML, the form that CI systems read.

There is no standard of it; the elements and attributes are those that Jenkins' and GitLab's
readers agree on: testsuites, testsuite, testcase, failure, error, skipped, system-out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from xml.etree import ElementTree as ET

from ipttrace.checks import Case, State
from ipttrace.decode.text import clean_text
from ipttrace.render.side_by_side import case_lines
from ipttrace.render.text import result_lines

NOT_XML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Outside Char of XML 1.0 (section 2.2), or discouraged there."""
REPLACEMENT = "\ufffd"


def junit_xml(cases: Sequence[Case], *, name: str = "ipttrace check") -> bytes:
    """Return a whole document, UTF-8: a suite for each file and backend, a test case a probe.

    Cases of a suite stand together.  The failure's text has the expected and the actual way, every
    other case's output the hops that were seen.
    """
    root = ET.Element("testsuites", {"name": _word(name), **_totals(cases)})
    for (file, backend), group in groupby(cases, key=_suite):
        members = list(group)
        label = f"{file} ({backend})" if backend else file
        suite = ET.SubElement(root, "testsuite", {"name": _word(label), **_totals(members)})
        for case in members:
            suite.append(_element(case))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def xml_text(text: str) -> str:
    """Return `text` with U+FFFD for what XML cannot hold."""
    return NOT_XML.sub(REPLACEMENT, text)


def _word(text: str) -> str:
    """Return one line of text from outside, its control characters written out."""
    return xml_text(clean_text(text))


def _suite(case: Case) -> tuple[str, str]:
    return (case.file, case.backend)


def _totals(cases: Iterable[Case]) -> dict[str, str]:
    cases = list(cases)
    count = {state: sum(case.state is state for case in cases) for state in State}
    return {
        "tests": str(len(cases)),
        "failures": str(count[State.FAILED]),
        "errors": str(count[State.ERROR]),
        "skipped": str(count[State.SKIPPED]),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _element(case: Case) -> ET.Element:
    backend = f".{case.backend}" if case.backend else ""
    element = ET.Element(
        "testcase",
        {
            "classname": _word(f"ipttrace.{case.target.replace('.', '_')}{backend}"),
            "file": _word(case.file),
            "name": _word(case.name),
            "time": f"{case.seconds:.3f}",
        },
    )
    lines = case_lines(case, width=None, color=False)
    match case.state:
        case State.FAILED:
            message = "; ".join(str(each) for each in case.differences)
            _child(element, "failure", message, "expectation", lines)
        case State.ERROR:
            _child(element, "error", case.message, "error", lines)
        case State.SKIPPED:
            ET.SubElement(element, "skipped", {"message": _word(case.message)})
        case State.PASSED:
            seen = result_lines(case.result, width=None, color=False) if case.result else []
            ET.SubElement(element, "system-out").text = xml_text("\n".join(seen))
    return element


def _child(element: ET.Element, tag: str, message: str, kind: str, lines: Sequence[str]) -> None:
    attributes = {"message": _word(message), "type": kind}
    ET.SubElement(element, tag, attributes).text = xml_text("\n".join(lines))
