"""A client that seals nothing: HTTP/2 and gRPC by hand, over a connection of its own.

It says what a real client said, taken from a recording, with a payload of its own in place of the sealed one.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
ACK, END_HEADERS, PADDED = 1, 4, 8
# What farlane_seal::stream writes before a sealed stream: two bytes of magic, the suite, zero, the salt.
SEALED_HEAD = b"\xfa\x53\x01\x00"
# Fields of farlane/v1/network.proto.
FRAME_OPEN, FRAME_SUBMIT = 1, 2
OPEN_SESSION, OPEN_GRANTER, OPEN_NEXT_SEQ = 2, 5, 7
SUBMIT_FIRST_SEQ, SUBMIT_TASKS = 1, 3
TASK_PAYLOAD, TASK_REFS = 3, 6
SEALED_INLINE = 1
OPENED, SUBMITTED, NEWS = 1, 2, 5
THROUGH_SEQ = 1
OPEN_RESUME = 3

Fields = list[tuple[int, "int | bytes"]]


def decode(message: bytes) -> Fields:
    """A protobuf message's fields in order: numbers and bytes, the only kinds that these messages have."""
    out: Fields = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            out.append((tag >> 3, varint()))
        else:
            assert tag & 7 == 2, "neither a number nor bytes"
            size = varint()
            out.append((tag >> 3, message[at : at + size]))
            at += size
    return out


def encode(fields: Fields) -> bytes:
    out = bytearray()

    def varint(value: int) -> None:
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)

    for number, value in fields:
        if isinstance(value, int):
            varint(number << 3)
            varint(value)
        else:
            varint(number << 3 | 2)
            varint(len(value))
            out.extend(value)
    return bytes(out)


def messages(recorded: bytes) -> Iterator[bytes]:
    """The gRPC messages that a client sent over a recorded connection, stream by stream."""
    streams: dict[int, bytearray] = {}
    at = len(PREFACE)
    while at + 9 <= len(recorded):
        size, kind, flags = int.from_bytes(recorded[at : at + 3], "big"), recorded[at + 3], recorded[at + 4]
        body = recorded[at + 9 : at + 9 + size]
        if kind == DATA:
            assert not flags & PADDED
            streams.setdefault(int.from_bytes(recorded[at + 5 : at + 9], "big"), bytearray()).extend(body)
        at += 9 + size
    for data in streams.values():
        at = 0
        while at + 5 <= len(data):
            compressed, size = data[at], int.from_bytes(data[at + 1 : at + 5], "big")
            assert not compressed, "gRPC's own compression would hide what is planted"
            yield bytes(data[at + 5 : at + 5 + size])
            at += 5 + size


def first(recordings: list[bytes], number: int) -> Fields:
    """The first session frame of this kind that a real client sent."""
    for recorded in recordings:
        for message in messages(recorded):
            try:
                fields = decode(message)
                if len(fields) != 1 or fields[0][0] != number or not isinstance(fields[0][1], bytes):
                    continue
                inner = decode(fields[0][1])
            except (AssertionError, IndexError):
                continue  # Another call's message.
            kinds = {n: v for n, v in inner}
            session = kinds.get(OPEN_SESSION)
            if number == FRAME_SUBMIT and SUBMIT_TASKS in kinds:
                return inner
            if number == FRAME_OPEN and isinstance(session, bytes) and len(session) == 16:
                return inner
    raise AssertionError("no client has sent such a frame")


def forged(plain: bytes) -> bytes:
    """Plain bytes behind the head of sealed ones: all that a server can check without a key."""
    size = 1024
    while size < len(plain) + 128:
        size *= 2
    assert size <= 16 * 1024, "larger buckets are no powers of two"
    return (SEALED_HEAD + os.urandom(32) + plain).ljust(size, b"\0")


class BareClient:
    """One session of a client that sends what it likes."""

    def __init__(self, url: str, root: Path, key: str, recordings: list[bytes]) -> None:
        self.opening = first(recordings, FRAME_OPEN)
        self.batch = first(recordings, FRAME_SUBMIT)
        address = urlsplit(url)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(root)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((address.hostname, address.port), timeout=10)
        self.socket = context.wrap_socket(plain, server_hostname="farlane")
        self.unread = b""
        self.socket.sendall(PREFACE)
        self.frame(SETTINGS, 0, 0, b"")
        names = {
            ":method": "POST",
            ":scheme": "https",
            ":path": "/farlane.v1.Network/Session",
            ":authority": "farlane",
            "content-type": "application/grpc",
            "te": "trailers",
            "authorization": f"Bearer {key}",
        }
        # Every header spelled out, never indexed (RFC 7541, 6.2.2); none is longer than one byte can say.
        block = b"".join(b"\0" + literal(name) + literal(value) for name, value in names.items())
        self.frame(HEADERS, END_HEADERS, 1, block)
        session = int(time.time() * 1000).to_bytes(6, "big") + os.urandom(5) + bytes(5)
        own = (OPEN_SESSION, OPEN_RESUME, OPEN_GRANTER, OPEN_NEXT_SEQ)
        shared = [(n, v) for n, v in self.opening if n not in own]
        self.send(FRAME_OPEN, [*shared, (OPEN_SESSION, session), (OPEN_NEXT_SEQ, 1)])
        # SessionOpened; a refusal would be the other kind.
        self.opened = self.message()
        assert decode(self.opened)[0][0] == OPENED, self.opened

    def submit(self, payloads: list[bytes]) -> bytes:
        """Submits tasks with these payloads as they are; the answer."""
        model = decode(next(v for n, v in self.batch if n == SUBMIT_TASKS and isinstance(v, bytes)))
        fields: Fields = [(n, v) for n, v in self.batch if n not in (SUBMIT_FIRST_SEQ, SUBMIT_TASKS)]
        fields.append((SUBMIT_FIRST_SEQ, 1))
        for payload in payloads:
            inline = encode([(SEALED_INLINE, payload)])
            task = [(n, inline if n == TASK_PAYLOAD else v) for n, v in model if n != TASK_REFS]
            fields.append((SUBMIT_TASKS, encode(task)))
        self.send(FRAME_SUBMIT, fields)
        while True:
            answer = self.message()
            if decode(answer)[0][0] != NEWS:  # May come at any time.
                return answer

    def send(self, number: int, fields: Fields) -> None:
        message = encode([(number, encode(fields))])
        data = b"\0" + struct.pack(">I", len(message)) + message
        for at in range(0, len(data), 16_384):  # The largest frame that needs no agreement.
            self.frame(DATA, 0, 1, data[at : at + 16_384])

    def frame(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        self.socket.sendall(len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body)

    def message(self) -> bytes:
        """The next gRPC message from the server."""
        while True:
            if len(self.unread) >= 5:
                size = int.from_bytes(self.unread[1:5], "big")
                if len(self.unread) >= 5 + size:
                    message, self.unread = self.unread[5 : 5 + size], self.unread[5 + size :]
                    return message
            head = self.exactly(9)
            body, kind, flags = self.exactly(int.from_bytes(head[:3], "big")), head[3], head[4]
            if kind == DATA:
                self.unread += body
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self.frame(kind, ACK, 0, body if kind == PING else b"")
            assert kind != GOAWAY and not (kind == HEADERS and flags & 1), f"the server ended the session: {body!r}"

    def exactly(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            part = self.socket.recv(size - len(out))
            assert part, "the server closed the connection"
            out += part
        return out

    def close(self) -> None:
        self.socket.close()


def literal(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) < 127
    return bytes([len(raw)]) + raw
