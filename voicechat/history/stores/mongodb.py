"""A door: a store in MongoDB, which need not be more than one server, so without transactions.

Every addition is a document whose ``_id`` is the log and where the addition begins: there can be
only one, so whoever inserts it first has added, and all of it at once.  The last one says how far
the log goes.  A tombstone takes the place of the next addition, so that there is none.  Documents
are never removed, only emptied: a place that was taken once stays so.

It is tested with what speaks MongoDB's protocol upon SQLite (nx-27017), not with MongoDB itself.

A large addition puts its data into documents of their own, before it is there itself; what dies in
between leaves data that nobody asks for.
"""

import re
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from bson.errors import BSONError
from pymongo import MongoClient
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    PyMongoError,
)

from voicechat.errors import SharedStoreError
from voicechat.history.stores import VERSION, Addition, Head
from voicechat.history.stores.opening import Address

LOGS = 100
"""Logs that are looked up at once."""
LARGEST = 4_000_000
"""Bytes in one document; MongoDB allows for 16 MiB."""
TAKEN = 11_000
"""MongoDB's code for a second document of the same id."""
Document = dict[str, Any]


class MongoStore:
    """A database of a MongoDB server: the one in the URL, or ``voicechat``."""

    id: str

    def __init__(self, address: Address) -> None:
        self._address = address
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of parameters it does not know
                self._client = _client(address)
            database = self._client.get_default_database(default="voicechat")
        except (ConfigurationError, TypeError, ValueError) as error:
            raise address.is_no_url() from error
        except PyMongoError as error:
            raise address.failed(_text(error)) from error
        self._store = database["voicechat_store"]
        self._additions = database["voicechat_additions"]
        self._pieces = database["voicechat_pieces"]
        try:
            self.id = self._run(self._look)
        except SharedStoreError:
            self.close()
            raise

    def heads(self) -> dict[str, Head]:
        """What the last addition to each log says."""
        heads: dict[str, Head] = self._run(partial(self._heads, {}))
        if buried := [log for log, head in heads.items() if head.is_deleted]:
            self._run(partial(self._empty, buried))  # whoever deleted it may not have got so far
        return heads

    def read(self, starts: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """Some logs with each query."""
        names = list(starts)
        for first in range(0, len(names), LOGS):
            some = {name: starts[name] for name in names[first : first + LOGS]}
            yield from self._run(partial(self._read, some)).items()

    def add(self, additions: Sequence[Addition]) -> set[str]:
        """Add to each log by itself, so many of them at once."""
        refused: set[str] = set()
        for first in range(0, len(additions), LOGS):
            refused |= self._run(partial(self._add, additions[first : first + LOGS]))
        return refused

    def bury(self, log: str, seen: Head, tombstone: Head) -> bool:
        """Put a tombstone where the next addition would be, and empty those that were there."""
        return bool(self._run(partial(self._bury, log, seen, tombstone)))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # What may fail ------------------------------------------------------------------------------

    def _look(self) -> str:
        """See what is there, and make it if there is nothing yet."""
        query = {"_id": "store"}
        if (found := self._store.find_one(query)) is None:
            self._additions.create_index("log")
            with suppress(DuplicateKeyError):  # someone was quicker
                self._store.insert_one({**query, "version": VERSION, "id": secrets.token_hex(8)})
            found = self._store.find_one(query) or {}
        return self._address.check(found.get("version"), found.get("id"))

    def _heads(self, query: Document) -> dict[str, Head]:
        heads: dict[str, Head] = {}
        places: dict[str, int] = {}
        fields = {"log": 1, "start": 1, "end": 1, "sha256": 1, "is_deleted": 1}
        for each in self._additions.find(query, fields):
            if each["start"] >= places.get(each["log"], 0):
                places[each["log"]] = each["start"]
                heads[each["log"]] = Head(each["end"], each["sha256"], each["is_deleted"])
        return heads

    def _read(self, starts: Mapping[str, int]) -> dict[str, bytes]:
        found: dict[str, dict[int, bytes]] = {}
        gone: set[str] = set()
        for each in self._additions.find({"log": {"$in": list(starts)}}):
            log, at = each["log"], each["start"]
            lines = found.setdefault(log, {})
            if each["end"] > starts[log]:
                data = None if each["is_deleted"] else self._data(each)
                if data is None:
                    gone.add(log)
                else:
                    lines[at] = data[max(0, starts[log] - at) :]
        return {
            log: b"".join(lines[at] for at in sorted(lines))
            for log, lines in found.items()
            if log not in gone
        }

    def _data(self, addition: Document) -> bytes | None:
        """What was added, if nobody has deleted it."""
        numbers: list[str] = addition["pieces"]
        pieces = {each["_id"]: each["data"] for each in self._found(numbers)}
        if "data" not in addition or len(pieces) < len(numbers):
            return None
        return b"".join(bytes(pieces[number]) for number in numbers) + bytes(addition["data"])

    def _found(self, numbers: list[str]) -> Iterable[Document]:
        return self._pieces.find({"_id": {"$in": numbers}}) if numbers else ()

    def _add(self, additions: Sequence[Addition]) -> set[str]:
        heads = self._heads({"log": {"$in": [each.log for each in additions]}})
        documents = [
            self._document(each.log, each.before, each.after) | self._in_pieces(each.data)
            for each in additions
            if _end(heads.get(each.log)) == each.before
        ]
        if documents:
            try:
                self._additions.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                refused = {each["index"] for each in error.details["writeErrors"]}
                if any(each["code"] != TAKEN for each in error.details["writeErrors"]):
                    raise
                documents = [each for at, each in enumerate(documents) if at not in refused]
        return {each.log for each in additions} - {each["log"] for each in documents}

    def _in_pieces(self, data: bytes) -> Document:
        """Put away what does not fit into one document; the rest of the data, and where that is."""
        numbers = []
        while len(data) > LARGEST:
            numbers.append(secrets.token_hex(16))
            self._pieces.insert_one({"_id": numbers[-1], "data": data[:LARGEST]})
            data = data[LARGEST:]
        return {"data": data, "pieces": numbers}

    def _bury(self, log: str, seen: Head, tombstone: Head) -> bool:
        if seen.is_deleted or self._heads({"log": log}).get(log) != seen:
            return False
        document = self._document(log, seen.length, replace(tombstone, is_deleted=True))
        try:
            self._additions.insert_one(document)
        except DuplicateKeyError:
            return False
        self._empty([log])
        return True

    def _empty(self, logs: list[str]) -> None:
        full = {"log": {"$in": logs}, "data": {"$exists": True}}
        numbers = [
            one for each in self._additions.find(full, {"pieces": 1}) for one in each["pieces"]
        ]
        if numbers:
            self._pieces.delete_many({"_id": {"$in": numbers}})
        self._additions.update_many(full, {"$unset": {"data": ""}})

    @staticmethod
    def _document(log: str, start: int, after: Head) -> Document:
        head = {"end": after.length, "sha256": after.sha256, "is_deleted": after.is_deleted}
        return {"_id": f"{start} {log}", "log": log, "start": start, **head}

    def _run(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (PyMongoError, BSONError, OSError) as error:
            raise self._address.failed(_text(error)) from error
        except (KeyError, TypeError) as error:  # documents of another kind
            raise self._address.is_strange() from error


def _client(address: Address) -> MongoClient[Document]:
    milliseconds = int(address.timeout * 1000)
    return MongoClient(
        address.url,
        serverSelectionTimeoutMS=milliseconds,
        connectTimeoutMS=milliseconds,
        socketTimeoutMS=milliseconds,
        w="majority",  # said to be there is what will still be there
        journal=True,
    )


def _end(head: Head | None) -> int | None:
    """Where an addition would begin."""
    if head is None:
        return 0
    return None if head.is_deleted else head.length


def _text(error: Exception) -> str:
    """What went wrong: pymongo also says which timeouts there were, whatever it was."""
    text = re.split(r" \(configured timeouts|, Timeout: ", str(error))[0]
    if text.startswith(("No servers found yet", "operation cancelled")):
        return "timed out"
    code = getattr(error, "code", None)
    if isinstance(error, BulkWriteError):
        errors = error.details.get("writeErrors") or error.details.get("writeConcernErrors") or [{}]
        return str(errors[0].get("errmsg", "the addition was refused"))
    return f"{text} ({code})" if code is not None else text
