"""nft's list of rules, as nft 1.0.6 printed it, and its union with iptables-nft-save's."""

# ruff: noqa: E101 - nft indents by tabs and aligns by spaces

from __future__ import annotations

import pytest

from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.decode.nft_list import decode_nft_list, merge_nft
from ipttrace.netfilter import Backend, ChainRef, Hook, TableFamily, Verdict
from ipttrace.ruleset import Chain, Counter, Rule

LIST = """table ip filter { # handle 1
	chain U { # handle 1
	}

	chain INPUT { # handle 2
		type filter hook input priority 0; policy drop;
		tcp dport 80  counter packets 0 bytes 0 accept # handle 3
		 counter packets 0 bytes 0 drop # handle 4
		meta l4proto tcp xt match string counter packets 0 bytes 0 jump U # handle 6
	}
}
table inet t { # handle 6
	flags owner
	comment "a table { of"

	counter cc { # handle 5
		packets 0 bytes 0
	}

	ct helper h { # handle 6
		type "ftp" protocol tcp
		l3proto inet
	}

	set s { # handle 7
		type ipv4_addr
		flags interval
		elements = { 1.2.3.4, 5.6.7.0/24,
			     5.6.9.0/24, 8.6.7.0/24 }
	}

	map m { # handle 8
		type inet_service : verdict
		elements = { 22 : accept, 23 : drop }
	}

	chain c1 { # handle 1
		type filter hook input priority -5; policy drop;
		tcp dport vmap { 22 : accept, 23 : drop } comment "x { y" # handle 10
		ip saddr @s drop # handle 13
		ip saddr 10.0.0.0/8 log prefix "to drop it } #" accept # handle 14
		meta nftrace set 1 comment "ipttrace:s1" # handle 16
		jump c2 # handle 17
		tcp dport 99 reject with tcp reset # handle 18
		tcp dport { 80,
			    443 } counter packets 0 bytes 0 goto c2 # handle 20
	}

	chain c2 { # handle 2
		comment "user chain"
		return # handle 23
	}

	chain nat { # handle 3
		type nat hook prerouting priority -100; policy accept;
		dnat ip to tcp dport map { 5 : 1.2.3.4, 6 : 1.2.3.5 } # handle 27
	}

	chain empty { # handle 4
	}
}
table netdev nd { # handle 7
	chain i { # handle 1
		type filter hook ingress devices = { "eth0", "lo" } priority 10; policy accept;
		drop # handle 3
	}
}
table bridge b { # handle 8
	chain f { # handle 1
		type filter hook forward priority -200; policy accept;
		ether type ip drop # handle 2
	}
}
"""

SAVE = """*filter
:INPUT DROP [5:300]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:U - [0:0]
[1:60] -A INPUT -p tcp -m tcp --dport 80 -m comment --comment "web" -j ACCEPT
[2:80] -A INPUT -j DROP
[0:0] -A INPUT -p tcp -m string --string "x" --algo bm -j U
COMMIT
"""


def ref(family: str, table: str, chain: str) -> ChainRef:
    return ChainRef(Backend.NFT, TableFamily(family), table, chain)


def chain_of(family: str, table: str, chain: str) -> Chain:
    return decode_nft_list(LIST).chains[ref(family, table, chain)]


def test_every_chain_of_every_family_is_there() -> None:
    names = [(str(r.table_family), r.table, r.chain) for r in decode_nft_list(LIST).chains]
    assert names == [
        ("ip", "filter", "U"),
        ("ip", "filter", "INPUT"),
        ("inet", "t", "c1"),
        ("inet", "t", "c2"),
        ("inet", "t", "nat"),
        ("inet", "t", "empty"),
        ("netdev", "nd", "i"),
        ("bridge", "b", "f"),
    ]


@pytest.mark.parametrize(
    ("name", "hook", "priority", "policy"),
    [
        (("inet", "t", "c1"), Hook.INPUT, -5, Verdict.DROP),
        (("inet", "t", "nat"), Hook.PREROUTING, -100, Verdict.ACCEPT),
        (("netdev", "nd", "i"), Hook.INGRESS, 10, Verdict.ACCEPT),
        (("bridge", "b", "f"), Hook.FORWARD, -200, Verdict.ACCEPT),
        (("inet", "t", "c2"), None, None, None),
    ],
)
def test_base_chains(
    name: tuple[str, str, str], hook: Hook | None, priority: int | None, policy: Verdict | None
) -> None:
    chain = chain_of(*name)
    assert (chain.hook, chain.priority, chain.policy) == (hook, priority, policy)


COUNTED = [
    ("tcp dport 22 counter packets 5 bytes 300 accept", "tcp dport 22 counter accept", (5, 300)),
    (
        "counter packets 1 bytes 2 ip saddr 1.2.3.4 counter packets 3 bytes 4",
        "counter ip saddr 1.2.3.4 counter",
        (3, 4),
    ),
    ('counter name "named" drop', 'counter name "named" drop', None),
    (
        'log prefix "counter packets 7 bytes 8 " drop',
        'log prefix "counter packets 7 bytes 8 " drop',
        None,
    ),
    (
        'counter packets 2 bytes 9 comment "counter packets 7 bytes 8"',
        'counter comment "counter packets 7 bytes 8"',
        (2, 9),
    ),
    ("limit rate 5/second burst 5 packets drop", "limit rate 5/second burst 5 packets drop", None),
]


