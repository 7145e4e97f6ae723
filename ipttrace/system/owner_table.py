"""Our nft table: it wakes the tracing of nft chains, traces replies, reports NAT, and contains.

The table belongs to the netlink socket that made it (NFT_TABLE_F_OWNER, since Linux 5.12): other
processes cannot delete it, and the kernel removes it when the socket closes, even by SIGKILL.
A process that forks must not let the child keep the socket.

Chains are named after purpose and hook, because their trace reports tell the correlator where a
packet came through (`own_table.OWN_CHAINS`):
  trigger-*  just before the raw table: sets the trace bit by the packet's own headers;
  reply-*    just after conntrack: sets it by the conntrack entry, whatever NAT did;
  observe-*  input, forward and postrouting: report packets where no other chain may;
             observe-postrouting also contains, after SNAT and before conntrack confirms.
Rules count in the named counters `probe`, `reply` and `contained`, each packet once.
"""

from __future__ import annotations

from ipttrace.netfilter import INET_HOOKS
from ipttrace.own_table import CONTAINMENT, OWN_CHAINS, REPLIES, TRIGGERS
from ipttrace.system import nft_expressions as nft
from ipttrace.system.flow_selectors import FlowSelectors
from ipttrace.system.netlink_attributes import attribute, nested, number32, parse, string
from ipttrace.system.nfnetlink import (
    NFNL_SUBSYS_NFTABLES,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    NfnetlinkSocket,
    explaining,
)

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from ipttrace.netfilter import TableFamily
    from ipttrace.ports import TraceRequest

# uapi/linux/netfilter/nf_tables.h
NFT_MSG_NEWTABLE = 0
NFT_MSG_DELTABLE = 2
NFT_MSG_NEWCHAIN = 3
NFT_MSG_NEWRULE = 6
NFT_MSG_DELRULE = 8
NFT_MSG_NEWOBJ = 18
NFT_MSG_GETOBJ = 19
NFTA_TABLE_NAME = 1
NFTA_TABLE_FLAGS = 2
NFT_TABLE_F_OWNER = 2
NFTA_CHAIN_TABLE = 1
NFTA_CHAIN_NAME = 3
NFTA_CHAIN_HOOK = 4
NFTA_CHAIN_TYPE = 7
NFTA_HOOK_HOOKNUM = 1
NFTA_HOOK_PRIORITY = 2
NFTA_RULE_TABLE = 1
NFTA_RULE_CHAIN = 2
NFTA_RULE_EXPRESSIONS = 4
NFTA_RULE_USERDATA = 7
NFTA_OBJ_TABLE = 1
NFTA_OBJ_NAME = 2
NFTA_OBJ_TYPE = 3
NFTA_OBJ_DATA = 4
NFTA_COUNTER_PACKETS = 2

COUNTERS = ("probe", "reply", "contained")


