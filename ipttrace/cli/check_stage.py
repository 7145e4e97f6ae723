"""Joins checks to the kernel: labs, twins, this host, their rules, and the traced probe."""

from __future__ import annotations

from collections.abc import Sequence

from ipttrace.cli.compose import Note, trace_probe
from ipttrace.lab.checking import Stage
from ipttrace.netfilter import Backend
from ipttrace.probe import ProbeSpec
from ipttrace.result import TraceResult
from ipttrace.ruleset import Ruleset
from ipttrace.system import user_namespace
from ipttrace.system.lab_builder import LabBuilder, TwinBuilder
from ipttrace.system.namespaces import find_namespace
from ipttrace.system.rulesets import NamespaceRules


def open_stage(*, coverage: bool = False, note: Note) -> Stage:
    """Return the kernel's side of checks; `note` hears of warnings."""

    def trace(spec: ProbeSpec) -> TraceResult:
        return trace_probe(spec, answer=lambda _: None, note=note, follows=False)

    return Stage(
        labs=LabBuilder(note=note),
        twins=TwinBuilder(note),
        trace=trace,
        read=read_rules,
        live_backend=live_backend,
        coverage=coverage,
        events=not user_namespace.is_inside(),
        warn=note,
    )


def read_rules(netns: str | None) -> Ruleset:
    """Return the rules of a namespace, of both backends and families; nothing is changed."""
    return NamespaceRules(find_namespace(netns)).read()


def live_backend(named: Sequence[str | None]) -> str:
    """Return where the namespaces have rules: `legacy`, `nft` or `both`."""
    found: set[Backend] = set()
    for netns in named:
        found |= NamespaceRules(find_namespace(netns)).backends(None)
    return str(next(iter(found))) if len(found) == 1 else "both"
