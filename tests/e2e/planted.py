"""Strings that are planted, and the search for them in bytes.

A string is forty random characters, which LZ4 (the only compression in Farlane) leaves as they are. The search looks
for any sixteen bytes in a row of each of these forms, so that a string that is cut in two is found as well:

- as it is, in hexadecimal, in base 64 at each of its three offsets, in UTF-16 and UTF-32;
- in Huffman's code of HTTP/2 headers (RFC 7541, appendix B) at each of its eight offsets.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Iterator

import numpy as np

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
# Characters of a planted string: 206 bits, and twenty left on one side wherever it is cut.
LENGTH = 40
# Bytes in a row that count as found: of the densest form, hexadecimal, 41 bits.
WINDOW = 16
# Bytes searched at once, so that a search takes eight times as much memory and no more.
STEP = 4 << 20
# RFC 7541, appendix B: the code is canonical, so the characters of each length in order say all of it.
HUFFMAN = {5: "012aceiost", 6: " %-./3456789=A_bdfghlmnpru", 7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"}


def planted(count: int) -> list[str]:
    """That many strings that nobody has ever seen."""
    return ["".join(secrets.choice(ALPHABET) for _ in range(LENGTH)) for _ in range(count)]


def huffman_codes() -> dict[str, str]:
    codes, code, last = {}, 0, 5
    for length, characters in HUFFMAN.items():
        code <<= length - last
        last = length
        for character in characters:
            codes[character] = f"{code:0{length}b}"
            code += 1
    return codes


CODES = huffman_codes()


def forms(secret: str | bytes) -> Iterator[tuple[bytes, int]]:
    """How a secret may lie among bytes, and the bytes between two places where a window may begin."""
    raw = secret.encode() if isinstance(secret, str) else secret
    yield raw, 1
    yield raw.hex().encode(), 1
    yield raw.hex().upper().encode(), 1
    for skip in range(3):
        whole = raw[skip : len(raw) - (len(raw) - skip) % 3]
        yield base64.b64encode(whole), 1
        yield base64.urlsafe_b64encode(whole), 1
    if isinstance(secret, str):
        yield secret.encode("utf-16-le"), 2
        yield secret.encode("utf-32-le"), 4
        bits = "".join(CODES[character] for character in secret)
        for skip in range(8):
            whole_bits = bits[skip : len(bits) - (len(bits) - skip) % 8]
            yield int(whole_bits, 2).to_bytes(len(whole_bits) // 8, "big"), 1


class Search:
    """Looks for many secrets at once: a table of the windows' first three bytes, then the windows."""

    def __init__(self, wanted: Iterable[str | bytes]) -> None:
        self.windows: dict[bytes, str | bytes] = {}
        for secret in wanted:
            for form, step in forms(secret):
                for at in range(0, len(form) - WINDOW + 1, step):
                    self.windows[form[at : at + WINDOW]] = secret
        self.table = np.zeros(1 << 24, dtype=bool)
        for window in self.windows:
            self.table[window[0] | window[1] << 8 | window[2] << 16] = True

    def found(self, data: bytes) -> set[str | bytes]:
        """The secrets of which these bytes hold a window."""
        out: set[str | bytes] = set()
        for start in range(0, len(data), STEP):
            part = np.frombuffer(data, np.uint8, count=min(STEP + WINDOW, len(data) - start), offset=start)
            if len(part) < WINDOW:
                continue
            bytes_ = part.astype(np.uint32)
            firsts = bytes_[:-2] | bytes_[1:-1] << 8 | bytes_[2:] << 16
            for at in np.flatnonzero(self.table[firsts]).tolist():
                secret = self.windows.get(data[start + at : start + at + WINDOW])
                if secret is not None:
                    out.add(secret)
        return out

    def found_in(self, sources: Iterable[tuple[str, bytes]]) -> dict[str | bytes, list[str]]:
        """The same over many named pieces of bytes: where each secret lies."""
        out: dict[str | bytes, list[str]] = {}
        for name, data in sources:
            for secret in self.found(data):
                out.setdefault(secret, []).append(name)
        return out
