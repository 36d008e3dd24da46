"""The lines of a file that arrives in pieces, of which only one line is held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def lines(pieces: Iterable[bytes], longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number and the text of each line that is not blank, from 1 on.

    None stands for a line of more than `longest` bytes.
    """
    number, rest, skipping = 1, bytearray(), False
    for piece in pieces:
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            rest += piece[start:end]
            if skipping or len(rest) > longest:
                yield number, None
            elif line := bytes(rest).strip():
                yield number, line
            number, start, skipping = number + 1, end + 1, False
            rest.clear()
        if not skipping:
            rest += piece[start:]
        if len(rest) > longest:
            skipping = True
            rest.clear()
    if skipping:
        yield number, None
    elif line := bytes(rest).strip():
        yield number, line
