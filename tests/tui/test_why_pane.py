"""Why a packet fared so, in few columns and lines."""

from __future__ import annotations

from dataclasses import replace

from ipttrace.path import Evidence, Strength
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.widgets.why_pane import WhyPane
from tests.builders import mark_drop_path, redirect_path, result
from tests.tui.builders import MARK_DROP, ListFeed
from tests.tui.driving import Stage, play

COMMAND = "nft insert rule inet classify pre handle 3 ip saddr 198.51.100.2 tcp dport 8443 accept"
TOLD = replace(
    MARK_DROP,
    evidence=(Evidence("the kernel freed it " * 6 + "here", Strength.REPORTED),),
    remedy=(f"to spare this client the mark: {COMMAND}", "or wait: uptime"),
)
ONE = Snapshot.of(result(mark_drop_path(diagnosis=TOLD)))


def lines(stage: Stage) -> list[str]:
    shown = stage.widget(WhyPane)
    return [shown.body(n, 200).plain.rstrip() for n in range(shown.count())]


def test_a_command_that_does_not_fit_has_lines_of_its_own() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        said = lines(stage)
        assert " · to spare this client the mark:" in said
        assert f"     {COMMAND}" in said
        assert " · or wait: uptime" in said

    play(ListFeed([ONE]), act, (110, 40))


def test_lines_after_the_first_stand_below_its_words() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        said = lines(stage)
        first = next(n for n, line in enumerate(said) if line.startswith(" · the kernel freed"))
        assert said[first + 1].startswith("   ")
        assert said[first + 1][3] != " "
        start = next(n for n, line in enumerate(said) if "nft insert" in line)
        assert said[start + 1].startswith("     ")
        assert all(len(line) <= 59 for line in said)
        joined = " ".join(line.strip() for line in said[start : start + 3])
        assert COMMAND in joined

    play(ListFeed([ONE]), act, (60, 30))


def test_another_packet_is_explained_from_the_beginning() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        shown = stage.widget(WhyPane)
        stage.main.set_focus(shown)
        await stage.press("end")
        assert shown.top > 0
        stage.main.select(2)
        assert shown.top == 0

    both = result(mark_drop_path(diagnosis=TOLD), redirect_path(number=2, diagnosis=TOLD))
    play(ListFeed([Snapshot.of(both)]), act, (80, 24))
