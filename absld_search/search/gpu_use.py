"""How busy the GPUs of this machine are, as the driver's own tool tells it: nothing of ours has to run on them."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time

QUERY = "index,utilization.gpu,memory.used,memory.total"
TIMEOUT = 5.0  # seconds; the tool can hang where a GPU does


def gpu_lines() -> list[str]:
    """`GPU 0    87 %, 12.1 of 80.0 GB`, a line each; [] where there is none, or nothing that tells."""
    if shutil.which("nvidia-smi") is None:
        return []
    line = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parsed(found)


def parsed(table: str) -> list[str]:
    """The lines of a table of index, per cent, MiB used, MiB in all; what cannot be read is a dash."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.count(",") == 3]
    return [f"GPU {row[0]:<4} {_number(row[1])} %, {_gb(row[2])} of {_gb(row[3])} GB" for row in rows]


class Watched:
    """The same, asked again every few seconds from a thread, so that a display never waits for it."""

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds, self.lines = seconds, list[str]()
        self._asked, self._thread = 0.0, threading.Thread()

    def now(self) -> list[str]:
        """The newest answer that there is."""
        if not self._thread.is_alive() and time.monotonic() - self._asked >= self.seconds:
            self._asked = time.monotonic()
            self._thread = threading.Thread(target=self._ask, daemon=True, name="gpu-use")
            self._thread.start()
        return self.lines

    def _ask(self) -> None:
        self.lines = gpu_lines()


def _number(text: str) -> str:
    return text if text.isdecimal() else "–"


def _gb(mib: str) -> str:
    return f"{int(mib) * 2**20 / 1e9:.1f}" if mib.isdecimal() else "–"
