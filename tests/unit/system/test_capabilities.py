"""What a process lacks, told from its status."""

from __future__ import annotations

import pytest

from ipttrace.errors import NotPermittedError
from ipttrace.system.capabilities import missing_privileges, require_privilege


def test_root_lacks_nothing() -> None:
    assert missing_privileges("Name:\tx\nCapEff:\t000001ffffffffff\n") == []


def test_each_missing_capability_is_named() -> None:
    assert missing_privileges("CapEff:\t0000000000001000\n") == ["CAP_NET_RAW", "CAP_SYS_ADMIN"]
    assert len(missing_privileges("")) == 3


def test_error_says_what_to_do() -> None:
    with pytest.raises(NotPermittedError, match=r"lacks CAP_NET_ADMIN, .*Run as root"):
        require_privilege("CapEff:\t0000000000000000\n")


def test_error_names_what_was_wanted() -> None:
    with pytest.raises(NotPermittedError, match=r"cannot read rules: this process lacks"):
        require_privilege("CapEff:\t0000000000000000\n", aim="read rules")
