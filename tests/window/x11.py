"""The little of the X protocol that tests need: window list, close message, picture.

A test must be able to close Blender's window as a window manager does and to
take a picture on any machine that has Xvfb, so it asks the server itself.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

INTERN_ATOM, QUERY_TREE, GET_PROPERTY, SEND_EVENT, GET_GEOMETRY, GET_IMAGE = 16, 15, 20, 25, 14, 73
QUERY_EXTENSION, FAKE_INPUT = 98, 2
CLIENT_MESSAGE = 33
KEY_PRESS, KEY_RELEASE, MOTION = 2, 3, 6
ESCAPE, N = 9, 57  # the codes of keys on every PC keyboard
Z_PIXMAP = 2
LONGEST_VALUE = 1024  # of a property, in units of four bytes


class Display:
    """A connection to the X server with this number."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(f"/tmp/.X11-unix/X{number}")
        self._root = self._greet()
        # Blender only honours these two if they exist before it starts.
        self._protocols = self._atom("WM_PROTOCOLS")
        self._delete = self._atom("WM_DELETE_WINDOW")

    def close(self) -> None:
        self._socket.close()

    def windows(self) -> list[int]:
        """The windows that can be asked to close, oldest first."""
        reply = self._ask(QUERY_TREE, struct.pack("<I", self._root))
        (count,) = struct.unpack_from("<H", reply, 16)
        children = struct.unpack_from(f"<{count}I", reply, 32)
        return sorted(window for window in children if self._delete in self._offered(window))

    def ask_to_close(self, window: int) -> None:
        """Sends what a window manager sends when the user clicks the close button."""
        data = struct.pack("<5I", self._delete, 0, 0, 0, 0)
        event = struct.pack("<BBHII", CLIENT_MESSAGE, 32, 0, window, self._protocols) + data
        self._send(SEND_EVENT, struct.pack("<II", window, 0) + event)
        self._atom("WM_DELETE_WINDOW")  # An answer: the server has read the message.

    def press_key(self, code: int) -> None:
        """A key goes down and up, for the window under the pointer (XTEST's FakeInput)."""
        for kind in (KEY_PRESS, KEY_RELEASE):
            self._fake(kind, code)

    def move_pointer(self, x: int, y: int) -> None:
        """The mouse goes to a place on the screen."""
        self._fake(MOTION, 0, x, y)

    def _fake(self, kind: int, code: int, x: int = 0, y: int = 0) -> None:
        extension = self._ask(QUERY_EXTENSION, struct.pack("<Hxx8s", 5, b"XTEST"))[9]
        event = struct.pack("<BBxxII8xhh8x", kind, code, 0, self._root, x, y)
        self._send(extension, event, FAKE_INPUT)
        self._atom("WM_DELETE_WINDOW")  # An answer: the server has read the message.

    def picture(self) -> tuple[int, int, bytes]:
        """Width, height and the RGB bytes of the whole screen."""
        width, height = struct.unpack_from("<HH", self._ask(GET_GEOMETRY, struct.pack("<I", self._root)), 16)
        area = struct.pack("<IhhHHI", self._root, 0, 0, width, height, 0xFFFFFFFF)
        pixels = self._ask(GET_IMAGE, area, Z_PIXMAP)[32:]
        rgb = bytearray(width * height * 3)
        for channel in range(3):  # The server has them as blue, green, red, nothing.
            rgb[channel::3] = pixels[2 - channel : width * height * 4 : 4]
        return width, height, bytes(rgb)

    def _offered(self, window: int) -> Sequence[int]:
        request = struct.pack("<IIIII", window, self._protocols, 0, 0, LONGEST_VALUE)
        reply = self._ask(GET_PROPERTY, request)
        (count,) = struct.unpack_from("<I", reply, 16)
        return struct.unpack_from(f"<{count}I", reply, 32)

    def _atom(self, name: str) -> int:
        padded = name.encode().ljust(-(-len(name) // 4) * 4, b"\0")
        reply = self._ask(INTERN_ATOM, struct.pack("<Hxx", len(name)) + padded)
        return int.from_bytes(reply[8:12], "little")

    def _greet(self) -> int:
        self._socket.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0))
        head = self._read(8)
        body = self._read(int.from_bytes(head[6:8], "little") * 4)
        if head[0] != 1:
            raise ConnectionError(f"the X server refused: {body!r}")
        vendor = int.from_bytes(body[16:18], "little")
        screen = 32 + -(-vendor // 4) * 4 + 8 * body[21]
        return int.from_bytes(body[screen : screen + 4], "little")

    def _send(self, code: int, body: bytes, detail: int = 0) -> None:
        length = (len(body) + 4) // 4
        self._socket.sendall(struct.pack("<BBH", code, detail, length) + body)

    def _ask(self, code: int, body: bytes, detail: int = 0) -> bytes:
        self._send(code, body, detail)
        head = self._read(32)
        while head[0] != 1:
            # A window may vanish while we look; any other message is an event.
            if head[0] == 0:
                return bytes(32)
            head = self._read(32)
        return head + self._read(int.from_bytes(head[4:8], "little") * 4)

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the X server is gone")
            data += piece
        return bytes(data)


def write_png(path: Path, width: int, height: int, rgb: bytes) -> None:
    """Writes a picture with eight bits a channel."""
    stride = width * 3
    rows = b"".join(b"\0" + rgb[i * stride : (i + 1) * stride] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum
