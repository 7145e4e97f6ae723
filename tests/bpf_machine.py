"""A machine for classic BPF, as Documentation/networking/filter.rst tells it; for tests alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ipttrace.request import Instruction

SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
ALU: dict[int, Callable[[int, int], int]] = {
    0x00: lambda a, b: a + b,
    0x10: lambda a, b: a - b,
    0x40: lambda a, b: a | b,
    0x50: lambda a, b: a & b,
    0x60: lambda a, b: a << b,
    0x70: lambda a, b: a >> b,
}
JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x10: lambda a, b: a == b,
    0x20: lambda a, b: a > b,
    0x30: lambda a, b: a >= b,
    0x40: lambda a, b: a & b != 0,
}


def takes(program: Sequence[Instruction], packet: bytes) -> bool:
    """Tell whether a program takes a packet; what lies beyond its end is not taken."""
    try:
        return _run(program, packet) != 0
    except EOFError:
        return False


def _run(program: Sequence[Instruction], packet: bytes) -> int:
    a = x = at = 0
    memory = [0] * 16
    while True:
        code, jt, jf, k = program[at]
        at += 1
        operand = x if code & 0x08 else k
        match code & 0x07:
            case 0x00:
                a = _loaded(code, k, x, memory, packet)
            case 0x01 if code & 0xE0 == 0xA0:
                x = 4 * (_bytes(packet, k, 1) & 0xF)
            case 0x01:
                x = memory[k] if code & 0xE0 == 0x60 else k
            case 0x02 | 0x03:
                memory[k] = a if code & 0x07 == 0x02 else x
            case 0x04:
                a = ALU[code & 0xF0](a, operand) & 0xFFFFFFFF
            case 0x05 if code & 0xF0 == 0:
                at += k
            case 0x05:
                at += jt if JUMPS[code & 0xF0](a, operand) else jf
            case 0x06:
                return a if code & 0x18 == 0x10 else k
            case _:
                a, x = (x, x) if code & 0x80 else (a, a)


def _loaded(code: int, k: int, x: int, memory: Sequence[int], packet: bytes) -> int:
    match code & 0xE0:
        case 0x00:
            return k
        case 0x60:
            return memory[k]
        case 0x80:
            return len(packet)
        case mode:
            return _bytes(packet, k + (x if mode == 0x40 else 0), SIZES[code & 0x18])


def _bytes(packet: bytes, at: int, length: int) -> int:
    if at + length > len(packet):
        raise EOFError
    return int.from_bytes(packet[at : at + length], "big")
