"""What is said of a snapshot that was taken."""

from __future__ import annotations

from ipttrace.lab.holdings import held
from ipttrace.lab.host_state import LinkState, PolicyState, SavedText, Snapshot

SAVED = SavedText(
    "iptables-nft",
    ("*filter", ":INPUT ACCEPT [0:0]", "[3:180] -A INPUT -j ACCEPT", "-A INPUT -j DROP", "COMMIT"),
)
LISTED = """\
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		counter packets 3 bytes 180 accept
		counter packets 0 bytes 0 drop
	}
}
table inet fw {
	counter hits {
		packets 0 bytes 0
	}

	set blocked {
		type ipv4_addr
		elements = { 192.0.2.1 }
	}

	flowtable f {
		hook ingress priority filter
		devices = { eth0 }
	}

	chain in {
		comment "the front door"
		type filter hook input priority filter; policy drop;
		tcp dport { 22, 80,
			443 } accept
		meta l4proto icmp accept
	}

	chain empty {
	}
}
table netdev early {
	chain c {
		type filter hook ingress device "eth0" priority filter; policy accept;
		ip saddr 192.0.2.1 drop
	}
}
"""


def test_native_rules_are_counted_and_those_of_iptables_once() -> None:
    nft = SavedText("nft", tuple(LISTED.splitlines()))
    snapshot = Snapshot(
        links=(LinkState("lo"),), policy=(PolicyState(), PolicyState()), rules=(SAVED, nft)
    )
    assert list(held(snapshot)) == [
        "1 interface",
        "0 routes",
        "2 routing rules",
        "2 rules of iptables",
        "3 rules in 2 native tables of nftables",
        "0 listening sockets",
    ]


def test_without_native_tables_nothing_is_said_of_them() -> None:
    nft = SavedText("nft", tuple(LISTED.splitlines()[:7]))
    assert not any("nftables" in each for each in held(Snapshot(rules=(SAVED, nft))))
