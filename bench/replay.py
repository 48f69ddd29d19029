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

Two more measurements of the same replay follow: what a listener notices of a move to a fresh
connection (`bench.rotation`), and how soon a long session is gone on with (`bench.resume`).
"""

import argparse
import asyncio
import gc
import io
import json
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from statistics import median

from websockets.asyncio.client import ClientConnection, connect

from bench import resume, rotation
from bench.common import (
    MANY_TOKENS,
    BenchmarkError,
    NoSound,
    columns,
    conversation_of,
    load_average,
)
from bench.server import Server, running
from voicechat.display import Display
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.conversation import Conversation
from voicechat.realtime.inputs import Input, QuitRequested, Received
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import OPENAI, ga_session
from voicechat.realtime.replay import counted, plan
from voicechat.talk import Talk
from voicechat.transcript import Transcript

OWN_MS_A_TURN = 0.25
TIMES_BARE = 1.4
TIMES_FASTER_THAN_SINGLE = 100
SINGLE_TURNS, SINGLE_ROUND_TRIP_MS = 500, 80  # where that holds: elsewhere the distance is no issue
LEAST_SECONDS = 1.0  # of repeating: of runs that take 1 ms, it takes hundreds to tell anything
RESUMES = 11
LONGEST_SINGLE_MS = 60_000  # of waiting one at a time; it shows nothing new
POLICY = Policy(replay_tokens=MANY_TOKENS)


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured for so many turns at one distance.  Times are medians, in ms."""

    turns: int
    round_trip_ms: float
    voicechat_ms: float
    bare_ms: float
    single_ms: float | None
    """None where that was not waited for."""
    server_ms: float
    """Processor time of the server while voicechat restored."""
    times_bare: float
    """How much longer voicechat takes: the median over pairs of runs, one right after the other,
    because the machine is faster at one time than at another."""

    @property
    def own_ms_a_turn(self) -> float:
        """What remains when the distance and the server's own time are taken off."""
        own = self.voicechat_ms - 2 * self.round_trip_ms - self.server_ms
        return max(0.0, own) / self.turns

    @property
    def times_faster_than_single(self) -> float | None:
        """How much longer the client takes that waits for each acknowledgement."""
        return self.single_ms / self.voicechat_ms if self.single_ms is not None else None

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
        times = self.times_faster_than_single
        if is_far and times is not None and times < TIMES_FASTER_THAN_SINGLE:
            missed.append(f"{at}: {times:.0f} times faster than single")
        return missed


# The three clients ------------------------------------------------------------------------------
# Each restores a transcript and returns how many seconds it took.


class Finish(Display):
    """Hangs up when told how many turns are restored: that is said as soon as it is live."""

    at = 0.0
    expected = 0
    hang_up: Callable[[Input], object]

    def notice(self, text: str) -> None:
        """Take the time, and see that nothing is missing."""
        if " restored" in text:
            self.at = time.perf_counter()
            is_complete = text == f"{counted(self.expected)} restored."
            self.hang_up(QuitRequested(None if is_complete else BenchmarkError(text)))


async def restore_with_voicechat(url: str, transcript: Transcript) -> float:
    """The program itself, but for the sound card and the disk, which have no part in this."""
    finish = Finish(io.StringIO(), io.StringIO(), transcript)
    conversation = Conversation(transcript, policy=POLICY)
    talk = Talk(conversation, sound=NoSound(), log=None, display=finish, url=url)
    finish.expected, finish.hang_up = len(transcript.turns), talk.post
    started, real_post = 0.0, talk.post

    def post(item: Input) -> None:
        nonlocal started
        if isinstance(item, Received):  # session.created; from here on nothing is in the way
            started = time.perf_counter()
            talk.post = real_post  # type: ignore[method-assign]
        real_post(item)

    talk.post = post  # type: ignore[method-assign, assignment]
    if (error := await talk.run()) is not None:
        raise error
    return finish.at - started


async def restore_bare(url: str, transcript: Transcript) -> float:
    """Encode and send everything, then decode and count what comes back; nothing more."""
    update, *creates = frames(transcript)
    async with connect(url, compression=None, max_size=None, proxy=None) as websocket:
        await until(websocket, "session.created")
        started = time.perf_counter()
        await websocket.send(json.dumps(update, separators=(",", ":")))
        for create in creates:
            await websocket.send(json.dumps(create, separators=(",", ":")))
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
        await websocket.send(json.dumps(update, separators=(",", ":")))
        await until(websocket, "session.updated")
        for create in creates:
            await websocket.send(json.dumps(create, separators=(",", ":")))
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
        "session": ga_session(OPENAI, Configuration()),
        "event_id": "configure",
    }
    return [update] + [
        {"type": create.type, "item": create.item, "event_id": create.event_id}
        for create in (entry.event() for entry in plan(transcript, MANY_TOKENS).entries)
    ]


# Measuring --------------------------------------------------------------------------------------


Client = Callable[[str, Transcript], Coroutine[None, None, float]]


def timed(client: Client, server: Server, transcript: Transcript) -> tuple[float, float]:
    """One run: the ms it took, and those that the server itself needed for it."""
    gc.collect()  # each pays for its own litter only

    took = asyncio.run(client(server.url, transcript))
    return took * 1000, server.took() * 1000


def measure(turns: int, server: Server, round_trip_ms: float, repetitions: int) -> Result:
    """Let the three restore the same turns, by turns, so that noise strikes all alike."""
    transcript = conversation_of(turns)
    timed(restore_with_voicechat, server, transcript)  # warm up
    timed(restore_bare, server, transcript)
    ours: list[tuple[float, float]] = []
    bare: list[float] = []
    started = time.perf_counter()
    for number in count():
        if number >= repetitions and time.perf_counter() - started >= LEAST_SECONDS:
            break
        if number % 2:
            ours.append(timed(restore_with_voicechat, server, transcript))
        bare.append(timed(restore_bare, server, transcript)[0])
        if not number % 2:
            ours.append(timed(restore_with_voicechat, server, transcript))
    single = None
    if turns * round_trip_ms <= LONGEST_SINGLE_MS:
        single, _ = timed(restore_one_at_a_time, server, transcript)  # once: it may take 40 s
    return Result(
        turns=turns,
        round_trip_ms=round_trip_ms,
        voicechat_ms=median(took for took, _ in ours),
        bare_ms=median(bare),
        single_ms=single,
        server_ms=median(server_took for _, server_took in ours),
        times_bare=median(
            took / bare_took for (took, _), bare_took in zip(ours, bare, strict=True)
        ),
    )


# Telling ----------------------------------------------------------------------------------------

HEADINGS = ("turns", "round trip", "voicechat", "server", "own/turn", "bare", "ratio", "single", "")


def table(results: list[Result]) -> str:
    """What was measured, in columns."""
    rows = [HEADINGS]
    for each in results:
        times = each.times_faster_than_single
        rows.append(
            (
                str(each.turns),
                f"{each.round_trip_ms:g} ms",
                f"{each.voicechat_ms:.2f} ms",
                f"{each.server_ms:.2f} ms",
                f"{each.own_ms_a_turn:.3f} ms",
                f"{each.bare_ms:.2f} ms",
                f"{each.times_bare:.2f}",
                f"{each.single_ms:.0f} ms" if each.single_ms is not None else "not run",
                f"{times:.1f} times faster" if times is not None else "",
            )
        )
    return columns(rows)


EXPLANATION = f"""
voicechat   from session.created to the last acknowledgement, the median of several runs
server      processor time of the server in that time
own/turn    voicechat - 2 round trips - server, for one turn     target: at most {OWN_MS_A_TURN} ms
bare, ratio the loop around websockets; median of voicechat/bare target: at most {TIMES_BARE}
single      one item, one acknowledgement, run once              target: {SINGLE_TURNS} turns at \
{SINGLE_ROUND_TRIP_MS} ms at least {TIMES_FASTER_THAN_SINGLE} times faster
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--turns", type=int, nargs="+", default=[10, 100, 500, 2000])
    parser.add_argument("--round-trips", type=float, nargs="+", default=[0, 80], metavar="MS")
    parser.add_argument("--repetitions", type=int, default=51, help="at least, and for a second")
    parser.add_argument("--moves", type=int, default=10, help="to another connection; 0: none")
    parser.add_argument("--saved-turns", type=int, default=20_000, help="0: nothing is resumed")
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    moves: list[rotation.Result] = []
    resumed: list[resume.Result] = []
    for round_trip_ms in options.round_trips:
        with running(round_trip_ms) as server:
            for turns in options.turns:
                _say(f"{turns} turns at {round_trip_ms:g} ms")
                results.append(measure(turns, server, round_trip_ms, options.repetitions))
        if options.moves:
            with running(round_trip_ms) as server:
                _say(f"{options.moves} moves at {round_trip_ms:g} ms")
                moves.append(rotation.measure(server, round_trip_ms, options.moves))
    if options.saved_turns:
        with running(0) as server:
            _say(f"a session of {options.saved_turns} turns")
            repetitions = min(RESUMES, options.repetitions)
            resumed.append(resume.measure(server, options.saved_turns, repetitions))
    missed = [words for result in results for words in result.missed]
    missed += [words for move in moves for words in move.missed]
    missed += [words for each in resumed for words in each.missed]
    if options.json:
        print(json.dumps(described(results, moves, resumed, missed), indent=2))
    else:
        print(table(results), EXPLANATION, sep="\n")
        if moves:
            print(rotation.table(moves), rotation.EXPLANATION, sep="\n")
        if resumed:
            print(resume.table(resumed), resume.EXPLANATION, sep="\n")
        print("load average:", " ".join(f"{load:.2f}" for load in load_average()))
        print("\n".join(f"MISSED: {words}" for words in missed) or "All targets are met.")
    return 1 if missed else 0


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


def described(
    results: list[Result],
    moves: list[rotation.Result],
    resumed: list[resume.Result],
    missed: list[str],
) -> dict[str, object]:
    """The same for scripts."""
    return {
        "results": [
            asdict(each)
            | {
                "own_ms_a_turn": each.own_ms_a_turn,
                "times_faster_than_single": each.times_faster_than_single,
            }
            for each in results
        ],
        "rotation": [asdict(each) | {"extra_ms": each.extra_ms} for each in moves],
        "resume": [asdict(each) | {"total_ms": each.total_ms} for each in resumed],
        "load_average": load_average(),
        "missed": missed,
    }


if __name__ == "__main__":
    sys.exit(main())