class OwnerTable:
    """One session's nft table in the namespace of the calling thread."""

    def __init__(self, request: TraceRequest, *, conntrack_active: bool) -> None:
        from ipttrace.netfilter import NFPROTO_NUMBER
        from ipttrace.ruleset import OWN_TABLE, TAG

        self._request = request
        self._conntrack = conntrack_active
        self._select = FlowSelectors(request.flow, any_source=request.any_source)
        self._name = OWN_TABLE + request.session
        self._comment = nft.comment(TAG + request.session)
        self._family = NFPROTO_NUMBER[request.flow.family.table_family]
        self._socket: NfnetlinkSocket | None = None
        self._counts = dict.fromkeys(COUNTERS, 0)

    @property
    def table(self) -> tuple[TableFamily, str]:
        """The table's family and name."""
        return self._request.flow.family.table_family, self._name

    def create(self) -> None:
        """Make the table with all chains and rules in one transaction; on an error, nothing."""
        with explaining(f"create nft table {self}"):
            opened = NfnetlinkSocket()
            try:
                opened.transact(self._creation())
            except BaseException:
                opened.close()
                raise
        self._socket = opened

    def hits(self) -> int:
        """Return how many packets the trigger rules met, probes and replies; last known if closed.

        A packet that comes again over `lo` was counted on its way out.
        """
        self._read_counters()
        return self._counts["probe"] + self._counts["reply"]

    def contained(self) -> int:
        """Return how many packets were kept from leaving; last known if closed."""
        self._read_counters()
        return self._counts["contained"]

    def quiet(self) -> None:
        """Set no more trace bits; what contains stays, and so do the counts."""
        if self._socket is None:
            return
        with explaining(f"remove the triggers of nft table {self}"):
            self._socket.transact([self._emptied(chain) for chain in self._trigger_chains()])

    def close(self) -> None:
        """Take the table back, and the socket that owns it; may be called more than once."""
        if self._socket is None:
            return
        try:
            self._read_counters()
            with explaining(f"delete nft table {self}"):
                self._socket.transact([self._deletion()])
        finally:
            self._socket.close()
            self._socket = None

    def __str__(self) -> str:
        return f"{self._request.flow.family.table_family} {self._name}"

    # -- what the table is made of

    def _creation(self) -> list[Message]:
        flags = number32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER)
        table = string(NFTA_TABLE_NAME, self._name) + flags
        return [
            self._message(NFT_MSG_NEWTABLE, table, NLM_F_CREATE | NLM_F_EXCL),
            *(self._counter(name) for name in COUNTERS),
            *(self._chain(name) for name in self._chains()),
            *self._rules(),
        ]

    def _chains(self) -> list[str]:
        return [name for name in OWN_CHAINS if name not in REPLIES or self._traces_tracked]

    def _trigger_chains(self) -> list[str]:
        return [name for name in self._chains() if name in TRIGGERS + REPLIES]

    @property
    def _traces_tracked(self) -> bool:
        return self._conntrack and self._request.replies

    def _rules(self) -> list[Message]:
        rules = self._probe_rules() + self._reply_rules() + self._tracked_reply_rules()
        if not rules:
            # Chains of nf_tables report while any rule sets the bit (nft_trace_enabled).
            rules = [self._rule(TRIGGERS[1], nft.never() + nft.trace())]
        return rules + self._containment_rules()

    def _probe_rules(self) -> list[Message]:
        from ipttrace.ports import Trigger

        if self._request.trigger is not Trigger.OWNER:
            return []
        chain = f"trigger-{self._request.hook.lower()}"
        selector = self._select.flow()
        if self._request.in_interface is not None and chain == TRIGGERS[0]:
            name = nft.interface_name(self._request.in_interface)
            selector = nft.meta_is(nft.NFT_META_IIFNAME, name) + selector
        return [self._traced(chain, selector, "probe")]

    def _reply_rules(self) -> list[Message]:
        if not self._request.replies:
            return []
        return [
            self._traced(chain, selector, "reply")
            for chain in TRIGGERS
            for selector in self._untranslated()
        ]

    def _tracked_reply_rules(self) -> list[Message]:
        """Trace what NAT hid from the headers; what the headers showed was counted before."""
        if not self._traces_tracked:
            return []
        rules = []
        for chain in REPLIES:
            rules += [self._rule(chain, known + nft.accept()) for known in self._untranslated()]
            rules.append(self._traced(chain, self._select.tracked_answers(), "reply"))
        return rules

    def _untranslated(self) -> list[bytes]:
        return [self._select.answers(), *self._select.errors()]

    def _containment_rules(self) -> list[Message]:
        if not self._request.contain:
            return []
        select = self._select
        selectors = [select.flow(), *self._untranslated()]
        selectors += select.errors_about_answers() + select.redirects()
        if self._conntrack:
            selectors += [select.tracked(), *select.untracked_copies()]
        stay = self._rule(CONTAINMENT, nft.leaves_over_loopback() + nft.accept())
        end = nft.count("contained") + nft.drop()
        return [stay, *(self._rule(CONTAINMENT, selector + end) for selector in selectors)]

    def _traced(self, chain: str, selector: bytes, counter: str) -> Message:
        """Return the rule that traces every packet, and counts it unless OUTPUT had done so."""
        once = nft.not_received_on_loopback() if chain.endswith("-prerouting") else b""
        rest = once + nft.count(counter) + nft.accept()
        return self._rule(chain, selector + nft.trace() + rest)

    # -- messages

    def _message(self, number: int, attributes: bytes, flags: int = 0) -> Message:
        return Message(NFNL_SUBSYS_NFTABLES, number, self._family, attributes, flags)

    def _chain(self, name: str) -> Message:
        hook = nested(
            NFTA_CHAIN_HOOK,
            number32(NFTA_HOOK_HOOKNUM, INET_HOOKS.index(OWN_CHAINS[name].hook)),
            number32(NFTA_HOOK_PRIORITY, OWN_CHAINS[name].priority),
        )
        names = string(NFTA_CHAIN_TABLE, self._name) + string(NFTA_CHAIN_NAME, name)
        kind = string(NFTA_CHAIN_TYPE, "filter")
        return self._message(NFT_MSG_NEWCHAIN, names + hook + kind, NLM_F_CREATE)

    def _rule(self, chain: str, expressions: bytes) -> Message:
        names = string(NFTA_RULE_TABLE, self._name) + string(NFTA_RULE_CHAIN, chain)
        body = nested(NFTA_RULE_EXPRESSIONS, expressions)
        note = attribute(NFTA_RULE_USERDATA, self._comment)
        return self._message(NFT_MSG_NEWRULE, names + body + note, NLM_F_CREATE | NLM_F_APPEND)

    def _emptied(self, chain: str) -> Message:
        names = string(NFTA_RULE_TABLE, self._name) + string(NFTA_RULE_CHAIN, chain)
        return self._message(NFT_MSG_DELRULE, names)

    def _deletion(self) -> Message:
        return self._message(NFT_MSG_DELTABLE, string(NFTA_TABLE_NAME, self._name))

    def _counter_names(self, name: str) -> bytes:
        kind = number32(NFTA_OBJ_TYPE, nft.NFT_OBJECT_COUNTER)
        return string(NFTA_OBJ_TABLE, self._name) + string(NFTA_OBJ_NAME, name) + kind

    def _counter(self, name: str) -> Message:
        empty = nested(NFTA_OBJ_DATA)
        return self._message(NFT_MSG_NEWOBJ, self._counter_names(name) + empty, NLM_F_CREATE)

    def _read_counters(self) -> None:
        if self._socket is None:
            return
        with explaining(f"read the counters of nft table {self}"):
            for name in COUNTERS:
                found = self._socket.get(self._message(NFT_MSG_GETOBJ, self._counter_names(name)))
                data = parse(parse(found)[NFTA_OBJ_DATA])
                self._counts[name] = int.from_bytes(data[NFTA_COUNTER_PACKETS], "big")
