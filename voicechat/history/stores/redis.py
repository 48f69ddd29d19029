"""A door: a store in Redis.

A log is one string, and a hash says how far each log goes.  Scripts change both: Redis carries out
a script as a whole or not at all, and nothing else meanwhile.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from voicechat.errors import SharedStoreError
from voicechat.history.stores import VERSION, Addition, Head
from voicechat.history.stores.opening import Address

STORE = "voicechat:store"
HEADS = "voicechat:heads"
LOG = "voicechat:log:"
LOGS = 100
"""Logs that are read at once."""
PIECE = 4_000_000
"""Bytes that are sent at once, about."""
ADD = """
local head = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[2] == '0' then
    if head then return 0 end
    redis.call('SET', KEYS[2], ARGV[4])
elseif not head or head:sub(-8) == ' deleted' or head:match('^%d+') ~= ARGV[2] then
    return 0
elseif redis.call('STRLEN', KEYS[2]) ~= tonumber(ARGV[2]) then
    return 0
else
    redis.call('APPEND', KEYS[2], ARGV[4])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
BURY = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""
READ = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
return redis.call('GETRANGE', KEYS[1], ARGV[1], -1)
"""
"""A script, since a transaction may not even read where there is no room."""


class RedisStore:
    """A database of a Redis server."""

    id: str

    def __init__(self, address: Address) -> None:
        self._address = address
        try:
            self._redis = redis.Redis.from_url(
                address.url,
                socket_timeout=address.timeout,
                socket_connect_timeout=address.timeout,
                retry=Retry(NoBackoff(), 0),  # what was added once must not be added again
                protocol=2,  # every server speaks it
            )
        except (ValueError, TypeError, RedisError) as error:
            raise address.is_no_url() from error
        self._add = self._redis.register_script(ADD)
        self._read = self._redis.register_script(READ)
        self._bury = self._redis.register_script(BURY)
        try:
            self.id = self._run(self._look)
        except SharedStoreError:
            self.close()
            raise

    def heads(self) -> dict[str, Head]:
        """What the hash says."""
        found = self._run(partial(self._redis.hgetall, HEADS))
        return {
            name.decode(errors="replace"): self._decoded(value) for name, value in found.items()
        }

    def read(self, starts: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """So many logs at once, every one as it was at one moment."""
        names = list(starts)
        for first in range(0, len(names), LOGS):
            some = names[first : first + LOGS]
            pipeline = self._redis.pipeline(transaction=False)
            for name in some:
                self._read(keys=[LOG + name], args=[starts[name]], client=pipeline)
            for name, data in zip(some, self._run(pipeline.execute), strict=True):
                if data is not None:
                    yield name, data

    def add(self, additions: Sequence[Addition]) -> set[str]:
        """Add to each log by itself, so many of them at once."""
        refused: set[str] = set()
        waiting: list[Addition] = []
        size = 0
        for each in additions:
            waiting.append(each)
            size += len(each.data)
            if size >= PIECE:
                refused |= self._send(waiting)
                waiting, size = [], 0
        return refused | self._send(waiting)

    def bury(self, log: str, seen: Head, tombstone: Head) -> bool:
        """Delete the string, and let the hash say so."""
        values = [log, _encoded(seen), _encoded(tombstone) + " deleted"]
        keys = [HEADS, LOG + log]
        return bool(self._run(partial(self._bury, keys=keys, args=values)))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def _send(self, additions: Sequence[Addition]) -> set[str]:
        pipeline = self._redis.pipeline(transaction=False)
        for each in additions:
            values: list[Any] = [each.log, each.before, _encoded(each.after), each.data]
            self._add(keys=[HEADS, LOG + each.log], args=values, client=pipeline)
        answers = self._run(pipeline.execute)
        return {each.log for each, done in zip(additions, answers, strict=True) if not done}

    def _look(self) -> str:
        """See what is there, and make it if there is nothing yet."""
        version, store = self._said(self._redis.hmget(STORE, ["version", "id"]))
        if version is None and store is None:
            self._redis.hlen(HEADS)  # it fails if that is something else
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hsetnx(STORE, "version", str(VERSION))
            pipeline.hsetnx(STORE, "id", secrets.token_hex(8))
            pipeline.hmget(STORE, ["version", "id"])
            version, store = self._said(pipeline.execute()[-1])
        is_ours = version is not None and version.isdigit()
        return self._address.check(int(version or 0) if is_ours else None, store)

    def _said(self, values: Sequence[Any]) -> tuple[str | None, ...]:
        return tuple(None if value is None else str(value, "ascii", "replace") for value in values)

    def _run(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (RedisError, OSError, RuntimeError) as error:
            raise self._address.failed(str(error)) from error
        except (TypeError, ValueError) as error:  # what the library says of odd parameters
            raise self._address.is_no_url() from error

    def _decoded(self, value: bytes) -> Head:
        length, _, rest = value.decode(errors="replace").partition(" ")
        digest, _, deleted = rest.partition(" ")
        if not length.isdigit() or deleted not in {"", "deleted"}:
            raise self._address.is_strange()
        return Head(int(length), digest, deleted == "deleted")


def _encoded(head: Head) -> str:
    return f"{head.length} {head.sha256}"
