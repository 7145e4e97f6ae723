# ruff: noqa: E501 -- lines of a terminal of 120 columns
"""What a person reads, under review: the bytes are the contract."""

from __future__ import annotations

from dataclasses import replace

from inline_snapshot import snapshot

from ipttrace.diagnose import Case, diagnose
from ipttrace.event import TraceKind
from ipttrace.netfilter import Backend, Basis, Hook, TableFamily, Verdict
from ipttrace.path import ChainHop, Change, NatHop, Outcome, PacketPath, Role, WireHop
from ipttrace.render.text import path_lines, result_lines
from ipttrace.result import TraceTotals
from ipttrace.ruleset import Ruleset
from tests import builders as b


def diagnosed(path: PacketPath, ruleset: Ruleset | None = None) -> PacketPath:
    rules = b.article_rules() if ruleset is None else ruleset
    return replace(path, diagnosis=diagnose(Case(path, ruleset=rules)))


def shown(
    path: PacketPath, width: int | None = 120, *, color: bool = False, client: str | None = None
) -> str:
    return "\n".join(path_lines(path, width=width, color=color, client=client)) + "\n"


def test_a_dropped_packet_at_120_columns() -> None:
    assert shown(diagnosed(b.mark_drop_path())) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes   iptables-legacy, in on eth0, namespace server
  raw     PREROUTING    policy ACCEPT
  mangle  PREROUTING 1  -p tcp -m tcp --dport 8443 -j MARK --set-xmark 0x1/0xffffffff  mark 0 -> 1  +1
  mangle  PREROUTING    policy ACCEPT
  nat     PREROUTING    policy ACCEPT
  mangle  INPUT         policy ACCEPT
  filter  INPUT 1       -m mark --mark 0x1 -j DROP                                     DROP         +1
x dropped at filter/INPUT 1: it drops mark 0x1, which mangle/PREROUTING 1 had set [mark-drop]
  a client sees a timeout
  evidence: filter/INPUT 1 is the kernel's last report of it (reported); DROP follows from the rule's text (inferred); 1
    more with --verbose
  not matched: nat/PREROUTING 1 wants --dport 8445, the packet has 8443
  to spare this client the mark: iptables-legacy -t mangle -I PREROUTING 1 -s 203.0.113.7 -p tcp --dport 8443 -j ACCEPT
  or delete the rule that drops: iptables-legacy -D INPUT 1
""")


def test_a_dropped_packet_at_80_columns() -> None:
    assert shown(diagnosed(b.mark_drop_path()), 80) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes
    iptables-legacy, in on eth0, namespace server
  raw     PREROUTING    policy ACCEPT
  mangle  PREROUTING 1  -p tcp --dport 8443 -j MARK …            mark 0 -> 1  +1
  mangle  PREROUTING    policy ACCEPT
  nat     PREROUTING    policy ACCEPT
  mangle  INPUT         policy ACCEPT
  filter  INPUT 1       -m mark --mark 0x1 -j DROP               DROP         +1
x dropped at filter/INPUT 1: it drops mark 0x1, which mangle/PREROUTING 1 had
  set [mark-drop]
  a client sees a timeout
  evidence: filter/INPUT 1 is the kernel's last report of it (reported); DROP
    follows from the rule's text (inferred); 1 more with --verbose
  not matched: nat/PREROUTING 1 wants --dport 8445, the packet has 8443
  to spare this client the mark:
      iptables-legacy -t mangle -I PREROUTING 1 -s 203.0.113.7 -p tcp --dport 8443 -j ACCEPT
  or delete the rule that drops: iptables-legacy -D INPUT 1
""")


