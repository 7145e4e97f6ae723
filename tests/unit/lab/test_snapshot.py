from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.errors import UsageError
from ipttrace.lab.host_plain import plain_links, plain_listeners, plain_policy, plain_routes
from ipttrace.lab.host_state import Snapshot
from ipttrace.lab.host_words import read_links, read_listeners, read_policy, read_routes
from ipttrace.lab.nft_tables import devices, loadable_nft, native_tables, split_tables
from ipttrace.lab.snapshot_file import (
    COMMANDS,
    decode_snapshot,
    encode_snapshot,
    mend,
    one_liner,
    read_sections,
    snapshot_of_sections,
)
from ipttrace.lab.sysctls import in_order, matters, name_of, path_of
from ipttrace.lab.twin import twin_parts
from ipttrace.lab.twin_source import read_twin_source
from ipttrace.netfilter import Backend

RECORDED = Path(__file__).parents[2] / "data" / "snapshot" / "host.txt"
"""Written by the line of shell in the namespace of tests/root/test_twin.py; iproute2 6.1."""


@pytest.fixture(scope="module")
def recorded() -> Snapshot:
    return snapshot_of_sections(read_sections(RECORDED.read_text()))


def test_a_recorded_host_is_read(recorded: Snapshot) -> None:
    assert recorded.unread == ()
    links = {link.name: link for link in recorded.links}
    assert links["eth0"].mtu == 1400
    assert links["eth0"].addresses[:2] == ("192.0.2.10/24", "10.9.9.1/32")
    assert links["eth0"].peers == ("10.9.9.2/32",)
    assert links["vnet0"].master == "br0"
    assert links["docker0"].kind == "bridge"
    assert not links["eth9"].up
    assert {(each.address, each.port) for each in recorded.listeners} == {
        ("0.0.0.0", 22),
        ("*", 8080),
        ("127.0.0.1", 3306),
        ("192.0.2.10", 53),
    }
    assert recorded.listeners[0].process == "python"
    assert {saved.program for saved in recorded.rules} == {
        "iptables-legacy",
        "ip6tables-legacy",
        "iptables-nft",
        "ip6tables-nft",
        "nft",
    }
    assert recorded.sysctls["net.ipv4.conf.eth0.rp_filter"] == "2"


def test_routes_are_read_as_they_are(recorded: Snapshot) -> None:
    routes = {(each.to, each.table): each for each in recorded.routes}
    assert routes["default", "main"].via in ("192.0.2.1", "2001:db8::1")
    assert routes["default", "100"].via == "192.0.2.3"
    assert routes["10.8.0.0/16", "main"].mtu == 1300
    assert routes["10.99.0.0/16", "main"].type == "blackhole"
    assert routes["100.64.0.1", "main"].onlink
    assert routes["172.30.0.0/16", "main"].other == "a way via 192.0.2.5 dev eth0"


def test_a_snapshot_survives_its_file(recorded: Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(recorded).decode(), "host.json") == recorded


def test_a_file_that_is_cut_off_anywhere_gives_what_is_whole(recorded: Snapshot) -> None:
    whole = encode_snapshot(recorded).decode()
    begin = whole.index('"addresses"')
    for end in range(begin, len(whole) - 2, 53):
        snapshot = decode_snapshot(whole[:end], "host.json")
        assert "cut off" in snapshot.unread[0]
        assert snapshot.links


