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
Rules count in the named counters `probe`, `reply` and `contained`, each packet once, and in `due`
what a filter takes, whether it is traced then or not.  Where there are bridges, a second table of
the same name, of family bridge, does its part (`bridge_rules`), and where packets meet chains
before the triggers, one of family inet (`early_rules`).
"""

from __future__ import annotations

from ipttrace.errors import NotSupportedError
from ipttrace.netfilter import HOOK_NUMBER, NFPROTO_NUMBER, Hook, TableFamily
from ipttrace.own_table import (
    BRIDGED_CHAINS,
    IP_CHAINS,
    OWN_CHAINS,
    REPLIES,
    TRACERS,
    TRIGGERS,
)
from ipttrace.system import nft_expressions as nft
from ipttrace.system import nft_filtering
from ipttrace.system.early_rules import AGAIN, DUE, EarlyRules
from ipttrace.system.flow_rules import Rule
from ipttrace.system.fragment_rules import fragmented
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
from ipttrace.system.table_contents import bridged_contents, contents, early_contents, is_filter

TYPE_CHECKING = False  # typing's own costs 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from ipttrace.netfilter import PacketFamily
    from ipttrace.request import TraceRequest
    from ipttrace.system.bridges import Bridges
    from ipttrace.system.table_contents import Contents

# uapi/linux/netfilter/nf_tables.h
NFT_MSG_NEWTABLE = 0
NFT_MSG_DELTABLE = 2
NFT_MSG_NEWCHAIN = 3
NFT_MSG_NEWRULE = 6
NFT_MSG_DELRULE = 8
NFT_MSG_NEWSET = 9
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
NFTA_HOOK_DEVS = 4
NFTA_DEVICE_NAME = 1
NFTA_RULE_TABLE = 1
NFTA_RULE_CHAIN = 2
NFTA_RULE_EXPRESSIONS = 4
NFTA_RULE_USERDATA = 7
NFTA_OBJ_TABLE = 1
NFTA_OBJ_NAME = 2
NFTA_OBJ_TYPE = 3
NFTA_OBJ_DATA = 4
NFTA_COUNTER_PACKETS = 2

COUNTERS = ("probe", "reply", "contained", AGAIN, DUE)


class OwnerTable:
    """One session's nft table in the namespace of the calling thread."""

    def __init__(
        self,
        request: TraceRequest,
        *,
        conntrack_active: bool = False,
        family: PacketFamily | None = None,
        bridges: Bridges | None = None,
        early: bool = False,
    ) -> None:
        """Describe the table; `family` is that of the packets where a filter does not say it.

        With `bridges` it is the second table, for what these bridge; with `early` that for chains
        before the triggers.
        """
        from ipttrace.ruleset import OWN_TABLE, TAG

        if bridges is not None:
            self._family = TableFamily.BRIDGE
            self._contents: Contents = bridged_contents(request, bridges)
        elif early:
            self._contents, self._family = early_contents(request), TableFamily.INET
        else:
            self._contents, self._family = contents(request, family, tracked=conntrack_active)
        self._name = OWN_TABLE + request.session
        self._comment = nft.comment(TAG + request.session)
        self._socket: NfnetlinkSocket | None = None
        self._counts = dict.fromkeys(COUNTERS, 0)

    @property
    def table(self) -> tuple[TableFamily, str]:
        """The table's family and name."""
        return self._family, self._name

    def create(self) -> None:
        """Make the table with all chains and rules in one transaction; on an error, nothing."""
        with explaining(f"create nft table {self}"):
            opened = NfnetlinkSocket()
            try:
                opened.transact(self._creation())
            except BaseException as error:
                opened.close()
                self._explain_absence(error)
                raise
        self._socket = opened

    def _explain_absence(self, error: BaseException) -> None:
        """Say what an unknown expression means in the rules of a filter, which need modules."""
        if isinstance(error, FileNotFoundError) and is_filter(self._contents):
            raise NotSupportedError(
                f"cannot match a packet filter in nft table {self}: "
                "the kernel lacks nft_compat, xt_bpf or nft_limit",
                "Load them: modprobe -a nft_compat xt_bpf nft_limit; or use --trigger raw.",
            ) from error

    def hits(self) -> int:
        """Return how many packets the trigger rules met, probes and replies; last known if closed.

        A packet that comes again over `lo` was counted on its way out.  One that an earlier table
        of ours counted, and that is counted again here or by the raw triggers, is taken off.
        """
        self._read_counters()
        return self._counts["probe"] + self._counts["reply"] - self._counts[AGAIN]

    def due(self) -> int:
        """Return how many packets a filter takes, traced or not; last known if closed."""
        self._read_counters()
        return self._counts[DUE]

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
        return f"{self._family} {self._name}"

    # -- what the table is made of

    def _creation(self) -> list[Message]:
        flags = number32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER)
        table = string(NFTA_TABLE_NAME, self._name) + flags
        return [
            self._message(NFT_MSG_NEWTABLE, table, NLM_F_CREATE | NLM_F_EXCL),
            *(self._counter(name) for name in COUNTERS),
            *(self._limit(name, rate) for name, rate in self._contents.limits.items()),
            *([self._set(nft_filtering.connections)] if self._contents.remembers else []),
            *([self._set(fragmented)] if self._contents.knows_fragments else []),
            *(self._chain(name) for name in self._chains()),
            *(self._rule(chain, expressions) for chain, expressions in self._rules()),
        ]

    def _chains(self) -> list[str]:
        if isinstance(self._contents, EarlyRules):
            return list(self._contents.chains)
        if self._family is TableFamily.BRIDGE:
            return list(BRIDGED_CHAINS)
        return [n for n in IP_CHAINS if n not in REPLIES or self._contents.traces_tracked]

    def _trigger_chains(self) -> list[str]:
        return [name for name in self._chains() if name in TRACERS]

    def _rules(self) -> list[Rule]:
        # Chains of nf_tables report while any rule sets the bit (nft_trace_enabled).
        triggers = self._contents.triggers() or [(TRIGGERS[1], nft.never() + nft.trace())]
        return triggers + self._contents.containment()

    # -- messages

    def _message(self, number: int, attributes: bytes, flags: int = 0) -> Message:
        family = NFPROTO_NUMBER[self._family]
        return Message(NFNL_SUBSYS_NFTABLES, number, family, attributes, flags)

    def _chain(self, name: str) -> Message:
        place = OWN_CHAINS[name]
        hook = nested(
            NFTA_CHAIN_HOOK,
            number32(NFTA_HOOK_HOOKNUM, HOOK_NUMBER[place.hook]),
            number32(NFTA_HOOK_PRIORITY, place.priority),
            *([self._devices()] if place.hook is Hook.INGRESS else []),
        )
        names = string(NFTA_CHAIN_TABLE, self._name) + string(NFTA_CHAIN_NAME, name)
        kind = string(NFTA_CHAIN_TYPE, "filter")
        return self._message(NFT_MSG_NEWCHAIN, names + hook + kind, NLM_F_CREATE)

    def _devices(self) -> bytes:
        assert isinstance(self._contents, EarlyRules)
        return nested(
            NFTA_HOOK_DEVS, *(string(NFTA_DEVICE_NAME, name) for name in self._contents.devices)
        )

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

    def _object_names(self, name: str, kind: int) -> bytes:
        names = string(NFTA_OBJ_TABLE, self._name) + string(NFTA_OBJ_NAME, name)
        return names + number32(NFTA_OBJ_TYPE, kind)

    def _counter(self, name: str) -> Message:
        names = self._object_names(name, nft.NFT_OBJECT_COUNTER)
        return self._message(NFT_MSG_NEWOBJ, names + nested(NFTA_OBJ_DATA), NLM_F_CREATE)

    def _limit(self, name: str, rate: int) -> Message:
        names = self._object_names(name, nft_filtering.NFT_OBJECT_LIMIT)
        data = nested(NFTA_OBJ_DATA, nft_filtering.limit_data(rate))
        return self._message(NFT_MSG_NEWOBJ, names + data, NLM_F_CREATE)

    def _set(self, described: Callable[[str], bytes]) -> Message:
        return self._message(NFT_MSG_NEWSET, described(self._name), NLM_F_CREATE)

    def _read_counters(self) -> None:
        if self._socket is None:
            return
        with explaining(f"read the counters of nft table {self}"):
            for name in COUNTERS:
                names = self._object_names(name, nft.NFT_OBJECT_COUNTER)
                found = self._socket.get(self._message(NFT_MSG_GETOBJ, names))
                data = parse(parse(found)[NFTA_OBJ_DATA])
                self._counts[name] = int.from_bytes(data[NFTA_COUNTER_PACKETS], "big")
