from __future__ import annotations

from ipttrace.diagnose.walk import callers, depths, made_here, mark_before, name, packet_before
from ipttrace.event import TraceKind
from ipttrace.netfilter import Backend, Basis, Hook, TableFamily, Verdict
from ipttrace.path import ChainHop, Change, Decision, Hop, NatHop, RouteHop, WireHop
from tests import builders as b


def hop(chain: str, number: int, text: str = "-j ACCEPT", hook: Hook = Hook.INPUT) -> ChainHop:
    return b.rule_hop("filter", chain, number, text, hook=hook)


def test_a_jump_goes_deeper_and_a_hop_of_the_caller_comes_back() -> None:
    hops = [
        hop("INPUT", 1, "-j A"),
        hop("A", 1, "-j B"),
        hop("B", 1, "-j LOG"),
        hop("B", 2, "-j RETURN"),
        hop("A", 2, "-j LOG"),
        hop("INPUT", 2, "-j A"),
        hop("A", 3, "-j DROP"),
    ]
    assert depths(hops) == [0, 1, 2, 2, 1, 0, 1]


def test_a_goto_is_a_call_too() -> None:
    hops = [hop("INPUT", 1, "-j A"), hop("A", 1, "-g B"), hop("B", 1, "-j RETURN")]
    assert depths([*hops, hop("INPUT", 2)]) == [0, 1, 2, 0]


def test_the_next_table_begins_at_the_top() -> None:
    hops = [
        b.rule_hop("mangle", "INPUT", 1, "-j A"),
        b.rule_hop("mangle", "A", 1, "-j ACCEPT"),
        b.policy_hop("filter", "INPUT"),
    ]
    assert depths(hops) == [0, 1, 0]


def test_one_user_chain_called_from_two_hooks() -> None:
    hops = [
        hop("OUTPUT", 1, "-j A", Hook.OUTPUT),
        hop("A", 1, "-j ACCEPT", Hook.OUTPUT),
        hop("INPUT", 1, "-j A"),
        hop("A", 1, "-j ACCEPT"),
    ]
    assert depths(hops) == [0, 1, 0, 1]
    assert callers(hops)[3] == (hops[2],)


def test_native_nft_calls_are_seen_by_their_verdict() -> None:
    text = "tcp dport 22 jump ssh # handle 5"
    call = b.rule_hop(
        "fw",
        "in",
        1,
        text,
        backend=Backend.NFT,
        family=TableFamily.INET,
        verdict=Verdict.JUMP,
    )
    inside = b.rule_hop("fw", "ssh", 1, "drop", backend=Backend.NFT, family=TableFamily.INET)
    assert callers([call, inside]) == [(), (call,)]


def test_hops_of_other_kinds_stand_at_the_top() -> None:
    nat = NatHop(b.TIME, Basis.REPORTED, source=("a:1", "b:1"))
    wire = WireHop(b.TIME, "sent", "eth0")
    hops: list[Hop] = [hop("INPUT", 1, "-j A"), nat, hop("A", 1), wire]
    assert depths(hops) == [0, 0, 1, 0]


def test_the_packet_and_its_mark_as_they_were_at_a_hop() -> None:
    path = b.local_path()
    marker, last = path.chain_hops[7], path.chain_hops[-1]
    assert (packet_before(path, path.chain_hops[2]).dport, packet_before(path, marker).dport) == (
        8445,
        8443,
    )
    assert (mark_before(path, marker), mark_before(path, last)) == (0, 1)
    assert packet_before(path, None).dport == 8443


def test_a_change_to_nothing_known_leaves_the_mark() -> None:
    path = b.path(b.rule_hop("mangle", "INPUT", 1, "-j X", Change("mark", 0, None)), mark=7)
    assert mark_before(path, b.policy_hop("filter", "INPUT")) == 7


def test_where_a_packet_was_made() -> None:
    assert made_here(b.local_path())
    assert not made_here(b.mark_drop_path())
    assert not made_here(b.path())


def test_names_of_hops() -> None:
    end = b.rule_hop("filter", "WEB", 1, "-j X", event=TraceKind.RETURN)
    assert name(b.rule_hop("nat", "OUTPUT", 3, "-j X")) == "nat/OUTPUT 3"
    assert name(b.policy_hop("nat", "OUTPUT")) == "nat/OUTPUT policy"
    assert name(end) == "filter/WEB end"


def test_a_packet_that_met_no_chain_was_made_here_if_it_was_routed_out() -> None:
    routed = RouteHop(b.TIME, Decision.OUTPUT, Basis.INFERRED, out_interface="lo")
    assert made_here(b.path(routed, in_interface=None))
    assert not made_here(b.path(in_interface=None))