def test_a_dropped_packet_in_colour() -> None:
    assert shown(diagnosed(b.mark_drop_path()), color=True) == snapshot("""\
\x1b[1mtcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes\x1b[0m   iptables-legacy, in on eth0, namespace server
  raw     PREROUTING    \x1b[2mpolicy ACCEPT\x1b[0m
  mangle  PREROUTING 1  -p tcp -m tcp --dport 8443 -j MARK --set-xmark 0x1/0xffffffff  \x1b[36mmark 0 -> 1\x1b[0m  +1
  mangle  PREROUTING    \x1b[2mpolicy ACCEPT\x1b[0m
  nat     PREROUTING    \x1b[2mpolicy ACCEPT\x1b[0m
  mangle  INPUT         \x1b[2mpolicy ACCEPT\x1b[0m
  filter  INPUT 1       -m mark --mark 0x1 -j DROP                                     \x1b[1;31mDROP\x1b[0m         +1
\x1b[1;31mx dropped at filter/INPUT 1: it drops mark 0x1, which mangle/PREROUTING 1 had set [mark-drop]\x1b[0m
  a client sees a timeout
  evidence: filter/INPUT 1 is the kernel's last report of it (reported); DROP follows from the rule's text (inferred); 1
    more with --verbose
  not matched: nat/PREROUTING 1 wants --dport 8445, the packet has 8443
  to spare this client the mark: iptables-legacy -t mangle -I PREROUTING 1 -s 203.0.113.7 -p tcp --dport 8443 -j ACCEPT
  or delete the rule that drops: iptables-legacy -D INPUT 1
""")


def test_a_redirected_packet_that_is_delivered() -> None:
    assert shown(diagnosed(b.redirect_path(Backend.NFT)), client="CONNECTED") == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8445  SYN  60 bytes   iptables-nft, in on eth0, namespace server
  raw     PREROUTING    policy ACCEPT
  mangle  PREROUTING    policy ACCEPT
  nat     PREROUTING 1  -d 198.51.100.1 -p tcp --dport 8445 -j REDIRECT --to-ports 8443           dport 8445 -> 8443  +1
  mangle  INPUT         policy ACCEPT
  filter  INPUT         policy ACCEPT
  nat     INPUT         policy ACCEPT
> delivered to 198.51.100.1:8443: nat/PREROUTING 1 changed dport 8445 -> 8443
  the client is connected
""")


def test_a_local_packet_that_dies_on_lo_at_80_columns() -> None:
    path = diagnosed(b.local_path(Backend.NFT, netns=None))
    assert shown(path, 80, client="TIMEOUT") == snapshot("""\
tcp 198.51.100.1:40000 > 198.51.100.1:8445  SYN  60 bytes
    iptables-nft, made here, out by lo
  raw     OUTPUT        policy ACCEPT
  mangle  OUTPUT        policy ACCEPT
  nat     OUTPUT 1      … --dport 8445 -j REDIRECT …      dport 8445 -> 8443  +1
  filter  OUTPUT        policy ACCEPT
  mangle  POSTROUTING   policy ACCEPT
  nat     POSTROUTING   policy ACCEPT
  raw     PREROUTING    policy ACCEPT
  mangle  PREROUTING 1  -p tcp --dport 8443 -j MARK …     mark 0 -> 1         +1
  mangle  PREROUTING    policy ACCEPT
  mangle  INPUT         policy ACCEPT
  filter  INPUT 1       -m mark --mark 0x1 -j DROP        DROP                +1
x dropped at filter/INPUT 1: it drops mark 0x1, which mangle/PREROUTING 1 had
  set when the packet came in again on lo, to port 8443 [mark-drop]
  the client got no answer (timeout)
  evidence: the kernel reported that filter/INPUT 1 ended it (reported);
    nat/OUTPUT 1 changed dport 8445 -> 8443 (reported); 1 more with --verbose
  to spare packets of this host the mark:
      iptables-nft -t mangle -I PREROUTING 1 -i lo -p tcp --dport 8443 -j ACCEPT
  or delete the rule that drops: iptables-nft -D INPUT 1
""")


def test_a_pipe_gets_the_whole_rule() -> None:
    text = f'-p tcp -m comment --comment "{"x" * 100}" -j DROP'
    path = b.path(b.rule_hop("filter", "INPUT", 1, text), outcome=Outcome.DROPPED)
    assert shown(path, None) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes   iptables-legacy, in on eth0, namespace server
  filter  INPUT 1  -p tcp -m comment --comment "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" -j DROP  DROP  +1
x dropped at filter/INPUT 1
  a client sees a timeout
""")


def test_a_forwarded_packet_with_its_nat_and_its_end_on_the_wire() -> None:
    path = b.forward_path(WireHop(b.TIME, "contained", "eth1"))
    assert shown(diagnosed(path), 80) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes
    iptables-legacy, in on eth0, namespace server
  filter  FORWARD        policy ACCEPT
  nat     POSTROUTING 1  -o eth1 -j MASQUERADE             +1
  nat     result         src 203.0.113.7:40000 -> 203.0.113.1:40000
  wire                   out by eth1            CONTAINED
> left by eth1 (contained); use --let-out to go further
""")


def test_the_ports_of_a_bridge_stand_behind_it() -> None:
    hop = b.policy_hop("filter", "FORWARD")
    path = b.path(
        hop,
        outcome=Outcome.FORWARDED,
        in_interface="br0",
        out_interface="br0",
        physical_in="p1",
        physical_out="p2",
    )
    assert shown(diagnosed(path)) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes   iptables-legacy, in on br0 (port p1), namespace server
  filter  FORWARD  policy ACCEPT
> forwarded by br0 (port p2), and nothing came back [remote-silent]
  evidence: no answer and no error came in while it was waited for (inferred)
  to see whether the answer arrives: tcpdump -ni p2 host 198.51.100.1
""")


def test_the_later_legs_of_a_journey_say_so() -> None:
    first = b.path(b.policy_hop("filter", "FORWARD"), outcome=Outcome.FORWARDED)
    second = b.path(b.policy_hop("filter", "INPUT"), number=2, leg=2, netns="web")
    reply = b.reply_path(2, number=3, journey=2, netns="web")
    assert printed(first, second, reply) == snapshot("""\
#1 tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes
    iptables-legacy, in on eth0, namespace server
  filter  FORWARD  policy ACCEPT
> forwarded

#2 tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes
    leg 2, iptables-legacy, in on eth0, namespace web
  filter  INPUT  policy ACCEPT
> delivered

#3 tcp 198.51.100.1:8443 > 203.0.113.7:40000  SYN ACK  60 bytes
    answer to #2, iptables-legacy, made here, out by eth0, namespace web
  raw     OUTPUT  policy ACCEPT
  filter  OUTPUT  policy ACCEPT
  wire            out by eth0    CONTAINED
> sent

note: iptables-legacy reports which rules matched, not what they decided; its verdicts are inferred
  from the rules
""")


def test_user_chains_are_indented() -> None:
    path = b.path(
        b.rule_hop("filter", "INPUT", 2, "-p tcp -j WEB"),
        b.rule_hop("filter", "WEB", 1, "-m conntrack --ctstate NEW -g LIMIT"),
        b.rule_hop("filter", "LIMIT", 3, "-j LOG --log-prefix x", counter=None),
        b.rule_hop("filter", "LIMIT", 4, "-j RETURN"),
        b.rule_hop("filter", "INPUT", 3, "-p tcp -j REJECT --reject-with tcp-reset"),
        outcome=Outcome.REJECTED,
    )
    assert shown(diagnosed(path), 100) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes
    iptables-legacy, in on eth0, namespace server
  filter  INPUT 2      -p tcp -j WEB                                     +1
  filter    WEB 1      -m conntrack --ctstate NEW -g LIMIT               +1
  filter      LIMIT 3  -j LOG --log-prefix x
  filter      LIMIT 4  -j RETURN                                         +1
  filter  INPUT 3      -p tcp -j REJECT --reject-with tcp-reset  REJECT  +1
x rejected at filter/INPUT 3: the rule for -p tcp answers with a TCP reset [rule-reject]
  a client sees ECONNREFUSED
  evidence: filter/INPUT 3 is the kernel's last report of it (reported); REJECT follows from the
    rule's text (inferred)
  to let it in: iptables-legacy -I INPUT 3 -p tcp --dport 8443 -j ACCEPT
  or delete the rule: iptables-legacy -D INPUT 3
""")


def test_the_end_of_a_user_chain() -> None:
    end = b.rule_hop("filter", "WEB", 1, "-j X", event=TraceKind.RETURN, verdict=Verdict.RETURN)
    end = replace(end, number=None, rule=None, target=None, counter=None)
    path = b.path(b.rule_hop("filter", "INPUT", 2, "-j WEB"), end, b.policy_hop("filter", "INPUT"))
    assert shown(path) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes   iptables-legacy, in on eth0, namespace server
  filter  INPUT 2  -j WEB         +1
  filter    WEB    end of chain
  filter  INPUT    policy ACCEPT
> delivered
""")


def test_both_backends_get_a_column_of_their_own() -> None:
    native = b.rule_hop(
        "fw",
        "in",
        3,
        "tcp dport 8443 counter drop",
        backend=Backend.NFT,
        family=TableFamily.INET,
        handle=12,
        verdict=Verdict.DROP,
        counter=None,
    )
    path = b.path(
        b.policy_hop("raw", "PREROUTING"),
        b.rule_hop("filter", "INPUT", 1, "-p tcp -m tcp --dport 8443 -j ACCEPT"),
        native,
        outcome=Outcome.DROPPED,
    )
    assert shown(diagnosed(path), 100) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes
    iptables-legacy, nft, in on eth0, namespace server
  legacy  raw      PREROUTING  policy ACCEPT
  legacy  filter   INPUT 1     -p tcp -m tcp --dport 8443 -j ACCEPT        +1
  nft     inet fw  in 3        tcp dport 8443 counter drop           DROP
x dropped at fw/in 3 by nftables, though filter/INPUT 1 of iptables-legacy accepted it
  [other-backend-drop]
  a client sees a timeout
  evidence: the kernel reported that fw/in 3 ended it (reported); filter/INPUT 1 of iptables-legacy
    accepted it; every chain of both backends must let a packet pass (inferred); 1 more with
    --verbose
  to let it in: nft insert rule inet fw in handle 12 tcp dport 8443 accept
  or delete the rule: nft delete rule inet fw in handle 12
""")


def test_changes_that_do_not_fit_go_below_and_are_never_cut() -> None:
    rule = "-p tcp -m tcp --dport 8443 -j DNAT --to-destination [2001:db8:ffff:ffff::2]:80"
    hop = b.rule_hop(
        "nat",
        "PREROUTING",
        1,
        rule,
        Change("dst", "2001:db8:1::1", "2001:db8:ffff:ffff::2"),
        Change("dport", 8443, 80),
        family=TableFamily.IP6,
    )
    nat = NatHop(
        b.TIME,
        Basis.REPORTED,
        source=("[2001:db8:7::7]:40000", "[2001:db8:ffff:ffff:1:2:3:4]:40001"),
    )
    path = b.path(hop, nat, packet=b.tcp(b.CLIENT6, b.SERVER6))
    assert shown(diagnosed(path), 80) == snapshot("""\
tcp [2001:db8:7::7]:40000 > [2001:db8:1::1]:8443  SYN  60 bytes
    ip6tables-legacy, in on eth0, namespace server
  nat  PREROUTING 1  -p tcp --dport 8443 -j DNAT …                            +1
                     dst 2001:db8:1::1 -> 2001:db8:ffff:ffff::2
                     dport 8443 -> 80
  nat  result        src [2001:db8:7::7]:40000 ->
                       [2001:db8:ffff:ffff:1:2:3:4]:40001
> delivered to [2001:db8:ffff:ffff::2]:80: nat/PREROUTING 1 changed dst
  2001:db8:1::1 -> 2001:db8:ffff:ffff::2, dport 8443 -> 80
