"""Programs for ICMP errors about packets that a filter takes: they quote the packet's beginning.

A program looks at a packet from its IP header on, so the same program, moved behind the headers of
the error, judges the packet that is quoted (RFC 792, RFC 4443).  What it cannot judge there is
the packet's length, of which only a part is quoted, and an error whose own header has options.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipttrace.netfilter import PacketFamily
from ipttrace.request import Instruction

# uapi/linux/bpf_common.h and uapi/linux/filter.h
LD, LDX = 0x00, 0x01
ABS, IND, LEN, MSH = 0x20, 0x40, 0x80, 0xA0
LOAD_BYTE, LOAD_HALF, AND, RETURN = 0x30, 0x28, 0x54, 0x06
JEQ, JGT, JSET = 0x15, 0x25, 0x45
NEGATIVE = 1 << 31
"""From here on offsets are no places in the packet (SKF_LL_OFF)."""

FAIL, PASS = -1, 0
"""Where a jump leads: out of the program, or to the next instruction."""
QUOTED_AT = {PacketFamily.IPV4: 20 + 8, PacketFamily.IPV6: 40 + 8}

Jump = tuple[int, int, int, int]

ERRORS: dict[PacketFamily, tuple[Jump, ...]] = {
    PacketFamily.IPV4: (
        (LOAD_BYTE, 0, 0, 0),
        (JEQ, PASS, FAIL, 0x45),
        (LOAD_HALF, 0, 0, 6),
        (JSET, FAIL, PASS, 0x1FFF),
        (LOAD_BYTE, 0, 0, 9),
        (JEQ, PASS, FAIL, 1),
        (LOAD_BYTE, 0, 0, 20),
        (JEQ, 4, PASS, 3),
        (JEQ, 3, PASS, 11),
        (JEQ, 2, PASS, 12),
        (JEQ, 1, PASS, 5),
        (JEQ, PASS, FAIL, 4),
    ),
    PacketFamily.IPV6: (
        (LOAD_BYTE, 0, 0, 0),
        (AND, 0, 0, 0xF0),
        (JEQ, PASS, FAIL, 0x60),
        (LOAD_BYTE, 0, 0, 6),
        (JEQ, PASS, FAIL, 58),
        (LOAD_BYTE, 0, 0, 40),
        (JGT, FAIL, PASS, 4),
    ),
}
"""Unreachable, exceeded, bad parameter, and IPv4's redirect and source quench; no fragments."""


def about_quoted(program: Sequence[Instruction], family: PacketFamily) -> tuple[Instruction, ...]:
    """Return a program for errors about packets that `program` takes; empty if there is none."""
    moved = [_moved(each, QUOTED_AT[family]) for each in program]
    if any(each is None for each in moved):
        return ()
    head = ERRORS[family]
    end = len(head) + len(moved)
    judged = [_aimed(each, end - number - 1) for number, each in enumerate(head)]
    return (*judged, *(each for each in moved if each is not None), (RETURN, 0, 0, 0))


def _moved(instruction: Instruction, by: int) -> Instruction | None:
    """Return an instruction that looks `by` bytes further; None if it looks at no such place."""
    code, jt, jf, k = instruction
    kind, mode = code & 0x07, code & 0xE0
    if kind not in (LD, LDX) or mode not in (ABS, IND, LEN, MSH):
        return instruction
    if mode == LEN or k >= NEGATIVE:
        return None
    return code, jt, jf, k + by


def _aimed(jump: Jump, fail: int) -> Instruction:
    code, jt, jf, k = jump
    return code, fail if jt == FAIL else jt, fail if jf == FAIL else jf, k
