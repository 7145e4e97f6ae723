"""Text from the kernel, from rules and from packets, made harmless before anybody sees it."""

from __future__ import annotations


def clean_text(text: str) -> str:
    r"""Return `text` with all that a terminal would act on written out, as in `\x1b`.

    Control characters, bidirectional controls, invisible format characters, line separators, lone
    surrogates and unassigned characters are written as Python would write them in a literal; a
    byte that was no UTF-8 (PEP 383) as that byte.  Letters of every script stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _written_out(ord(char)) for char in text)


def _written_out(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