""")


def test_hostile_text_is_written_out() -> None:
    text = '-m comment --comment "\x1b[2J\r\nroot# \u202e" -j DROP'
    hop = b.rule_hop("filter", "INPUT", 1, text, backend=Backend.NFT)
    wire = WireHop(b.TIME, "contained", "e\x07th")
    path = b.path(wire, hop, in_interface="\x1b]0;x\x07", outcome=Outcome.DROPPED)
    text = shown(replace(path, netns="a\nb"))
    assert text == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes   iptables-nft, in on \\x1b]0;x\\x07, namespace a\\x0ab
  wire             out by e\\x07th                                              CONTAINED
  filter  INPUT 1  -m comment --comment "\\x1b[2J\\x0d\\x0aroot# \\u202e" -j DROP  DROP       +1
x dropped at filter/INPUT 1
  a client sees a timeout
""")
    assert not set(text) & set("\x1b\x07\r\u202e")


def test_icmp_and_its_errors_are_called_by_their_names() -> None:
    echo = b.path(b.policy_hop("filter", "INPUT"), packet=b.icmp())
    quoted = replace(b.icmp(kind=3, code=3), quoted=b.tcp())
    lines = [
        path_lines(path, width=None, color=False)[0]
        for path in (
            echo,
            b.path(packet=quoted),
            b.path(packet=b.icmp(b.CLIENT6, b.SERVER6, kind=128)),
            b.path(packet=b.icmp(kind=13)),
            b.path(packet=b.udp()),
            b.path(packet=b.tcp(flags=())),
            b.path(packet=b.tcp(more_fragments=True)),
        )
    ]
    assert "\n".join(lines) == snapshot("""\
icmp 203.0.113.7 > 198.51.100.1  echo request id 77 seq 1  84 bytes   iptables-legacy, in on eth0, namespace server
icmp 203.0.113.7 > 198.51.100.1  unreachable (3/3)  84 bytes  about tcp 203.0.113.7:40000 > 198.51.100.1:8443   in on eth0, namespace server
icmp6 2001:db8:7::7 > 2001:db8:1::1  echo request id 77 seq 1  84 bytes   in on eth0, namespace server
icmp 203.0.113.7 > 198.51.100.1  type 13 (13/0)  84 bytes   in on eth0, namespace server
udp 203.0.113.7:40000 > 198.51.100.1:8443  60 bytes   in on eth0, namespace server
tcp 203.0.113.7:40000 > 198.51.100.1:8443  no flags  60 bytes   in on eth0, namespace server
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  fragment at 0  60 bytes   in on eth0, namespace server\
""")


def test_a_large_mark_is_hexadecimal() -> None:
    hop = b.rule_hop("mangle", "INPUT", 1, "-j MARK", Change("mark", 0, 0x4000))
    assert "mark 0 -> 0x4000" in shown(b.path(hop))


def test_an_unreadable_rule_and_an_unknown_verdict_say_so() -> None:
    hop = ChainHop(
        b.TIME,
        b.chain_ref("fw", "in", Backend.NFT, TableFamily.INET),
        Hook.INPUT,
        0,
        TraceKind.RULE,
        None,
        Basis.UNKNOWN,
        handle=9,
    )
    assert shown(b.path(hop, outcome=Outcome.LOST)) == snapshot("""\
tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes   nft, in on eth0, namespace server
  inet fw  in  (rule not readable)  verdict unknown
? lost
""")


def test_a_rule_that_was_changed_meanwhile_is_not_guessed() -> None:
    hop = replace(b.rule_hop("filter", "INPUT", 1, "-j DROP"), rule=None, replaced=True)
    text = shown(b.path(hop, rules_changed=True, outcome=Outcome.INCOMPLETE))
    assert "(a rule that was changed or deleted meanwhile)" in text
    assert "  rules were changed meanwhile: its hops may be" in text


