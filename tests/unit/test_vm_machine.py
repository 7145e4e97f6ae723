"""How scripts/vm-test knows that its machine stands still."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.machine import STALL

CONSOLE = Path(__file__).parent.parent / "data" / "vm-console-stall-6.1.txt"
"""What 6.1 wrote of itself and of a stall: a program of the highest priority on each processor."""


def test_what_a_kernel_says_of_a_stall() -> None:
    lines = CONSOLE.read_bytes().splitlines()
    stalled = [line for line in lines if STALL.search(line)]
    assert [line.partition(b"] ")[2] for line in stalled] == [
        b"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"
    ]


@pytest.mark.parametrize(
    "words",
    [
        # pr_err and panic_on_rcu_stall's neighbours in kernel/rcu/tree_stall.h and tree_exp.h
        b"rcu: INFO: rcu_sched self-detected stall on CPU",
        b"rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... } 6 jiffies",
    ],
)
def test_the_other_ways_of_saying_it(words: bytes) -> None:
    assert STALL.search(words)
