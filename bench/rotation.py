"""What a listener notices when the program moves to a fresh connection.

Someone sits in a room and speaks: once in the ordinary way; then, as soon as the program has moved,
at once again; and so on, over several moves.  The program is the real one, with a microphone and a
speaker that are only counted; each frame of the microphone has a number.  Measured are

    lost, twice   frames that no connection got, or more than one, from the first to the last that
                  came; target: none
    ordinary      from the last loud frame to the first sound of the answer; 200 ms of it are the
                  silence by which the server tells that the turn is over
    after a move  the same, where the first loud frame is the first one of the new connection
"""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

from bench.common import MANY_TOKENS, BenchmarkError, columns, conversation_of
from bench.ear import frame
from bench.server import Server
from voicechat.display import Display
from voicechat.pcm import FRAME_MS, duration_ms
from voicechat.realtime.conversation import Conversation, Link
from voicechat.realtime.effects import Close, Effect
from voicechat.realtime.inputs import Input, QuitRequested
from voicechat.realtime.policy import Policy
from voicechat.sound import Listener
from voicechat.talk import Talk

EXTRA_MS = 50
TURNS = 100  # to be restored at each move
ROTATE_AFTER = 3.0  # seconds: for the two turns on each connection, and the silence for the move
UTTERANCE_FRAMES = 15
PAUSE = 0.2  # seconds between two turns
PATIENCE = 20.0  # seconds for one move


@dataclass(frozen=True, slots=True)
class Result:
    """What was noticed of some moves at one distance.  Times are medians, in ms."""

    turns: int
    round_trip_ms: float
    moves: int
    frames: int
    lost: int
    twice: int
    ordinary_ms: float
    after_a_move_ms: float

    @property
    def extra_ms(self) -> float:
        """How much later an answer comes right after a move."""
        return self.after_a_move_ms - self.ordinary_ms

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        at = f"{self.moves} moves at {self.round_trip_ms:g} ms"
        missed = []
        if self.lost or self.twice:
            missed.append(f"{at}: {self.lost} frames lost, {self.twice} sent twice")
        if self.extra_ms >= EXTRA_MS:
            missed.append(f"{at}: an answer comes {self.extra_ms:.0f} ms later after a move")
        return missed


class Room:
    """A microphone that hears a frame each 20 ms, and a speaker that has played at once."""

    echo = None

    def __init__(self) -> None:
        self._number = 0
        self._loud_frames = 0
        """To be heard yet."""
        self._said_at = 0.0
        self._answered: asyncio.Future[float] | None = None
        self._played_ms: Counter[str] = Counter()
        self._listener: Listener
        self._timer: asyncio.TimerHandle

    async def say(self) -> float:
        """Speak, beginning with the next frame; return the ms until the answer was heard."""
        self._answered = asyncio.get_running_loop().create_future()
        self._loud_frames = UTTERANCE_FRAMES
        return (await self._answered - self._said_at) * 1000

    @asynccontextmanager
    async def open(self, listener: Listener) -> AsyncIterator[None]:
        """Hear, frame by frame, until closed."""
        self._listener = listener
        self._hear(asyncio.get_running_loop().time())
        try:
            yield
        finally:
            self._timer.cancel()

    def _hear(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        due += FRAME_MS / 1000
        self._timer = loop.call_at(due, self._hear, due)
        self._listener.captured(frame(self._number, is_loud=self._loud_frames > 0))
        self._number += 1
        if self._loud_frames:
            self._loud_frames -= 1
            self._said_at = loop.time()

    def play(self, item_id: str, pcm: bytes) -> None:
        """Note when the first sound comes."""
        self._played_ms[item_id] += duration_ms(pcm)
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(asyncio.get_running_loop().time())

    def end(self, item_id: str) -> None:
        """All of it was heard."""
        self._listener.finished(item_id, self._played_ms.pop(item_id, 0))

    def renew(self) -> None:
        """It does not sleep."""

    def stop(self) -> tuple[tuple[str, int], ...]:
        """Nothing is waiting."""
        return ()


class Watched(Conversation):
    """A conversation that tells when it is live, and when it has moved."""

    def __init__(self) -> None:
        policy = Policy(rotate_after=ROTATE_AFTER, replay_tokens=MANY_TOKENS)
        super().__init__(conversation_of(TURNS), policy=policy)
        self.is_live, self.has_moved = asyncio.Event(), asyncio.Event()
        self.moves = 0

    def handle(self, happened: Input, now: float) -> list[Effect]:
        """See what comes of it."""
        effects = super().handle(happened, now)
        if self.link is Link.LIVE:
            self.is_live.set()
            if any(isinstance(effect, Close) for effect in effects):
                self.moves += 1
                self.has_moved.set()
        return effects


async def converse(url: str, moves: int) -> tuple[list[float], list[float], int]:
    """Talk over some moves; return the ms of ordinary answers, of those after a move, and how
    many moves there were."""
    conversation, room = Watched(), Room()
    display = Display(io.StringIO(), io.StringIO(), conversation.transcript)
    talk = Talk(conversation, sound=room, log=None, display=display, url=url)
    ordinary: list[float] = []
    after: list[float] = []

    async def speak() -> None:
        await conversation.is_live.wait()
        await room.say()  # warm up
        while len(after) < moves:
            await asyncio.sleep(PAUSE)
            conversation.has_moved.clear()
            took = await room.say()
            if conversation.has_moved.is_set():
                continue  # it came early: this was no ordinary turn
            ordinary.append(took)
            await conversation.has_moved.wait()
            after.append(await room.say())

    async def speak_and_hang_up() -> None:
        error = None
        try:
            async with asyncio.timeout(PATIENCE * (moves + 1)):
                await speak()
        except TimeoutError:
            error = BenchmarkError(f"only {len(after)} of {moves} moves came")
        talk.post(QuitRequested(error))

    async with asyncio.TaskGroup() as tasks:
        speaking = tasks.create_task(speak_and_hang_up())
        failure = await talk.run()
        speaking.cancel()
    if failure is not None:
        raise failure
    return ordinary, after, conversation.moves


def measure(server: Server, round_trip_ms: float, moves: int) -> Result:
    """Talk with the server, then ask it what it heard."""
    ordinary, after, moved = asyncio.run(converse(server.url, moves))
    times = Counter(number for _ in range(moved + 1) for number in server.heard())
    return Result(
        turns=TURNS,
        round_trip_ms=round_trip_ms,
        moves=moved,
        frames=len(times),
        lost=max(times) - min(times) + 1 - len(times),
        twice=sum(count > 1 for count in times.values()),
        ordinary_ms=median(ordinary),
        after_a_move_ms=median(after),
    )


HEADINGS = ("moves", "round trip", "frames", "lost", "twice", "ordinary", "after a move", "extra")


def table(results: list[Result]) -> str:
    """What was measured, in columns."""
    rows = [HEADINGS]
    for each in results:
        rows.append(
            (
                str(each.moves),
                f"{each.round_trip_ms:g} ms",
                str(each.frames),
                str(each.lost),
                str(each.twice),
                f"{each.ordinary_ms:.1f} ms",
                f"{each.after_a_move_ms:.1f} ms",
                f"{each.extra_ms:+.1f} ms",
            )
        )
    return columns(rows)


EXPLANATION = f"""
moves       to a second connection while the first serves, each with {TURNS} turns to restore
lost, twice of the frames that the microphone heard              target: none
extra       after a move - ordinary: from the last loud frame to the first sound of the answer,
            medians                                              target: less than {EXTRA_MS} ms
"""
