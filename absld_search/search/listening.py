"""This user's processes and where they listen, read from Linux's /proc; elsewhere nothing is known."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from absld_search.search.processes import PROC, parent

LISTEN = "0A"  # the kernel's word for it
OURS = re.compile(r"absld_search|mlflow|\braylet\b|gcs_server|ray::|/ray/|optuna-dashboard")


@dataclass(frozen=True)
class Listener:
    """An open door: address, port, and who stands behind it."""

    address: str
    port: int
    pid: int
    command: str

    @property
    def loopback(self) -> bool:
        """Whether only this machine can knock."""
        found = ipaddress.ip_address(self.address)
        mapped = getattr(found, "ipv4_mapped", None)
        return (mapped or found).is_loopback


def known() -> bool:
    """Whether this machine can be asked."""
    return (PROC / "net" / "tcp").exists()


def commands() -> dict[int, str]:
    """{pid: command line} of this user's processes, without those that have ended."""
    found = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            if folder.stat().st_uid == os.getuid():
                found[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:
            continue  # ended meanwhile
    return {pid: line.strip() for pid, line in found.items() if line.strip()}


def listeners(pids: dict[int, str]) -> list[Listener]:
    """Every TCP socket on which one of these processes listens."""
    holder = {inode: pid for pid in pids for inode in _sockets(pid)}
    rows = [(row, holder.get(row[9])) for row in _rows() if row[3] == LISTEN]
    found = {Listener(*_place(row[1]), pid, pids[pid]) for row, pid in rows if pid is not None}
    return sorted(found, key=lambda one: (one.port, one.address))


def orphans(pids: dict[int, str]) -> list[int]:
    """Ray's own servers whose driver has gone: the first process of the machine is their parent."""
    servers = [pid for pid, line in pids.items() if re.search(r"\braylet\b|gcs_server", line.split(" ")[0])]
    return sorted(pid for pid in servers if parent(pid) == 1)


def family(pid: int) -> dict[int, str]:
    """A process and all that descend from it."""
    lines, parents = commands(), {}
    for child in lines:
        parents[child] = parent(child)
    found, more = set(), {pid}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in more} - found
    return {each: lines[each] for each in found if each in lines}


def _sockets(pid: int) -> Iterator[str]:
    try:
        for entry in (PROC / str(pid) / "fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return  # ended meanwhile, or not ours to look at


def _rows() -> Iterator[list[str]]:
    for name in ("tcp", "tcp6"):
        try:
            yield from (line.split() for line in (PROC / "net" / name).read_text().splitlines()[1:])
        except OSError:
            continue


def _place(text: str) -> tuple[str, int]:
    """Address and port of the kernel's hexadecimal, whose words of four bytes are little-endian."""
    address, port = text.split(":")
    raw = bytes.fromhex(address)
    raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw), int(port, 16)
