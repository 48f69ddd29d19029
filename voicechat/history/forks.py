"""A door: a session that two went on with becomes two sessions."""

import os
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from voicechat.history.log import ENDING, id_of, line, put_down, session_id
from voicechat.history.reading import complete, parse
from voicechat.history.recordings import recordings_of
from voicechat.transcript import Opened, Transcript

LONGEST_NAME = 80
_STARTED = re.compile(r"[0-9]{8}-[0-9]{6}")


def fork_name(name: str | None) -> str | None:
    """What a fork is called, so that its parent is still the only one of that name."""
    return f"{name[: LONGEST_NAME - len(' (fork)')]} (fork)" if name else None


def put_down_fork(path: Path, data: bytes) -> Path:
    """Make a session with all that another one holds; the same again makes nothing new.

    So a crash between this and whatever is done with the other one leaves no second fork behind.

    Args:
        path: File of the session that is forked.
        data: What it holds; a torn end stays, too, as a line of its own.

    Raises:
        StoreError: It cannot be made.
    """
    if data != complete(data):
        data += b"\n"
    parsed = [found for each in data.split(b"\n") if (found := parse(each))]
    transcript = Transcript.of(record for _, record in parsed)
    times = [at for at, _ in parsed if at is not None]
    began = _STARTED.match(path.stem)
    stamp = began[0] if began else f"{min(times, default=datetime.now(UTC)):%Y%m%d-%H%M%S}"
    opened = transcript.opened or Opened(session="")
    number = 0
    while True:
        digest = sha256(b"%d %s " % (number, os.fsencode(path.stem)) + data).digest()
        fork = id_of(digest)
        record = replace(
            opened,
            session=fork,
            parent=session_id(path),
            name=fork_name(transcript.name),
            pid=0,
        )
        whole = data + line(record, max(times, default=datetime.fromtimestamp(0, UTC)))
        target = path.with_name(f"{stamp}-{fork}{ENDING}")
        if put_down(target, whole) or target.read_bytes().startswith(whole):
            return target
        number += 1  # another session has this id


def share_recordings(log_path: Path, fork_path: Path, since_ms: int | None = None) -> None:
    """Let a fork have the recordings of its parent, too; those from `since_ms` on, alone.

    Sound that cannot be shared is missing in the fork, which is no reason to fail.
    """
    for start_ms, path in recordings_of(log_path):
        target = path.with_name(fork_path.stem + path.name[len(log_path.stem) :])
        with suppress(OSError):
            if since_ms is not None and start_ms >= since_ms:
                path.rename(target)
            else:
                try:
                    target.hardlink_to(path)
                except OSError:
                    shutil.copy2(path, target)
