"""A subscriber of live streams as a process that can be killed at any moment: what it has got is in files.

``python live_subscriber.py PORT DIRECTORY STREAM...``: a thread and a file for each stream. A file holds the events as
they came, each written at once; half an event at its end is cut off before it goes on with the last id of the file.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote


def last_id(path: Path) -> str:
    """The id of the last event in the file, of which only whole events are kept."""
    found = path.read_bytes() if path.exists() else b""
    whole = found[: found.rfind(b"\n\n") + 2] if b"\n\n" in found else b""
    path.write_bytes(whole)
    ids = re.findall(rb"^id: (.*)$", whole, re.MULTILINE)
    return ids[-1].decode() if ids else ""


def follow(port: int, stream: str, path: Path) -> None:
    """One connection, until it ends."""
    headers = {"Accept": "text/event-stream"}
    if known := last_id(path):
        headers["Last-Event-ID"] = known
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", f"/api/streams/{quote(stream, safe='')}/live?from=-inf", headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            return
        with path.open("ab", buffering=0) as log:
            while piece := answer.read1(65536):
                log.write(piece)
    finally:
        connection.close()


def keep_following(port: int, stream: str, path: Path) -> None:
    """One connection after the other."""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            follow(port, stream, path)
        time.sleep(0.1)


def main() -> None:
    port, directory = int(sys.argv[1]), Path(sys.argv[2])
    for stream in sys.argv[3:]:
        path = directory / f"{quote(stream, safe='')}.events"
        threading.Thread(target=keep_following, args=(port, stream, path), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
