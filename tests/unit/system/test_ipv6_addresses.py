"""When the kernel takes packets to an IPv6 address: bytes of /proc, recorded on Linux 6.18."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttrace.system import ipv6_addresses

LOOPBACK = "00000000000000000000000000000001"
OURS = "20010db8000000000000000000000077"
ZERO = "0" * 32
ADDRESSES = f"{LOOPBACK} 01 80 10 80       lo\n{OURS} 02 40 00 {{flags}}     eth0\n"
NETWORK = f"20010db8{'0' * 24} 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0\n"
LOCAL = "{} 80 " + f"{ZERO} 00 {ZERO} 00000000 00000002 00000000 80200001 {{:>8}}\n"


@pytest.mark.parametrize(
    ("flags", "routes", "in_use"),
    [
        ("82", LOCAL.format(LOOPBACK, "lo") + LOCAL.format(OURS, "eth0") + NETWORK, True),
        ("82", LOCAL.format(LOOPBACK, "lo") + NETWORK, False),
        ("c0", LOCAL.format(LOOPBACK, "lo") + LOCAL.format(OURS, "eth0") + NETWORK, False),
    ],
    ids=["in use", "its route is still to come", "tentative"],
)
def test_an_address_is_in_use_with_its_local_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, routes: str, in_use: bool
) -> None:
    for name, text in (("ADDRESSES", ADDRESSES.format(flags=flags)), ("ROUTES", routes)):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(ipv6_addresses, name, tmp_path / name)
    assert ipv6_addresses.all_in_use() == in_use


def test_a_kernel_without_ipv6_has_nothing_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipv6_addresses, "ADDRESSES", tmp_path / "none")
    monkeypatch.setattr(ipv6_addresses, "ROUTES", tmp_path / "none")
    assert ipv6_addresses.all_in_use()