def test_an_ambiguous_path_says_so() -> None:
    assert "  ambiguous: an equal packet" in shown(b.path(ambiguous=True))


def test_a_fate_without_a_diagnosis_names_the_place() -> None:
    assert "x dropped at filter/INPUT 1\n" in shown(b.mark_drop_path())


# ---------------------------------------------------------------- results


def printed(*paths: PacketPath, width: int = 100, **fields: object) -> str:
    result = b.result(*paths, **fields)  # type: ignore[arg-type]
    return "\n".join(result_lines(result, width=width, color=False)) + "\n"


def test_an_answer_follows_its_request_and_observed_packets_are_brief() -> None:
    probe = diagnosed(b.path(b.policy_hop("filter", "INPUT", backend=Backend.NFT)))
    again = replace(probe, id=2, role=Role.OBSERVED)
    reply = b.path(
        b.policy_hop("filter", "OUTPUT", backend=Backend.NFT),
        WireHop(b.TIME, "contained", "eth0"),
        number=3,
        role=Role.REPLY,
        request=1,
        outcome=Outcome.SENT,
        out_interface="eth0",
        packet=b.tcp(b.SERVER, b.CLIENT, sport=8443, dport=40000, flags=("SYN", "ACK")),
    )
    assert printed(probe, again, diagnosed(reply)) == snapshot("""\
#1 tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes
    iptables-nft, in on eth0, namespace server
  filter  INPUT  policy ACCEPT
> delivered: no rule stood in its way

#3 tcp 198.51.100.1:8443 > 203.0.113.7:40000  SYN ACK  60 bytes
    answer to #1, iptables-nft, made here, out by eth0, namespace server
  filter  OUTPUT  policy ACCEPT
  wire            out by eth0    CONTAINED
> the answer left by eth0, and was stopped there (contained)

also seen: #2 tcp 203.0.113.7:40000 > 198.51.100.1:8443  SYN  60 bytes: let in
""")


def test_each_probe_gets_the_result_of_its_own_call() -> None:
    first = b.path(b.policy_hop("filter", "INPUT"), journey=1)
    second = replace(first, id=2, journey=2)
    text = printed(first, second, client=("CONNECTED", "ECONNREFUSED"))
    assert text.index("is connected") < text.index("#2 tcp") < text.index("(ECONNREFUSED)")


def test_what_is_missing_is_said_plainly() -> None:
    text = printed(
        totals=TraceTotals(50_000, 50_000, 48_912, 1, 2),
        warnings=("reply not traced: no \x1b answer",),
        clean=False,
    )
    assert text == snapshot("""\
! 1 report of the kernel lost: hops may be missing
! 2 messages of the kernel could not be read
! 48,912 of 50,000 traced packets complete
! reply not traced: no \\x1b answer
! not everything could be put back as it was. Run: ipttrace clean
""")


def test_inferred_verdicts_have_one_footnote() -> None:
    paths = [b.path(b.policy_hop("filter", "INPUT")), b.mark_drop_path(number=2)]
    assert printed(*paths, width=200).count("inferred from the rules") == 1
    nft = b.path(b.policy_hop("filter", "INPUT", backend=Backend.NFT))
    assert "inferred" not in printed(nft)


def test_an_answer_whose_request_is_not_there_is_shown_all_the_same() -> None:
    assert "answer to #9" in printed(b.reply_path(request=9))


def test_all_evidence_is_told_on_demand_a_line_each() -> None:
    path = diagnosed(b.mark_drop_path())
    brief = path_lines(path, width=None, color=False)
    full = path_lines(path, width=None, color=False, verbose=True)
    assert path.diagnosis is not None
    told = [line.strip() for line in full if line.startswith("  evidence: ")]
    assert told == [f"evidence: {e.text} ({e.strength})" for e in path.diagnosis.evidence]
    assert sum(line.startswith("  evidence: ") for line in brief) == 1
    assert "1 more with --verbose" in "\n".join(brief)
