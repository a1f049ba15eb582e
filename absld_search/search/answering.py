"""Whether a Ray answers at an address, asked before Ray is: it tries for a quarter of an hour where none does."""

from __future__ import annotations

import os
import socket

from absld_search.words import UsageError

SECONDS = 5.0  # for a connection, and for the first word on it
# What a client of gRPC, which Ray's head speaks, says first, and the kind of frame by which a server greets (RFC 9113).
HELLO, GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), 4
TYPE = 3  # where the kind stands in a frame


def require(address: str) -> None:
    """Raises: UsageError, within twice `SECONDS`, where no Ray is at HOST:PORT."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like: only Ray knows where to look
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS) as there:
            known = os.environ.get("RAY_USE_TLS", "0") != "0" or _greets(there)
    except OSError as error:
        raise UsageError(f"--address {address}: nothing answers there ({error}).") from None
    if not known:
        raise UsageError(f"--address {address}: what answers there is no Ray. Give the port of `ray start --head`.")


def _greets(there: socket.socket) -> bool:
    there.sendall(HELLO)
    found = there.recv(TYPE + 1)
    return len(found) > TYPE and found[TYPE] == GREETING
