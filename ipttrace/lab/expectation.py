"""What a probe of a lab must show: the typed fields, and those that one backend has for itself."""

from __future__ import annotations

from difflib import get_close_matches

from ipttrace.diagnose.catalogue import EXPECTABLE
from ipttrace.errors import UsageError
from ipttrace.lab.hop_names import HopName
from ipttrace.lab.parts import BadFieldError, Part, check, check_printable
from ipttrace.netfilter import Backend
from ipttrace.path import Outcome
from ipttrace.probe import parse_endpoint


class NatExpectation(Part, frozen=True):
    """Addresses after translation, as `A:P`; a field that is left out may be anything."""

    source: str | None = None
    destination: str | None = None

    def __post_init__(self) -> None:
        if self.source is None and self.destination is None:
            raise BadFieldError("no translation is expected: give `source` or `destination`")
        for field in ("source", "destination"):
            if (endpoint := getattr(self, field)) is not None:
                try:
                    parse_endpoint(endpoint)
                except UsageError as error:
                    raise BadFieldError(error.message, field) from error


class Fields(Part, frozen=True, kw_only=True):
    """All that can be expected; a field that is left out may be anything."""

    outcome: Outcome | None = None
    cause: str | None = None
    client: str | None = None
    netns: str | None = None
    """Where the outcome is looked at; without it the last namespace that is traced."""
    rule: str | None = None
    """The deciding rule: `TABLE/CHAIN NUMBER` or `TABLE/CHAIN policy`.

    It killed the packet; or, of one that lived, it ended its table's walk at a hook.
    """
    nat: NatExpectation | None = None
    crosses: tuple[str, ...] = ()
    """Chains `TABLE/CHAIN`, or rules, that are met in this order; others may be between."""
    crosses_not: tuple[str, ...] = ()
    """Chains, or rules, that are not met."""

    @property
    def expects(self) -> bool:
        """Whether anything is expected at all."""
        one = (self.outcome, self.cause, self.client, self.rule, self.nat)
        return any(each is not None for each in one) or bool(self.crosses or self.crosses_not)

    def check_words(self) -> None:
        """Refuse words that can never be met."""
        if self.client is not None:
            check_printable(self.client, "client")
        if self.cause is not None:
            check_cause(self.cause, "cause")
        for field in ("crosses", "crosses_not"):
            for place, words in enumerate(getattr(self, field)):
                check_hop_words(words, field.replace("_", "-"), place)
        if self.rule is not None and check_hop_words(self.rule, "rule").whole_chain:
            raise BadFieldError(f"{self.rule!r} names no rule, like filter/INPUT 1", "rule")


def check_hop_words(words: str, *path: str | int) -> HopName:
    """Refuse what names neither a chain nor a rule nor a policy."""
    check_printable(words, *path)
    check(words, HopName.parse, *path)
    return HopName.parse(words)


def check_cause(cause: str, *path: str | int) -> None:
    """Refuse a code that no diagnosis has."""
    if cause not in EXPECTABLE:
        near = get_close_matches(cause, EXPECTABLE, 1)
        hint = f": do you mean {near[0]}?" if near else ""
        raise BadFieldError(f"there is no cause {cause!r}{hint}", *path)


class BackendExpectation(Fields, frozen=True, kw_only=True):
    """The fields that differ on one backend."""

    def __post_init__(self) -> None:
        self.check_words()


class Expectation(Fields, frozen=True, kw_only=True):
    """What must come out."""

    legacy: BackendExpectation | None = None
    nft: BackendExpectation | None = None

    def __post_init__(self) -> None:
        self.check_words()
        special = (each for each in (self.legacy, self.nft) if each is not None)
        if not self.expects and not any(each.expects for each in special):
            raise BadFieldError("nothing is expected: give `outcome`, `cause` or `client`")

    def on(self, backend: str) -> Expectation:
        """Return what is expected on `backend`: its own fields stand over the others.

        On `both` no backend has fields of its own.
        """
        special = {Backend.LEGACY: self.legacy, Backend.NFT: self.nft}
        own = special.get(Backend(backend)) if backend in list(Backend) else None
        fields = {name: getattr(self, name) for name in Fields.__struct_fields__}
        if own is not None:
            defaults = BackendExpectation()
            for name in Fields.__struct_fields__:
                if getattr(own, name) != getattr(defaults, name):
                    fields[name] = getattr(own, name)
        return _Merged(**fields)


class _Merged(Expectation, frozen=True, kw_only=True):
    """An expectation of one backend; it may be empty, if the other one expects something."""

    def __post_init__(self) -> None:
        """All was checked before."""
