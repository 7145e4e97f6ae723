"""Which sysctls are read for a packet."""

from __future__ import annotations

from pathlib import Path

from ipttrace.question import Question
from ipttrace.system.network_settings import read_settings
from tests import builders as b


def test_those_of_its_interfaces_and_of_all_are_read(tmp_path: Path) -> None:
    for name in ("net/ipv4/ip_forward", "net/ipv4/conf/eth0.5/rp_filter"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    packet = b.tcp()
    question = Question(packet, packet, packet, in_interface="eth0.5")
    assert read_settings(question, tmp_path) == {
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/eth0.5/rp_filter": "1",
    }
