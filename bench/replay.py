"""How long it takes to restore a conversation on a server that knows nothing of it.

Run it with ``python -m bench.replay``.  Three clients restore the same turns, in turn:

    voicechat       the program's own `Talk`, `Conversation` and `Connection`
    bare            a loop around the websockets library that sends the same frames in one burst and
                    decodes the same acknowledgements, and knows nothing: what a burst costs at best
    one at a time   a client that sends one item and waits for its acknowledgement

The clock runs from ``session.created`` to the acknowledgement of the last item, when voicechat's
conversation is live.  The server (`bench.server`) is a process of its own; the processor time that
it needs itself is measured too.  Medians are taken, because other programs disturb single runs.

The targets:

    own time   beyond 2 round trips and what the server itself takes, at most 0.25 ms a turn
    to bare    at most 1.4 times as long as the bare client
    to single  one at a time takes at least 100 times as long; for 500 turns at 80 ms
"""

import argparse
import asyncio
import gc
import io
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from statistics import median

from websockets.asyncio.client import ClientConnection, connect

from bench.server import Server, running
from voicechat.display import Display
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Conversation, Link
from voicechat.realtime.effects import Effect, Finish
from voicechat.realtime.events import SessionCreated
from voicechat.realtime.inputs import Input, Received
from voicechat.realtime.replay import Replay
from voicechat.talk import Talk
from voicechat.transcript import Said, Transcript

OWN_MS_A_TURN = 0.25
TIMES_BARE = 1.4
TIMES_FASTER_THAN_SINGLE = 100
SINGLE_TURNS, SINGLE_ROUND_TRIP_MS = 500, 80  # where that holds: elsewhere the distance is no issue

QUESTION = "And what do the bees do in the winter, when there is nothing in flower?"
ANSWER = (
    "They stay at home. The colony forms a cluster around its queen, shivers to keep warm, and "
    "lives on the honey it has put by in the summer. On a mild day some fly out for a moment."
)


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured for so many turns at one distance.  Times are medians, in ms."""

    turns: int
    round_trip_ms: float
    voicechat_ms: float
    bare_ms: float
    single_ms: float
    server_ms: float
    """Processor time of the server while voicechat restored."""

    @property
    def own_ms_a_turn(self) -> float:
        """What remains when the distance and the server's own time are taken off."""
        own = self.voicechat_ms - 2 * self.round_trip_ms - self.server_ms
        return max(0.0, own) / self.turns

    @property
    def times_bare(self) -> float:
        """How much longer than the bare client."""
        return self.voicechat_ms / self.bare_ms

    @property
    def times_faster_than_single(self) -> float:
        """How much longer the client takes that waits for each acknowledgement."""
        return self.single_ms / self.voicechat_ms

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        at = f"{self.turns} turns at {self.round_trip_ms:g} ms"
        missed = []
        if self.own_ms_a_turn > OWN_MS_A_TURN:
            missed.append(f"{at}: {self.own_ms_a_turn:.3f} ms a turn of its own")
        if self.times_bare > TIMES_BARE:
            missed.append(f"{at}: {self.times_bare:.2f} times the bare client")
        is_far = (self.turns, self.round_trip_ms) == (SINGLE_TURNS, SINGLE_ROUND_TRIP_MS)
        if is_far and self.times_faster_than_single < TIMES_FASTER_THAN_SINGLE:
            missed.append(f"{at}: {self.times_faster_than_single:.0f} times faster than single")
        return missed


# The three clients ------------------------------------------------------------------------------
# Each restores a transcript and returns how many seconds it took.


class TimedConversation(Conversation):
    """The conversation as it is, that notes when it was opened and hangs up once it is live."""

    started = 0.0
    live = 0.0

    def handle(self, happened: Input, now: float) -> list[Effect]:
        """Take in one thing that happened."""
        if isinstance(happened, Received) and isinstance(happened.event, SessionCreated):
            self.started = time.perf_counter()
        effects = super().handle(happened, now)
        if self.link is Link.LIVE:
            self.live = time.perf_counter()
            effects.append(Finish())
        return effects