@pytest.mark.parametrize(("written", "text", "counts"), COUNTED)
def test_a_rules_counter_is_a_number_and_no_text(
    written: str, text: str, counts: tuple[int, int] | None
) -> None:
    rule = f"\t\t{written} # handle 3\n"
    listed = f"table inet t {{ # handle 1\n\tchain c {{ # handle 1\n{rule}\t}}\n}}\n"
    (chain,) = decode_nft_list(listed).chains.values()
    (found,) = chain.rules
    assert (found.text, found.counter) == (text, Counter(*counts) if counts else None)


@pytest.mark.parametrize(
    ("written", "devices"),
    [
        ('device "eth0"', ("eth0",)),
        ("devices = { eth0, x }", ("eth0", "x")),
        ('device "priority;"', ("priority;",)),
        ("devices = { a}b, c,d }", ("a}b", "c,d")),
        ("", ()),
    ],
)
def test_a_chain_at_ingress_knows_its_devices(written: str, devices: tuple[str, ...]) -> None:
    """As nft 1.0.6 writes them: one in quotes, several without."""
    text = (
        "table netdev guard { # handle 1\n\tchain in { # handle 1\n"
        f"\t\ttype filter hook ingress {written} priority -7; policy drop;\n\t}}\n}}\n"
    )
    (chain,) = decode_nft_list(text).chains.values()
    assert (chain.devices, chain.priority, chain.policy) == (devices, -7, Verdict.DROP)


def test_a_rule_has_handle_text_and_number() -> None:
    assert chain_of("inet", "t", "c1").rules[1] == Rule(
        ref("inet", "t", "c1"), 2, 2, "ip saddr @s drop", "drop", handle=13
    )


def test_the_target_is_the_first_verdict_outside_quotes() -> None:
    targets = [(rule.target, rule.goto) for rule in chain_of("inet", "t", "c1").rules]
    assert targets == [
        ("vmap", False),
        ("drop", False),
        ("accept", False),
        (None, False),
        ("jump", False),
        ("reject", False),
        ("goto", True),
    ]
    assert chain_of("inet", "t", "nat").rules[0].target == "dnat"


def test_our_rule_takes_a_position_but_no_number() -> None:
    numbers = [rule.number for rule in chain_of("inet", "t", "c1").rules]
    assert numbers == [1, 2, 3, None, 4, 5, 6]


def test_a_rule_over_several_lines_is_one() -> None:
    rule = chain_of("inet", "t", "c1").rules[-1]
    assert rule.text == "tcp dport { 80, 443 } counter goto c2"
    assert rule.handle == 20


def test_properties_of_a_chain_are_no_rules() -> None:
    assert [rule.text for rule in chain_of("inet", "t", "c2").rules] == ["return"]


def merged_input() -> Chain:
    saved = decode_iptables_save(SAVE, Backend.NFT, TableFamily.IP)
    return merge_nft(saved, decode_nft_list(LIST)).chains[ref("ip", "filter", "INPUT")]


def test_merging_keeps_the_users_text_and_takes_the_handle() -> None:
    assert [(rule.text, rule.handle, rule.counter) for rule in merged_input().rules] == [
        (
            '-A INPUT -p tcp -m tcp --dport 80 -m comment --comment "web" -j ACCEPT',
            3,
            Counter(1, 60),
        ),
        ("-A INPUT -j DROP", 4, Counter(2, 80)),
        ('-A INPUT -p tcp -m string --string "x" --algo bm -j U', 6, Counter(0, 0)),
    ]


def test_merging_takes_policy_counter_from_the_save_and_the_hook_from_the_list() -> None:
    chain = merged_input()
    assert (chain.hook, chain.priority) == (Hook.INPUT, 0)
    assert (chain.policy, chain.counter) == (Verdict.DROP, Counter(5, 300))


def test_built_in_chains_that_the_kernel_does_not_have_are_left_out() -> None:
    saved = decode_iptables_save(SAVE, Backend.NFT, TableFamily.IP)
    assert ref("ip", "filter", "FORWARD") in saved.chains
    assert set(merge_nft(saved, decode_nft_list(LIST)).chains) == set(decode_nft_list(LIST).chains)


def test_a_chain_that_changed_in_between_stays_as_nft_lists_it() -> None:
    shorter = SAVE.replace("[2:80] -A INPUT -j DROP\n", "")
    saved = decode_iptables_save(shorter, Backend.NFT, TableFamily.IP)
    listed = decode_nft_list(LIST)
    name = ref("ip", "filter", "INPUT")
    assert merge_nft(saved, listed).chains[name] == listed.chains[name]