@given(st.integers(0, 4000))
def test_mended_json_is_json(end: int) -> None:
    import json

    text = encode_snapshot(snapshot_of_sections(read_sections(RECORDED.read_text()))).decode()
    for mended in mend(text[:end]):
        try:
            json.loads(mended)
        except json.JSONDecodeError:
            assert mended.rstrip("]}").rstrip().endswith(":")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{]", "holds neither"),
        ('{"links": [{"name": 3}]}', "Expected `str`, got `int`"),
        ('{"ipttrace-snapshot": 2, "links": [{"name": "eth0"}]}', "format 2"),
        ("{}", "neither interfaces nor rules"),
    ],
)
def test_what_is_no_snapshot_is_said(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        decode_snapshot(text, "host.json")


def test_a_text_without_its_end_is_cut_off() -> None:
    text = RECORDED.read_text()
    snapshot = snapshot_of_sections(read_sections(text[: text.index("### sysctl")]))
    assert snapshot.unread == ("the text is cut off: it does not come to its end",)
    assert snapshot.links
    half = snapshot_of_sections(read_sections(text[: text.index("### ip -4") - 30]))
    assert any(each.startswith("ip -d -j addr: not JSON") for each in half.unread)


def test_the_line_of_shell_asks_for_all(recorded: Snapshot) -> None:
    line = one_liner()
    assert all(f"'{command}'" in line for command in COMMANDS)
    assert read_sections(RECORDED.read_text()).keys() == {*COMMANDS, "end"}


def test_words_say_what_json_says(recorded: Snapshot) -> None:
    sections = read_sections(RECORDED.read_text())
    plain = {command: text for command, text in sections.items() if " -j " not in command}
    spoken = snapshot_of_sections(plain)
    assert spoken.links == recorded.links
    assert spoken.routes == recorded.routes
    assert spoken.policy == recorded.policy
    assert spoken.unread == ()


def test_words_of_an_old_ip() -> None:
    """Of iproute2 4.11 (CentOS 7) and busybox 1.36: no kind is said."""
    links = plain_links("""\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
2: eth0.2@eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master br-lan state UP
    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff
3: br-lan: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc noqueue state DOWN qlen 1000
    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff
    inet 192.168.1.1/24 brd 192.168.1.255 scope global br-lan
       valid_lft forever preferred_lft forever
""")
    assert [(link.name, link.kind, link.master) for link in links] == [
        ("lo", "loopback", None),
        ("eth0.2", "", "br-lan"),
        ("br-lan", "bridge", None),
    ]
    assert links[2].addresses == ("192.168.1.1/24",)
    assert not links[2].carrier
    [route] = plain_routes("default via inet6 fe80::1 dev eth0 proto 16 mtu lock 1400\n", "ipv4")
    assert (route.via, route.mtu, route.protocol, route.family) == ("fe80::1", 1400, "16", "ipv6")
    [rule] = plain_policy(
        "7:\tnot from 10.0.0.0/8 fwmark 0x1 lookup 9 suppress_prefixlength 0", "ipv4"
    )
    assert (rule.source, rule.mark, rule.table) == ("10.0.0.0/8", "0x1", "9")
    assert (rule.inverted, rule.suppress_prefix, rule.other) == (True, 0, "")


@given(st.text(alphabet="1: eth0<UP>mtuviadev\n\t/.", max_size=80))
def test_any_words_of_ip_are_read(text: str) -> None:
    plain_links(text)
    plain_routes(text, "ipv4")
    plain_policy(text, "ipv4")
    plain_listeners(text)


def test_listeners_of_netstat() -> None:
    text = """\
Active Internet connections (only servers)
Proto Recv-Q Send-Q Local Address           Foreign Address         State       PID/Program name
tcp        0      0 0.0.0.0:22              0.0.0.0:*               LISTEN      812/dropbear
tcp        0      0 :::80                   :::*                    LISTEN      900/uhttpd
udp        0      0 192.168.1.1:53          0.0.0.0:*                           700/dnsmasq
"""
    found = [
        (each.protocol, each.address, each.port, each.process) for each in plain_listeners(text)
    ]
    assert found == [
        ("tcp", "0.0.0.0", 22, "dropbear"),
        ("tcp", "*", 80, "uhttpd"),
        ("udp", "192.168.1.1", 53, "dnsmasq"),
    ]


def test_what_plain_iptables_says_again_is_left_out() -> None:
    sections = {
        "iptables-legacy-save -c": "*filter\nCOMMIT\n",
        "iptables-save -c": "*filter\nCOMMIT\n",
        "ip6tables-save -c": "# Generated by ip6tables-save v1.8.9 (nf_tables)\n*filter\nCOMMIT\n",
        "end": "",
    }
    assert [saved.program for saved in snapshot_of_sections(sections).rules] == [
        "iptables-legacy",
        "ip6tables",
    ]


# ---------------------------------------------------------------- words of other tools


def test_links_of_kinds_that_this_kernel_lacks() -> None:
    text = """[
    {"ifname":"eth0.100","link":"eth0","flags":["UP"],"mtu":1500,"link_type":"ether",
     "address":"02:00:00:00:00:01","linkinfo":{"info_kind":"vlan","info_data":{"id":100}}},
    {"ifname":"wg0","flags":["POINTOPOINT","NOARP","UP"],"mtu":1420,"link_type":"none",
     "linkinfo":{"info_kind":"wireguard"},
     "addr_info":[{"family":"inet","local":"10.6.0.1","prefixlen":24}]},
    {"ifname":"blue","flags":["NOARP","UP"],"linkinfo":{"info_kind":"vrf"}},
    {"ifname":"eth1","master":"blue","flags":["NO-CARRIER","UP"]}, {}]"""
    links = read_links(text)
    assert [link.kind for link in links] == ["vlan", "wireguard", "vrf", ""]
    assert not links[3].carrier
    parts = twin_parts(Snapshot(links=links))
    assert [end.interface for end in parts.ends] == ["eth0.100", "wg0", "blue", "eth1"]
    assert [end.arp for end in parts.ends] == [True, False, False, True]
    assert parts.dead == {"eth1"}
    assert [str(each) for each in parts.missing] == [
        "ip addr: blue: a VRF: its table is looked up only by its routes"
    ]
    assert parts.notes == (
        "eth0.100 (vlan) is stood in by a veth end",
        "wg0 (wireguard) is stood in by a veth end",
        "eth1, part of blue (vrf), stands by itself",
    )


def test_listeners_of_ss() -> None:
    text = """\
Netid State  Recv-Q Send-Q Local Address:Port Peer Address:PortProcess
udp   UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=5,fd=13))
udp   UNCONN 0 0 [fe80::1]%eth0:546 [::]:* users:(("systemd-network",pid=4,fd=2))
tcp   LISTEN 0 128 [::]:22 [::]:*
tcp   LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=1,fd=3),("systemd",pid=1,fd=4))
tcp   LISTEN 0 128 0.0.0.0:22 0.0.0.0:*
tcp   ESTAB  0 0 192.0.2.1:22 192.0.2.9:5000
nonsense
"""
    found = [(each.address, each.interface, each.process) for each in read_listeners(text)]
    assert found == [
        ("127.0.0.53", "lo", "systemd-resolve"),
        ("fe80::1", "eth0", "systemd-network"),
        ("::", None, ""),
        ("0.0.0.0", None, "sshd"),
    ]


def test_rules_and_routes_with_more_than_a_lab_has() -> None:
    [rule] = read_policy(
        '[{"priority":5,"not":null,"src":"all","fwmark":"0x1","table":"7"}]', "ipv4"
    )
    assert (rule.mark, rule.inverted, rule.other) == ("0x1", True, "")
    [narrow] = read_policy(
        '[{"priority":6,"src":"all","uid_start":5,"uid_end":9,"tos":"0x10","ipproto":"tcp",'
        '"sport":53,"dport_start":80,"dport_end":90,"table":"7"}]',
        "ipv4",
    )
    words = "6: from all uidrange 5-9 tos 0x10 ipproto tcp sport 53 dport 80-90 lookup 7"
    assert (narrow,) == plain_policy(words, "ipv4")
    assert (narrow.uidrange, narrow.sport, narrow.other) == ("5-9", "53", "")
    [numbered] = read_policy('[{"priority":6,"src":"all","ipproto":99,"table":"7"}]', "ipv4")
    assert numbered.ipproto == "99"
    text = (
        '[{"dst":"10.8.0.0/16","encap":"ip","id":3,"dst":"198.51.100.7","dev":"eth0","flags":[]}]'
    )
    [tunnelled] = read_routes(text, "ipv4")
    assert tunnelled.to == "10.8.0.0/16", "ip(8) writes dst twice"
    [route] = read_routes('[{"dst":"10.0.0.0/8","encap":"mpls","dev":"eth0","flags":[]}]', "ipv4")
    assert route.other == "encap mpls"


@given(st.text(max_size=100))
def test_any_words_are_read_or_refused(text: str) -> None:
    for read in (read_links, lambda words: read_routes(words, "ipv4")):
        try:
            read(text)
        except (ValueError, TypeError):
            continue


# ---------------------------------------------------------------- settings


def test_settings_have_names_and_paths() -> None:
    assert path_of("net.ipv4.conf.eth0/100.rp_filter") == "net/ipv4/conf/eth0.100/rp_filter"
    assert name_of("net/ipv4/conf/eth0.100/rp_filter") == "net.ipv4.conf.eth0/100.rp_filter"
    assert matters("net.ipv4.ip_forward")
    assert matters("net.ipv4.conf.eth0/100.rp_filter")
    assert not matters("net.ipv4.tcp_rmem")


def test_settings_are_set_so_that_none_undoes_another() -> None:
    names = ("net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.all.forwarding", "net.ipv4.ip_forward")
    assert list(in_order(dict.fromkeys(names, "1"))) == list(reversed(names))


# ---------------------------------------------------------------- native tables

RULESET = """\
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
	}
}
table inet fw {
	set s {
		type ipv4_addr
		elements = { 10.0.0.1,
			10.0.0.2 }
	}

	chain input {
		type filter hook input priority filter; policy accept;
		ip saddr @s drop
		tcp dport 80 accept
	}
}
table netdev early {
	chain ingress {
		type filter hook ingress device "eth0" priority filter; policy accept;
	}
}
table inet ipttrace-1234 {
}
"""


def test_native_tables_are_told_apart() -> None:
    tables = native_tables(RULESET, {("ip", "filter")})
    assert [(table.family, table.name, table.number) for table in tables] == [
        ("inet", "fw", 6),
        ("netdev", "early", 19),
    ]
    assert [devices(table) for table in tables] == [set(), {"eth0"}]


def nft_tables(*names: str) -> str:
    return "".join(f"table ip {name} {{\n\tchain c {{\n\t}}\n}}\n" for name in names)


@pytest.mark.parametrize(
    ("names", "first", "noted"),
    [
        (("own", "filter"), True, False),
        (("filter", "own"), False, False),
        (("own", "filter", "other"), True, True),
        (("own",), False, False),
    ],
)
def test_the_order_of_tables_is_that_of_nft(
    names: tuple[str, ...], first: object, noted: object
) -> None:
    saved = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n" if "filter" in names else ""
    text = f"### iptables-nft-save -c\n{saved}### nft list ruleset\n{nft_tables(*names)}### end\n"
    source = read_twin_source(text, "host.txt")
    assert source.native_first is first
    assert any("another one may come first" in note for note in source.notes) is noted


def test_a_rule_that_nft_refuses_is_named() -> None:
    [table] = [each for each in split_tables(RULESET) if each.name == "fw"]

    def attempt(text: str) -> str | None:
        rows = text.split("\n")
        bad = [number for number, row in enumerate(rows, 1) if "@s" in row]
        return f"/dev/stdin:{bad[0]}:3-4: Error: No such file or directory\n" if bad else None

    found = loadable_nft([table], attempt)
    [missing] = found.missing
    assert str(missing) == "nft line 15: ip saddr @s drop: No such file or directory"
    assert "tcp dport 80 accept" in found.text


def test_a_table_that_is_cut_off_is_closed() -> None:
    text = RULESET[: RULESET.index("tcp dport 80 accept") + 5]
    tables = native_tables(text, {("ip", "filter")})
    found = loadable_nft(tables, lambda text: None)
    assert [each.reason for each in found.missing] == ["the table is cut off"]
    assert found.text.count("{") == found.text.count("}")


# ---------------------------------------------------------------- which kind of file


def test_each_kind_of_file_is_known(recorded: Snapshot) -> None:
    of_tools = read_twin_source(RECORDED.read_text(), "host.txt")
    of_json = read_twin_source(encode_snapshot(recorded).decode(), "host.json")
    assert of_tools.snapshot == of_json.snapshot
    assert [backend for backend, _ in of_json.files] == [Backend.LEGACY] * 2 + [Backend.NFT] * 2
    assert [table.name for table in of_json.tables] == ["native", "early"]
    bare = read_twin_source("*filter\n-A INPUT -j ACCEPT\nCOMMIT\n", "dir/rules.v4")
    assert bare.derived
    assert bare.files[0][1].source == "rules.v4"
    with pytest.raises(UsageError, match="neither a snapshot"):
        read_twin_source("root:x:0:0", "passwd")


def test_a_text_without_interfaces_gets_those_of_its_rules() -> None:
    text = "### iptables-save -c\n*filter\n-A INPUT -i ens3 -j ACCEPT\nCOMMIT\n### end\n"
    source = read_twin_source(text, "host.txt")
    assert source.derived
    assert [link.name for link in source.snapshot.links] == ["ens3"]


def test_ipsets_are_read() -> None:
    text = (
        "### iptables-save -c\n*filter\n-A INPUT -i ens3 -j ACCEPT\nCOMMIT\n"
        "### ipset save\ncreate bad hash:ip family inet\nadd bad 192.0.2.1\nadd bad x\n### end\n"
    )
    source = read_twin_source(text, "host.txt")
    assert source.sets.sets["bad"].entries == ["192.0.2.1"]
    [missing] = source.missing
    assert str(missing).startswith("ipset line 3: add bad x: ")
