"""What a rule of native nft with a verdict map decided stands in the report, not in its text."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.decode.nft_list import decode_nft_list
from ipttrace.event import TraceKind
from ipttrace.netfilter import Verdict
from ipttrace.path import ChainHop
from ipttrace.render.words import hop_effects
from ipttrace.tracer import rules_met_untraced
from tests.recordings import read_recording
from tests.transcripts import correlate, events_of

EARLY = """table netdev guard { # handle 1
	chain in { # handle 1
		type filter hook ingress device "eth0" priority -500; policy accept;
		counter packets 0 bytes 0 # handle 2
	}
}
table inet before { # handle 2
	chain raw { # handle 1
		type filter hook prerouting priority -1000; policy accept;
		counter packets 0 bytes 0 # handle 2
	}
	chain sent { # handle 3
		type filter hook output priority -302; policy accept;
		counter packets 0 bytes 0 # handle 4
	}
	chain empty { # handle 5
		type filter hook prerouting priority -1001; policy accept;
	}
	chain in_time { # handle 6
		type filter hook prerouting priority -300; policy accept;
		counter packets 0 bytes 0 # handle 7
	}
	chain input { # handle 8
		type filter hook input priority -1000; policy accept;
		counter packets 0 bytes 0 # handle 9
	}
}
table bridge br { # handle 3
	chain pre { # handle 1
		type filter hook prerouting priority -1000; policy accept;
		counter packets 0 bytes 0 # handle 2
	}
}
"""


def mapped_hops() -> list[ChainHop]:
    recording = read_recording("native4")
    paths = correlate(recording.ruleset, events_of(recording)).paths()
    hops = [hop for path in paths for hop in path.chain_hops if "vmap" in (hop.rule or "")]
    assert {hop.event for hop in hops} == {TraceKind.RULE}
    return hops


def test_the_verdict_and_the_chain_that_it_leads_to_are_shown() -> None:
    hops = {(str(hop.verdict), hop.target): hop_effects(hop) for hop in mapped_hops()}
    assert hops == {("DROP", "vmap"): ("DROP",), ("JUMP", "second"): ("JUMP second",)}


def test_a_map_that_has_no_element_for_the_packet_says_nothing() -> None:
    (hop, *_) = mapped_hops()
    for verdict in (Verdict.ACCEPT, Verdict.RETURN):
        assert hop_effects(replace(hop, verdict=verdict)) == (str(verdict),)
    assert hop_effects(replace(hop, verdict=Verdict.CONTINUE)) == ()


def test_rules_that_stand_before_the_triggers_are_named() -> None:
    (warning,) = rules_met_untraced(decode_nft_list(EARLY))
    assert warning == (
        "not traced, because packets meet them first: "
        "the rules of netdev guard/in, inet before/raw, inet before/sent"
    )
    assert rules_met_untraced(read_recording("nft4-walk").ruleset) == ()
