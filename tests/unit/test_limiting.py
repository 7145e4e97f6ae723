"""Whether a limit may have left packets out is worked out from those that it let pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.limiting import LimitGauge
from ipttrace.netfilter import PacketFamily
from ipttrace.path import PacketPath
from ipttrace.request import Trigger
from tests import builders as b

ONE = b.path()


def at(time: float, *, made_here: bool = False) -> PacketPath:
    return replace(ONE, time=time, in_interface=None if made_here else "eth0")


def gauge(*paths: PacketPath, limit: int | None = 20, trigger: Trigger = Trigger.RAW) -> bool:
    found = LimitGauge(limit)
    for path in paths:
        found.note(path, trigger)
    return found.reached


@pytest.mark.parametrize(("packets", "reached"), [(5, False), (15, False), (20, True), (22, True)])
def test_a_burst(packets: int, reached: bool) -> None:
    assert gauge(*(at(1 + each / 1000) for each in range(packets))) is reached


@pytest.mark.parametrize(("per_second", "reached"), [(10, False), (18, False), (25, True)])
def test_a_stream(per_second: int, reached: bool) -> None:
    """What comes faster than the limit allows empties the bucket sooner or later."""
    assert gauge(*(at(1 + each / per_second) for each in range(200))) is reached


def test_no_limit_is_never_reached() -> None:
    assert not gauge(*[at(1.0)] * 500, limit=None)


def test_each_raw_trigger_has_a_bucket_of_its_own() -> None:
    both = [at(1.0), at(1.0, made_here=True)] * 12
    assert not gauge(*both)
    assert gauge(*both, trigger=Trigger.OWNER)
    other = replace(ONE, packet=replace(ONE.packet, family=PacketFamily.IPV6))
    assert not gauge(*[at(1.0)] * 12, *[replace(other, time=1.0)] * 12)


def test_what_was_counted_is_said_and_nothing_where_nothing_was_left_out() -> None:
    found = LimitGauge(20)
    for each in range(20):
        found.note(at(1 + each / 1000), Trigger.RAW)
    (guessed,) = found.warnings(None)
    assert "others may have come by" in guessed
    (counted,) = found.warnings(1234)
    assert "1,234 others came by" in counted
    assert found.warnings(0) == ()
    assert LimitGauge(None).warnings(3) == (), "no limit left them out"
