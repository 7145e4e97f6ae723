"""Where a DNAT rule sends packets on to, as its text says."""

from __future__ import annotations

import pytest

from ipttrace.targets import sent_on_to


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-A PREROUTING -p tcp -j DNAT --to-destination 127.0.0.1:80", ("127.0.0.1", 80)),
        ("-j DNAT --to-destination 10.1.1.1 --random", ("10.1.1.1", None)),
        ("-j DNAT --to-destination [::1]:80", ("::1", 80)),
        ("-j DNAT --to-destination 2001:db8::1", ("2001:db8::1", None)),
        ("tcp dport 81 dnat to 127.0.0.1:80 # handle 4", ("127.0.0.1", 80)),
        ("dnat ip6 to [2001:db8::1]:80", ("2001:db8::1", 80)),
        ("-j DNAT --to-destination 10.0.0.1-10.0.0.9", None),
        ("-j DNAT --to-destination 10.0.0.1:80-90", None),
        ("-j DNAT --to-destination :80", None),
        ("-j REDIRECT --to-ports 80", None),
        (None, None),
    ],
)
def test_one_destination_or_none(text: str | None, expected: tuple[str, int | None] | None) -> None:
    assert sent_on_to(text) == expected
