"""JUnit XML: well-formed whatever the names hold, counted right, with the hops in it."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.checks import Case, Difference, State
from ipttrace.render.junit import NOT_XML, junit_xml, xml_text
from tests import builders as b

PASSED = Case(
    "dir/check.yaml", "article.yaml", "legacy", "outside 8445", State.PASSED, 0.25,
    result=b.result(b.redirect_path()),
)  # fmt: skip
FAILED = replace(
    PASSED,
    name="outside 8443",
    state=State.FAILED,
    differences=(Difference("outcome", "delivered", "dropped", 1),),
    result=b.result(b.mark_drop_path()),
)
ERROR = Case("a.yaml", "a", "nft", "x", State.ERROR, message="cannot build it")
SKIPPED = Case("a.yaml", "a", "nft", "y", State.SKIPPED, message="not run after x")
ALL = [PASSED, FAILED, ERROR, SKIPPED]


def document(*cases: Case) -> ET.Element:
    return ET.fromstring(junit_xml(cases))


def test_suites_and_counts() -> None:
    root = document(*ALL)
    assert root.tag == "testsuites"
    counts = {key: root.get(key) for key in ("tests", "failures", "errors", "skipped", "time")}
    assert counts == {
        "tests": "4", "failures": "1", "errors": "1", "skipped": "1", "time": "0.500"
    }  # fmt: skip
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["dir/check.yaml (legacy)", "a.yaml (nft)"]
    assert [suite.get("tests") for suite in suites] == ["2", "2"]


def test_a_test_case_each() -> None:
    cases = document(*ALL).findall("testsuite/testcase")
    assert [(case.get("classname"), case.get("name"), case.get("time")) for case in cases] == [
        ("ipttrace.article_yaml.legacy", "outside 8445", "0.250"),
        ("ipttrace.article_yaml.legacy", "outside 8443", "0.250"),
        ("ipttrace.a.nft", "x", "0.000"),
        ("ipttrace.a.nft", "y", "0.000"),
    ]
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"], ["failure"], ["error"], ["skipped"]
    ]  # fmt: skip


def test_a_failure_has_the_hops() -> None:
    [failure] = document(FAILED).iter("failure")
    assert failure.get("message") == "outcome: expected delivered, got dropped"
    assert "-m mark --mark 0x1 -j DROP" in (failure.text or "")


def test_an_error_and_a_skip_have_their_reason() -> None:
    root = document(ERROR, SKIPPED)
    assert [each.get("message") for each in root.iter("error")] == ["cannot build it"]
    assert [each.get("message") for each in root.iter("skipped")] == ["not run after x"]


def test_no_cases_are_a_document_too() -> None:
    assert document().get("tests") == "0"


@pytest.mark.parametrize("evil", ["\x00", "\x1b[31m", "]]>", "<&\"'", "\ud800", "\uffff", "a\nb"])
def test_names_from_outside(evil: str) -> None:
    rule = b.rule_hop("filter", "INPUT", 1, f"-m comment --comment {evil!s} -j DROP")
    case = replace(
        FAILED, file=evil, target=evil, name=evil, result=b.result(b.path(rule)),
        differences=(Difference("cause", evil, evil),), message=evil,
    )  # fmt: skip
    for state in State:
        [suite] = document(replace(case, state=state)).findall("testsuite")
        assert suite.get("tests") == "1"


@given(st.text(alphabet=st.characters()))
def test_any_text_can_be_read_back(text: str) -> None:
    case = replace(ERROR, message=text, name=text, target=text, file=text)
    assert len(document(case).findall("testsuite/testcase")) == 1
    assert NOT_XML.search(xml_text(text)) is None


def test_letters_of_every_script_stay() -> None:
    [case] = document(replace(ERROR, name="портал 门 🚪")).iter("testcase")
    assert case.get("name") == "портал 门 🚪"
