"""Which packets are in the list, and which one is selected, whatever comes."""

from __future__ import annotations

from ipttrace.path import PacketPath
from ipttrace_tui.packet_filter import PacketFilter, parse_filter
from ipttrace_tui.packet_log import PacketLog
from ipttrace_tui.packet_table import PacketTable
from tests.builders import mark_drop_path, redirect_path

EVEN = parse_filter("delivered")


def packet(number: int) -> PacketPath:
    return redirect_path(number=number) if number % 2 == 0 else mark_drop_path(number=number)


def grown(log: PacketLog, *numbers: int) -> PacketLog:
    for number in numbers:
        log.append(packet(number))
    return log


def rows(table: PacketTable) -> list[int]:
    return [table.entry(row).id for row in range(len(table))]


def test_all_packets_are_rows_without_a_filter() -> None:
    table = PacketTable()
    log = PacketLog()
    assert not table.use(grown(log, 1, 2).view())
    assert table.use(grown(log, 3).view())
    assert rows(table) == [1, 2, 3]
    assert table.namespaces == {"server"}


def test_a_filter_looks_at_new_packets_only() -> None:
    table, log = PacketTable(), PacketLog()
    table.use_filter(EVEN)
    table.use(grown(log, *range(1, 8)).view())
    table.advance(most=4)
    assert (rows(table), table.done) == ([2, 4], False)
    table.advance()
    table.use(grown(log, 8, 9).view())
    table.advance()
    assert (rows(table), table.done, table.total) == ([2, 4, 6, 8], True, 9)


def test_the_selected_packet_stays_selected_behind_a_filter() -> None:
    table, log = PacketTable(), PacketLog()
    table.use(grown(log, *range(1, 8)).view())
    table.select_row(3)
    table.use_filter(EVEN)
    table.advance()
    assert (table.cursor, table.path) == (1, packet(4))
    table.use_filter(parse_filter("dropped"))
    table.advance()
    assert (table.cursor, table.path) == (None, packet(4))
    table.use_filter(PacketFilter())
    assert table.cursor == 3


def test_a_frozen_table_counts_what_came_meanwhile() -> None:
    table, log = PacketTable(), PacketLog()
    table.use(grown(log, 1, 2).view())
    table.freeze(on=True)
    table.use(grown(log, 3, 4, 5).view())
    assert (rows(table), table.waiting, table.frozen) == ([1, 2], 3, True)
    table.use_filter(EVEN)
    table.advance()
    assert rows(table) == [2]
    table.freeze(on=False)
    table.advance()
    assert (rows(table), table.waiting) == ([2, 4], 0)


def test_the_selected_packet_is_kept_when_the_log_lets_it_go() -> None:
    table, log = PacketTable(), PacketLog(capacity=4, slack=2)
    table.use(grown(log, 1, 2, 3).view())
    table.select_row(2)
    table.use(grown(log, 4, 5, 6, 7).view())
    assert (table.path, table.cursor, table.forgotten) == (packet(3), 0, 2)
    table.use(grown(log, 8, 9, 10).view())
    assert (table.path, table.cursor, table.forgotten) == (packet(3), None, 4)
    table.select_row(0)
    assert table.path == packet(5)


def test_packets_are_found_by_their_ids() -> None:
    table, log = PacketTable(), PacketLog()
    table.use(grown(log, 3, 1, 9).view())
    assert table.path_of(9) == packet(9)
    assert table.path_of(4) is None
    assert table.select_id(1)
    assert table.path == packet(1)
    assert not table.select_id(77)
    assert table.path == packet(1)


def test_paths_of_a_probe_may_change_and_vanish() -> None:
    table = PacketTable()
    first, second = packet(1), packet(2)
    table.use((first, second))
    table.select_row(1)
    assert table.use((first, second, packet(3)))
    assert not table.use((packet(2), packet(3)))
    assert (table.cursor, rows(table)) == (0, [2, 3])
    table.use(())
    assert (table.path, len(table)) == (None, 0)
