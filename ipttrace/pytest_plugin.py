"""Labs in pytest: the fixture `ipttrace_lab` brings one up, probes it, and takes it down.

    import pytest


    @pytest.mark.parametrize("backend", ["legacy", "nft"])
    def test_only_the_new_port_leads_to_the_service(ipttrace_lab, backend):
        lab = ipttrace_lab("article-complete", backend=backend)
        new = lab.probe("tcp 198.51.100.1:8445", in_="eth0", src="198.51.100.2", netns="server")
        assert new.outcome == "delivered"
        assert "nat/PREROUTING 1" in new.hops
        old = lab.probe("tcp 198.51.100.1:8443", in_="eth0", src="198.51.100.2", netns="server")
        old.expect(outcome="dropped", cause="mark-drop", crosses=["mangle/PREROUTING 1"])

A test that fails shows the hops of its probes.  Where the fixture cannot work (no root, a kernel
that lacks something) the test is skipped, with the reason; IPTTRACE_REQUIRE_ROOT=1 lets it fail.
pytest loads this module in every run of its user's: it imports nothing that costs time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from pluggy import Result

    from ipttrace.errors import IptTraceError
    from ipttrace.testing import Answer, LabFactory

REQUIRED = "IPTTRACE_REQUIRE_ROOT"
ANSWERS: pytest.StashKey[list[Answer]] = pytest.StashKey()


@pytest.fixture
def ipttrace_lab(request: pytest.FixtureRequest) -> Iterator[LabFactory]:
    """Bring labs up: `ipttrace_lab(NAME_OR_FILE, backend="nft")`; they go down with the test."""
    from ipttrace.errors import NotPermittedError, NotSupportedError
    from ipttrace.testing import LabFactory

    answers = request.node.stash.setdefault(ANSWERS, [])

    def guarded(work: Callable[[], Any]) -> Any:
        __tracebackhide__ = True
        try:
            return work()
        except (NotPermittedError, NotSupportedError) as error:
            _skip(error)

    with LabFactory(answers.append, guarded) as factory:
        yield factory


def _skip(error: IptTraceError) -> NoReturn:
    __tracebackhide__ = True
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"ipttrace_lab: {error} ({REQUIRED}=1 forbids to skip it)", pytrace=False)
    pytest.skip(f"ipttrace_lab: {error}")


@pytest.hookimpl(hookwrapper=True)  # also known to the pluggy of pytest 7
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, Result[pytest.TestReport], None]:
    """Add the hops of the test's probes to the report of a failure."""
    made = yield
    answers = item.stash.get(ANSWERS, None)
    if answers:
        report = made.get_result()
        if report.when == "call" and report.failed:
            report.sections += [(f"ipttrace: {each.sent}", each.report()) for each in answers]