class NoSound:
    """Neither a microphone nor a speaker: nothing is said while a conversation is restored."""

    def open(self, *_: object) -> AbstractContextManager[None]:
        """Hear nothing."""
        return nullcontext()

    def play(self, item_id: str, pcm: bytes) -> None:
        """Drop it."""

    def end(self, item_id: str) -> None:
        """Nothing was played."""

    def stop(self) -> tuple[tuple[str, int], ...]:
        """Nothing was heard."""
        return ()


async def restore_with_voicechat(url: str, transcript: Transcript) -> float:
    """The program itself, but for the sound card and the disk, which have no part in this."""
    conversation = TimedConversation(transcript)
    display = Display(io.StringIO(), io.StringIO(), transcript)
    talk = Talk(conversation, sound=NoSound(), log=None, display=display, url=url)
    if (error := await talk.run()) is not None:
        raise error
    return conversation.live - conversation.started


async def restore_bare(url: str, transcript: Transcript) -> float:
    """Encode and send everything, then decode and count what comes back; nothing more."""
    update, *creates = frames(transcript)
    async with connect(url, compression=None, max_size=None, proxy=None) as websocket:
        await until(websocket, "session.created")
        started = time.perf_counter()
        await websocket.send(json.dumps(update))
        for create in creates:
            await websocket.send(json.dumps(create))
        await until(websocket, "session.updated")
        for _ in creates:
            await until(websocket, "conversation.item.added")
        return time.perf_counter() - started


async def restore_one_at_a_time(url: str, transcript: Transcript) -> float:
    """Wait for the acknowledgement of each item before sending the next."""
    update, *creates = frames(transcript)
    async with connect(url, compression=None, max_size=None, proxy=None) as websocket:
        await until(websocket, "session.created")
        started = time.perf_counter()
        await websocket.send(json.dumps(update))
        await until(websocket, "session.updated")
        for create in creates:
            await websocket.send(json.dumps(create))
            await until(websocket, "conversation.item.added")
        return time.perf_counter() - started


async def until(websocket: ClientConnection, kind: str) -> None:
    """Decode events up to the next one of this type."""
    while json.loads(await websocket.recv())["type"] != kind:
        pass


def frames(transcript: Transcript) -> list[dict[str, object]]:
    """The client events that voicechat sends to restore this, as plain data to be encoded."""
    update: dict[str, object] = {
        "type": "session.update",
        "session": Configuration().session(),
        "event_id": "configure",
    }
    return [update] + [
        {"type": create.type, "item": create.item, "event_id": create.event_id}
        for create in Replay.of(transcript).events()
    ]


# Measuring --------------------------------------------------------------------------------------


def conversation_of(turns: int) -> Transcript:
    """So many turns of ordinary length, the user's and the assistant's alternating."""
    transcript = Transcript()
    for number in range(turns):
        role, text = ("assistant", ANSWER) if number % 2 else ("user", QUESTION)
        said = Said(item_id=f"item_{number}", role=role, text=text)  # type: ignore[arg-type]
        transcript.apply(said)
    return transcript


Client = Callable[[str, Transcript], Awaitable[float]]


def timed(client: Client, server: Server, transcript: Transcript) -> tuple[float, float]:
    """One run: the ms it took, and those that the server itself needed for it."""
    gc.collect()  # each pays for its own litter only

    async def run() -> float:
        return await client(server.url, transcript)

    took = asyncio.run(run())
    return took * 1000, server.took() * 1000


def measure(turns: int, server: Server, round_trip_ms: float, repetitions: int) -> Result:
    """Let the three restore the same turns, by turns, so that noise strikes all alike."""
    transcript = conversation_of(turns)
    timed(restore_with_voicechat, server, transcript)  # warm up
    timed(restore_bare, server, transcript)
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    for _ in range(repetitions):
        ours.append(timed(restore_with_voicechat, server, transcript))
        bare.append(timed(restore_bare, server, transcript))
    single, _ = timed(restore_one_at_a_time, server, transcript)  # once: it may take 40 s
    return Result(
        turns=turns,
        round_trip_ms=round_trip_ms,
        voicechat_ms=median(took for took, _ in ours),
        bare_ms=median(took for took, _ in bare),
        single_ms=single,
        server_ms=median(server_took for _, server_took in ours),
    )
