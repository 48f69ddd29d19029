"""Logs as lines: what two have in common, what only one has, and how they travel."""

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256

from voicechat.history.checking import objects
from voicechat.history.deleting import head_of
from voicechat.history.reading import complete, parse
from voicechat.history.stores import Addition, Head
from voicechat.transcript import Back, Closed, Lost, Opened, Renamed

SAYING_NOTHING = (Opened, Lost, Back, Renamed, Closed)
"""Records of a run in which nobody said anything, as one that could not connect."""
PIECE = 1_000_000
"""Bytes that travel at once, about."""
BATCH = 200
"""Logs that travel at once."""
LONGEST_NAME = 150
"""Letters in the name of a log."""
_NEVER = datetime.min.replace(tzinfo=UTC)


def common(one: bytes, other: bytes) -> int:
    """How many bytes of whole lines two logs begin with alike."""
    length = 0
    for each, same in zip(one.split(b"\n"), other.split(b"\n"), strict=False):
        if each != same:
            break
        length += len(each) + 1
    return min(length, len(one), len(other))


def ended(data: bytes) -> bytes:
    """With an end to the last line if it is a record, as an editor leaves it, and not torn."""
    lines = complete(data)
    return data + b"\n" if parse(data[len(lines) :]) else lines


def begins_with(data: bytes, head: Head) -> bool:
    """Are these the first lines of a log that holds this?"""
    return is_same(head_of(data[: head.length]), head)


def is_same(one: Head, other: Head) -> bool:
    """Do they stand for the same lines, deleted or not?"""
    return (one.length, one.sha256) == (other.length, other.sha256)


def says_nothing(lines: bytes) -> bool:
    """Is nothing lost with these lines of a log but, perhaps, a name?"""
    parsed = [parse(line) for line in lines.split(b"\n") if line]
    return all(found is not None and isinstance(found[1], SAYING_NOTHING) for found in parsed)


def beyond(data: bytes, *others: bytes) -> bytes:
    """The lines that are in none of the others; of torn ones, what can be read in them."""
    there = {line for other in others for line in other.split(b"\n")}
    lines = (line for line in data.split(b"\n") if line not in there)
    return b"\n".join(each for line in lines for each in objects(line) if each not in there)


def last_name(lines: bytes) -> tuple[datetime, Renamed] | None:
    """The last record in these lines that gives the session a name, and when that was."""
    records = [found for each in lines.split(b"\n") if (found := parse(each))]
    for at, record in reversed(records):
        if isinstance(record, Renamed):
            return at or _NEVER, record
    return None


# On the way ---------------------------------------------------------------------------------------


def is_portable(log: str) -> bool:
    """Is this a name that a file may have on every machine, and that leads nowhere?"""
    is_short = 0 < len(log) <= LONGEST_NAME and len(log.encode(errors="replace")) <= LONGEST_NAME
    is_plain = log.isprintable() and not set(log) & set('/\\:*?"<>|')
    return is_short and is_plain and log[0] not in ". " and log[-1] not in ". "


def pieces(log: str, before: int, data: bytes) -> Iterator[Addition]:
    """What follows a log in the store, in pieces of whole lines."""
    digest = sha256(data[:before])
    while before < len(data):
        end = data.rfind(b"\n", before, before + PIECE) + 1 or data.find(b"\n", before) + 1
        digest.update(data[before:end])
        yield Addition(log, before, data[before:end], Head(end, digest.hexdigest()))
        before = end


def batches(lengths: dict[str, int]) -> Iterator[list[str]]:
    """Logs that travel together."""
    batch: list[str] = []
    size = 0
    for log, length in lengths.items():
        if batch and (len(batch) >= BATCH or size + length > PIECE):
            yield batch
            batch, size = [], 0
        batch.append(log)
        size += length
    if batch:
        yield batch
