"""How the program fares at a sound card: how late, at what cost, and can it be interrupted?

Run it with ``python -m bench.audio``; it needs PulseAudio, in which it makes a sound card of its
own, and the extra ``local``, for Silero.  The program is the real one in a process of its own; the
server is the session of the built-in one, with real speech for a voice.

    latency         the program is watched from inside: from the microphone's callback to a frame's
                    arrival at the server, from a slice of an answer to the callback that plays it,
                    and from ``speech_started`` to the callback in which the speaker falls silent
    cost            processor time and memory of a conversation, with a canceller and without
    interruptions   someone speaks into an answer while the microphone hears the speaker, too

What the card itself holds back is in none of the latencies, nor is what the canceller does; both
are told beside them.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from threading import Event as Flag
from threading import Thread
from typing import Any, Self, cast
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench.common import BenchmarkError, columns, load_average
from tests.rooms import ASSISTANT_DB, TALKER_DB, noise, pcm16, spoken
from tests.virtual_card import Part, VirtualCard
from voicechat.audio.card import SoundCard
from voicechat.audio.hearing import Hearing
from voicechat.audio.portaudio import Stream
from voicechat.audio.wav import WavWriter
from voicechat.errors import VoicechatError
from voicechat.pcm import (
    BYTES_PER_MS,
    BYTES_PER_SAMPLE,
    FRAME_BYTES,
    FRAME_MS,
    FRAME_SAMPLES,
    SAMPLE_RATE,
)
from voicechat.realtime import events as wire
from voicechat.realtime.events import CLIENT_EVENTS, Event, decode, encode
from voicechat.server import contract
from voicechat.server.contract import HOP_MS
from voicechat.server.engines.activity import VoiceActivity, detector
from voicechat.server.engines.table import BY_NAME
from voicechat.server.session import ServerSession
from voicechat.sound import EchoMode

SECTIONS = ("latency", "cost", "interruptions")
MODES: tuple[EchoMode, ...] = ("cancel", "off")

OWN_MS = 3.0
"""What the program itself may take on the way from the card to the server, and back: the median."""
FADE_MS = 5
CPU_SECONDS, PEAK_MB = 2.0, 90.0
"""Processor time a minute with a canceller; memory at most."""
SURE_DB, SURE_SHARE, SOON_MS = -12, 0.9, 700
"""An echo so weak is interrupted so often, and so soon."""
LEVELS_DB = (-12, -6, 0)
ECHO_MS = 60
"""Of the way from speaker to microphone, without what the card holds back."""

AHEAD = 10.0
"""Seconds by which the server is ahead of a listener, who may interrupt it."""
AFTER = 0.5
"""Seconds after an interruption in which it may still be noticed."""
CYCLE, ANSWER = 10.0, 5.0
"""Seconds from one question to the next, and of the answer."""
PATIENCE = 20.0
READERS = ("austen_0870", "austen_0890", "austen_0920", "austen_0880", "austen_0930")
INTERRUPTIONS = ("cards_001", "cards_002", "cards_003", "cards_004")
QUESTIONS = ("hb_02", "hb_11", "hb_03", "hb_10")

Samples = NDArray[np.int16]


# Sound ------------------------------------------------------------------------------------------


def reading(seconds: float, begin: int = 0) -> Samples:
    """Someone reads and never pauses; no sample is 0, so that silence is something else.

    Args:
        seconds: How much.
        begin: Sample with which to begin, so that no two are alike.
    """
    speech = np.concatenate([pcm16(spoken(name, ASSISTANT_DB)) for name in READERS])
    speech[speech == 0] = 1
    return np.resize(np.roll(speech, -begin), round(seconds * SAMPLE_RATE))


def save(path: Path, samples: Samples) -> Path:
    """Write a sound file."""
    with path.open("wb", buffering=0) as file:
        writer = WavWriter(file)
        writer.write(samples.tobytes())
        writer.finish()
    return path


class Tape:
    """What goes through a part of the card, and when."""

    def __init__(self, card: VirtualCard, part: Part) -> None:
        self._recording = card.record(part)
        self._begun = deque[float](maxlen=200)

    @property
    def end(self) -> int:
        """Samples so far.  To look at it often tells when each of them was."""
        end = len(self._recording.pcm) // BYTES_PER_SAMPLE
        self._begun.append(time.monotonic() - end / SAMPLE_RATE)
        return end

    def time(self, place: int) -> float:
        """When this sample passed, in monotonic seconds: as early as was ever seen lately."""
        return min(self._begun) + place / SAMPLE_RATE

    def since(self, place: int) -> Samples:
        """What came from this sample on."""
        end = len(self._recording.pcm) // BYTES_PER_SAMPLE
        pcm = bytes(self._recording.pcm[place * BYTES_PER_SAMPLE : end * BYTES_PER_SAMPLE])
        return np.frombuffer(pcm, "<i2")

    def is_sounding(self, seconds: float = 0.1) -> bool:
        """There was something in the last so many seconds."""
        return bool(self.since(self.end - round(seconds * SAMPLE_RATE)).any())

    def stop(self) -> Samples:
        """End it; return all of it."""
        pcm = self._recording.stop()
        return np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2")


# The server -------------------------------------------------------------------------------------


class Assistant:
    """A server for one client: the built-in one's session, Silero, and a voice that is read.

    Args:
        sentences: What it answers to each turn, counted from 0, sentence by sentence.
        ears: Makes what hears the client.
    """

    def __init__(
        self,
        sentences: Callable[[int], Iterable[Samples]],
        ears: Callable[[], VoiceActivity] = detector,
    ) -> None:
        self.url = ""
        self.said: list[tuple[float, Event]] = []
        """What it said, and when, in monotonic seconds; of an answer's sound, the first slice."""
        self.heard: list[tuple[float, Event]] = []
        """What the client said, but for sound."""
        self.frames: list[tuple[float, int]] = []
        """When each frame of sound came, and its checksum."""
        self.sounds: dict[str, bytearray] = {}
        """Each answer's sound, by item."""
        self.lag = 0.0
        """Seconds that everything takes it: the client's blocks are not to be a clock for it."""
        self._sentences = sentences
        self._ears = ears
        self._turns = count()

    def times(self, kind: type[Event]) -> list[float]:
        """When it said such things."""
        return [at for at, event in list(self.said) if isinstance(event, kind)]

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serve on this machine, on a thread."""
        loop = asyncio.new_event_loop()
        ready, stop = Flag(), asyncio.Event()

        async def run() -> None:
            async with serve(
                self._meet, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=0.5
            ) as server:
                port = next(iter(server.sockets)).getsockname()[1]
                self.url = f"ws://127.0.0.1:{port}/v1/realtime"
                ready.set()
                await stop.wait()

        thread = Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
        thread.start()
        ready.wait(PATIENCE)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(PATIENCE)
            loop.close()

    async def _meet(self, websocket: ServerConnection) -> None:
        inbox: asyncio.Queue[contract.Input | None] = asyncio.Queue()
        loop, answers = asyncio.get_running_loop(), dict[str, asyncio.Task[None]]()
        session = ServerSession(loop.time(), name="bench", model="bench")
        ears = self._ears()

        async def read() -> None:
            with suppress(ConnectionClosed):
                async for message in websocket:
                    at = time.monotonic()
                    event = decode(message, CLIENT_EVENTS)
                    self._note(at, event)
                    inbox.put_nowait(contract.Received(event))
            inbox.put_nowait(None)

        async def answer(response_id: str) -> None:
            await asyncio.sleep(self.lag)
            due = loop.time() - AHEAD
            for sentence in self._sentences(next(self._turns)):
                sound = sentence.tobytes()
                inbox.put_nowait(contract.SentenceReady(response_id, "And so on.", sound))
                due += len(sentence) / SAMPLE_RATE
                await asyncio.sleep(due - loop.time())
            inbox.put_nowait(contract.AnswerEnded(response_id))

        async def perform(effect: contract.Effect) -> None:
            match effect:
                case contract.Say(event):
                    self._say(event)
                    await websocket.send(encode(event))
                case contract.Listen(pcm):
                    if voiced := ears.hear(pcm):
                        heard = contract.VoiceHeard(tuple(voiced))
                        loop.call_later(self.lag, inbox.put_nowait, heard)
                case contract.Transcribe(item_id, take):
                    inbox.put_nowait(contract.Transcribed(item_id, take, "What comes next?"))
                case contract.Generate(response_id) | contract.Utter(response_id):
                    answers[response_id] = tasks.create_task(answer(response_id))
                case contract.Stop(response_id):
                    answers[response_id].cancel()
                case contract.Close():
                    await websocket.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            with suppress(ConnectionClosed):
                effects = session.start()
                while True:
                    for effect in effects:
                        await perform(effect)
                    if (happened := await inbox.get()) is None:
                        break
                    effects = session.handle(happened, loop.time())
            for task in answers.values():
                task.cancel()

    def _note(self, at: float, event: Event) -> None:
        if isinstance(event, wire.InputAudioBufferAppend):
            starts = range(0, len(event.audio), FRAME_BYTES)
            frames = (event.audio[start : start + FRAME_BYTES] for start in starts)
            self.frames += [(at, zlib.crc32(frame)) for frame in frames]
        else:
            self.heard.append((at, event))

    def _say(self, event: Event) -> None:
        is_first = True
        if isinstance(event, wire.ResponseOutputAudioDelta):
            is_first = event.item_id not in self.sounds
            self.sounds.setdefault(event.item_id, bytearray()).extend(event.delta)
        if is_first:
            self.said.append((time.monotonic(), event))


class Prompted:
    """Ears that hear what they are told to hear."""

    def __init__(self) -> None:
        self.is_voice = False
        self._bytes = 0

    def hear(self, pcm: bytes) -> list[float]:
        """As told, for the hops that this sound completes."""
        hops, self._bytes = divmod(self._bytes + len(pcm), HOP_MS * BYTES_PER_MS)
        return [float(self.is_voice)] * hops


# The program ------------------------------------------------------------------------------------


class Program:
    """A conversation at the card, as a process of its own.

    Args:
        card: Where it hears and is heard.
        url: Of the server.
        echo: As the user chose it.
        notes: Watch it from inside, and leave the `Notes` here.
    """

    def __init__(
        self, card: VirtualCard, url: str, echo: EchoMode, notes: Path | None = None
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="voicechat-bench-")
        self._errors = Path(self._directory.name) / "errors"
        own = ("VOICECHAT_", "OPENAI_")
        environment = {name: each for name, each in card.env.items() if not name.startswith(own)}
        way = ["-m", "voicechat"]
        if notes is not None:
            way = ["-c", f"from bench.audio import watch; watch({str(notes)!r})"]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *way, "talk", "--url", url, "--echo", echo],
                env=environment | {"VOICECHAT_HOME": self._directory.name},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        self._proc = Path("/proc") / str(self._process.pid)

    @property
    def cpu_seconds(self) -> float:
        """Of all its threads, so far."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, kind: str) -> float:
        """``VmRSS`` is what it has now, ``VmHWM`` what it ever had."""
        return self._status(kind) / 1024

    @property
    def threads(self) -> int:
        """How many there are."""
        return self._status("Threads")

    @property
    def files(self) -> int:
        """How many file handles it has open."""
        return len(list((self._proc / "fd").iterdir()))

    def _status(self, name: str) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return self._errors.read_text(errors="replace")

    def until(self, is_so: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait until something is so.

        Raises:
            BenchmarkError: It is not, or the program has died.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            if self._process.poll() is not None:
                raise BenchmarkError(f"the program has died: {self.said}")
            if time.monotonic() > deadline:
                raise BenchmarkError(f"waited in vain until {what}: {self.said}")
            time.sleep(0.005)

    def hang_up(self) -> None:
        """Press Ctrl-C, and wait until it is gone."""
        self._process.send_signal(signal.SIGINT)
        if self._process.wait(PATIENCE) or "Traceback" in self.said:
            raise BenchmarkError(f"the program failed: {self.said}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()


@contextmanager
def conversation(
    card: VirtualCard, assistant: Assistant, echo: EchoMode, notes: Path | None = None
) -> Iterator[Program]:
    """The program, in a conversation with this assistant, and heard by it."""
    with assistant.running(), Program(card, assistant.url, echo, notes) as program:
        program.until(lambda: len(assistant.frames) > 10, "sound came")
        yield program


# Latency ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Notes:
    """What was seen inside of the program; times are in monotonic seconds."""

    captured: list[tuple[float, int]]
    """When the microphone's callback came, and the checksum of the frame that it became."""
    rendered: list[tuple[float, int, int]]
    """When the speaker's callback came, and its first sample that sounds, and behind the last."""
    queued: list[float]
    stopped: list[float]
    """When sound was queued, and when it was told to stop."""
    latencies: dict[str, float]
    """Seconds that the card holds back, as PortAudio tells it."""


class WatchedCard(SoundCard):
    """The sound card, with its callbacks noted."""

    notes = Notes([], [], [], [], {})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        play, stop = self.play, self.stop

        def play_and_note(item_id: str, pcm: bytes) -> None:
            self.notes.queued.append(time.monotonic())
            play(item_id, pcm)

        def stop_and_note() -> tuple[tuple[str, int], ...]:
            self.notes.stopped.append(time.monotonic())
            return stop()

        self.play, self.stop = play_and_note, stop_and_note

    def _capture(self, stream: Stream, block: Samples) -> None:
        WatchedHearing.captured[block.tobytes()] = time.monotonic()
        self.notes.latencies["microphone"] = stream.latency
        super()._capture(stream, block)

    def _render(self, stream: Stream, block: Samples) -> None:
        at = time.monotonic()
        super()._render(stream, block)
        self.notes.latencies["speaker"] = stream.latency
        sounding = np.flatnonzero(block)
        first, end = (sounding[0], sounding[-1] + 1) if len(sounding) else (0, 0)
        self.notes.rendered.append((at, int(first), int(end)))

    def _begin_hearing(self) -> Hearing:
        return cast(Hearing, WatchedHearing(super()._begin_hearing()))


class WatchedHearing:
    """Tells which frame a block became, at 24 kHz.  No two blocks are alike: all have noise."""

    captured: dict[bytes, float] = {}  # noqa: RUF012  # one for the process

    def __init__(self, hearing: Hearing) -> None:
        self._hearing = hearing

    def hear(self, samples: Samples) -> list[Samples]:
        """What the real one makes of it: a block or several, as many frames."""
        frames = self._hearing.hear(samples)
        for frame, start in zip(frames, range(0, len(samples), FRAME_SAMPLES), strict=False):
            block = samples[start : start + FRAME_SAMPLES].tobytes()
            if (at := self.captured.pop(block, None)) is not None:
                WatchedCard.notes.captured.append((at, zlib.crc32(frame.tobytes())))
        return frames

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hearing, name)


def watch(path: str) -> None:
    """Be the program, and leave notes when it ends."""
    from voicechat.__main__ import main as run

    try:
        with patch("voicechat.audio.card.SoundCard", WatchedCard):
            run()
    finally:
        Path(path).write_text(json.dumps(asdict(WatchedCard.notes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long the program takes, (median, 95th percentile) in ms."""

    echo: EchoMode
    frames: int
    answers: int
    capture_ms: tuple[float, float]
    """From the microphone's callback to the server."""
    queue_ms: tuple[float, float]
    start_ms: tuple[float, float]
    """From the server's first slice of an answer to the queue, and to the speaker's callback."""
    halt_ms: tuple[float, float]
    stop_ms: tuple[float, float]
    """From the server's ``speech_started`` to the queue, and to silence in the callback."""
    card_block_ms: float
    """The card takes so much at once, by several callbacks."""
    microphone_ms: float
    speaker_ms: float
    """What the card holds back, as PortAudio tells it."""
    canceller_ms: float
    """What echo cancellation holds back."""

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        at = f"--echo {self.echo}"
        missed = []
        for what, (middle, _) in (
            ("a frame is at the server", self.capture_ms),
            ("an answer is queued", self.queue_ms),
            ("the queue is told to stop", self.halt_ms),
        ):
            if middle >= OWN_MS:
                missed.append(f"{at}: {what} after {middle:.1f} ms")
        longest = self.card_block_ms + OWN_MS
        if self.start_ms[1] > longest:
            missed.append(f"{at}: an answer is played after {self.start_ms[1]:.1f} ms")
        if self.stop_ms[1] > longest + FADE_MS:
            missed.append(f"{at}: an answer is silent after {self.stop_ms[1]:.1f} ms")
        return missed


def measure_latency(card: VirtualCard, echo: EchoMode, tries: int) -> Latency:
    """Interrupt so many answers, in the middle of each, while the microphone hears speech."""
    ears, chance = Prompted(), random.Random(1)
    assistant = Assistant(lambda _: [reading(3)], ears=lambda: ears)
    with tempfile.TemporaryDirectory(prefix="voicechat-bench-") as directory:
        notes = Path(directory) / "notes.json"
        speech = reading(tries * 2 + 30)
        everything = np.clip(speech + pcm16(noise(len(speech))), -32768, 32767).astype(np.int16)
        talking = card.speak(save(Path(directory) / "speech.wav", everything), block=False)
        with conversation(card, assistant, echo, notes) as program:
            for number in range(tries + 1):
                assistant.lag = chance.uniform(0, FRAME_MS / 1000)
                ears.is_voice = True
                program.until(
                    lambda n=number: (  # type: ignore[misc]
                        len(assistant.times(wire.InputAudioBufferSpeechStarted)) > n
                    ),
                    "speech was heard",
                )
                time.sleep(0.1)
                ears.is_voice = False
                program.until(
                    lambda n=number: len(assistant.sounds) > n,  # type: ignore[misc]
                    "an answer came",
                )
                time.sleep(0.5)
            program.hang_up()
        talking.kill()
        noted = Notes(**json.loads(notes.read_text()))
    came = {checksum: at for at, checksum in assistant.frames}
    capture = [came[checksum] - at for at, checksum in noted.captured if checksum in came]
    begun, ended = turning_points(noted.rendered)
    slices = assistant.times(wire.ResponseOutputAudioDelta)
    interrupted = assistant.times(wire.InputAudioBufferSpeechStarted)[1:]
    return Latency(
        echo=echo,
        frames=len(capture),
        answers=len(slices),
        capture_ms=spread(capture),
        queue_ms=spread(delays(slices, noted.queued)),
        start_ms=spread(delays(slices, begun)),
        halt_ms=spread(delays(interrupted, noted.stopped)),
        stop_ms=spread(delays(interrupted, ended)),
        card_block_ms=card_block_ms([at for at, *_ in noted.rendered]),
        microphone_ms=noted.latencies["microphone"] * 1000,
        speaker_ms=noted.latencies["speaker"] * 1000,
        canceller_ms=held_back_ms(echo),
    )


def turning_points(rendered: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """When callbacks began to play, and when in one they fell silent."""
    begun: list[float] = []
    ended: list[float] = []
    is_sounding = False
    for at, first, end in rendered:
        if end > first and not is_sounding:
            begun.append(at)
        if is_sounding and end < FRAME_SAMPLES:
            ended.append(at + end / SAMPLE_RATE)
        is_sounding = end == FRAME_SAMPLES
    return begun, ended


def card_block_ms(callbacks: list[float]) -> float:
    """How much a card takes at once: its callbacks come in bursts."""
    gaps = np.diff(callbacks) * 1000
    return float(np.median(gaps[gaps > FRAME_MS / 4]))


def delays(causes: Iterable[float], effects: list[float]) -> list[float]:
    """From each cause to the first effect that follows it."""
    following = [(cause, bisect_left(effects, cause)) for cause in causes]
    return [effects[place] - cause for cause, place in following if place < len(effects)]


def spread(seconds: list[float]) -> tuple[float, float]:
    """Median and 95th percentile, in ms."""
    return median(seconds) * 1000, float(np.quantile(seconds, 0.95)) * 1000


def held_back_ms(echo: EchoMode) -> float:
    """By how much what someone says is later when it comes out, if there is no echo at all."""
    near, hearing = reading(10), Hearing(echo)
    silence = np.zeros(FRAME_SAMPLES, np.int16)
    heard = []
    for start in range(0, len(near), FRAME_SAMPLES):
        hearing.play(silence)
        heard += hearing.hear(near[start : start + FRAME_SAMPLES, None])
    return find(near, np.concatenate(heard)) * 1000 / SAMPLE_RATE


def find(what: Samples, where: Samples) -> int:
    """At which sample something begins in a longer or a later sound."""
    size = len(what) + len(where)
    spectrum = np.fft.rfft(where.astype(float), size) * np.conj(
        np.fft.rfft(what.astype(float), size)
    )
    return int(np.argmax(np.fft.irfft(spectrum, size)[: len(where)]))


# Cost -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a conversation took."""

    echo: EchoMode
    seconds: float
    playing: float
    """Share of the time in which answers were heard."""
    cpu_seconds: float
    """A minute."""
    peak_mb: float

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        missed = []
        if self.echo == "cancel" and self.cpu_seconds >= CPU_SECONDS:
            missed.append(f"--echo {self.echo}: {self.cpu_seconds:.2f} s of CPU a minute")
        if self.peak_mb >= PEAK_MB:
            missed.append(f"--echo {self.echo}: {self.peak_mb:.0f} MB")
        return missed


@contextmanager
def quiet_room(card: VirtualCard, directory: Path, seconds: float) -> Iterator[None]:
    """The microphone hears the noise that there is in any room."""
    humming = card.speak(
        save(directory / "noise.wav", pcm16(noise(round(seconds * SAMPLE_RATE)))), block=False
    )
    try:
        yield
    finally:
        humming.kill()


def save_speech(directory: Path, names: Iterable[str]) -> list[tuple[Path, Samples]]:
    """What someone says into the microphone, as files."""
    said = [(name, pcm16(spoken(name, TALKER_DB))) for name in names]
    return [(save(directory / f"{name}.wav", samples), samples) for name, samples in said]


def measure_cost(card: VirtualCard, echo: EchoMode, seconds: float) -> Cost:
    """Ask and be answered for so long; where echo is cancelled, there is some."""
    assistant = Assistant(lambda number: [reading(ANSWER, number * 4801)])
    tape = Tape(card, "speaker")
    with tempfile.TemporaryDirectory(prefix="voicechat-bench-") as name:
        directory = Path(name)
        questions = save_speech(directory, QUESTIONS)
        with (
            quiet_room(card, directory, seconds + 60),
            conversation(card, assistant, echo) as program,
        ):
            end_echo = card.echo(SURE_DB, ECHO_MS) if echo == "cancel" else bool
            began, cpu, place = time.monotonic(), program.cpu_seconds, tape.end
            for number in count():
                left = began + seconds - time.monotonic()
                if left <= 0:
                    break
                path, _ = questions[number % len(questions)]
                card.speak(path, block=False)
                time.sleep(min(CYCLE, left))
            took, cpu = time.monotonic() - began, program.cpu_seconds - cpu
            peak = program.memory_mb("VmHWM")
            playing = float(np.count_nonzero(tape.since(place))) / SAMPLE_RATE / took
            end_echo()
            program.hang_up()
    tape.stop()
    return Cost(echo=echo, seconds=took, playing=playing, cpu_seconds=cpu * 60 / took, peak_mb=peak)


# Interruptions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruptions:
    """What became of some, at one level of the echo.  Times are medians, in ms."""

    echo_db: float
    """Of what is played."""
    tries: int
    noticed: int
    soon: int
    """After so many, the speaker was silent soon enough."""
    noticed_ms: float | None
    silent_ms: float | None
    """From the first loud frame to the server's notice, and to the silence of the speaker."""
    alone_seconds: float
    """In which only the assistant spoke, before the first one."""
    false_alarms: int
    """Interruptions that there were none."""
    jumps: int
    """How often the way from speaker to microphone changed, which a busy sound server makes it."""

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        at = f"echo at {self.echo_db:g} dB"
        missed = []
        if self.echo_db <= SURE_DB and self.soon < SURE_SHARE * self.tries:
            missed.append(f"{at}: only {self.soon} of {self.tries} were soon enough")
        if self.echo_db <= SURE_DB and self.false_alarms:
            missed.append(f"{at}: the assistant interrupted itself {self.false_alarms} times")
        return missed


class Room:
    """An assistant that reads without an end, and someone in the same room.

    Args:
        program: In a conversation with the assistant.
        assistant: Hears by Silero.
        card: Has an echo.
    """

    def __init__(self, program: Program, assistant: Assistant, card: VirtualCard) -> None:
        self._program = program
        self._assistant = assistant
        self._card = card
        self._speaker, self._microphone = Tape(card, "speaker"), Tape(card, "microphone")

    def noticed(self) -> list[float]:
        """When the server heard someone begin to speak."""
        return self._assistant.times(wire.InputAudioBufferSpeechStarted)

    def wait_for_the_answer(self) -> None:
        """Until it is played."""
        self._program.until(lambda: self._speaker.is_sounding(0.3), "an answer was heard")

    def say(self, path: Path) -> None:
        """Speak to the assistant; return when it is said."""
        self._card.speak(path)

    def interrupt(self, path: Path, samples: Samples) -> tuple[float, float, float | None]:
        """Speak into the answer.

        Returns:
            When it began and when it ended, and when the speaker fell silent, if it did.
        """
        place, played = self._microphone.end, self._speaker.end
        speaking = self._card.speak(path, block=False)
        self._program.until(lambda: speaking.poll() is not None, "all was said")
        over = time.monotonic() + AFTER
        self._program.until(lambda: self._look() > over, "the speaker fell silent")
        begun = self._microphone.time(place + find(samples, self._microphone.since(place)))
        silent = silence_in(self._speaker.since(played))
        fell_silent = None if silent is None else self._speaker.time(played + silent)
        return begun, begun + len(samples) / SAMPLE_RATE, fell_silent

    def _look(self) -> float:
        """Both tapes must be looked at often."""
        return time.monotonic() + 0 * (self._microphone.end + self._speaker.end)

    def leave(self) -> int:
        """End the tapes; return how often the way of the echo jumped."""
        return jumps(self._speaker.stop(), self._microphone.stop())


def jumps(played: Samples, heard: Samples) -> int:
    """How often the way from one to the other changes by more than a millisecond, and stays so."""
    second, ms = SAMPLE_RATE, SAMPLE_RATE // 1000
    ways = [
        find(played[start : start + 2 * second], heard[max(0, start - second) : start + 3 * second])
        for start in range(second, min(len(played), len(heard)) - 3 * second, second)
        if np.count_nonzero(played[start : start + 2 * second]) > second
    ]
    steps = [abs(after - before) > ms for before, after in pairwise(ways)]
    return sum(not a and b and not c for a, b, c in zip(steps, steps[1:], steps[2:], strict=False))


def silence_in(samples: Samples, seconds: float = 0.2) -> int | None:
    """Where the first silence that lasts begins."""
    sounding = np.flatnonzero(samples)
    edges = np.concatenate(([-1], sounding, [len(samples)]))
    long = np.flatnonzero(np.diff(edges) > seconds * SAMPLE_RATE)
    return int(edges[long[0]]) + 1 if len(long) else None


def endless(number: int) -> Iterator[Samples]:
    """An answer that somebody must interrupt."""
    for sentence in count(number * 4801, 5 * SAMPLE_RATE):
        yield reading(5, sentence)


def measure_interruptions(
    card: VirtualCard, echo_db: float, tries: int, alone_seconds: float
) -> Interruptions:
    """Listen for a while, then interrupt so many times."""
    if not BY_NAME["silero"].is_installed:
        raise BenchmarkError("Silero is not installed; it is in the extra `local`")
    assistant, chance = Assistant(endless), random.Random(2)
    spans: list[tuple[float, float, float | None]] = []
    with tempfile.TemporaryDirectory(prefix="voicechat-bench-") as name:
        directory = Path(name)
        files = save_speech(directory, INTERRUPTIONS)
        seconds = alone_seconds + tries * 10 + 60
        with (
            quiet_room(card, directory, seconds),
            conversation(card, assistant, "cancel") as program,
        ):
            end_echo = card.echo(echo_db, ECHO_MS)
            room = Room(program, assistant, card)
            room.say(files[0][0])
            room.wait_for_the_answer()
            began = time.monotonic()
            time.sleep(alone_seconds)
            for number in range(tries):
                room.wait_for_the_answer()
                time.sleep(chance.uniform(1.5, 2.5))
                room.wait_for_the_answer()
                spans.append(room.interrupt(*files[number % len(files)]))
                time.sleep(0.5)  # in which the turn ends
            jumped = room.leave()
            end_echo()
            program.hang_up()
    noticed = [at for at in room.noticed() if at > began]
    late: list[float] = []
    silent: list[float] = []
    for begun, ended, fell_silent in spans:
        hit = next((at for at in noticed if begun <= at <= ended + AFTER), None)
        if hit is not None:
            late.append((hit - begun) * 1000)
        if hit is not None and fell_silent is not None and fell_silent > begun:
            silent.append((fell_silent - begun) * 1000)
    return Interruptions(
        echo_db=echo_db,
        tries=tries,
        noticed=len(late),
        soon=sum(ms <= SOON_MS for ms in silent),
        noticed_ms=median(late) if late else None,
        silent_ms=median(silent) if silent else None,
        alone_seconds=alone_seconds,
        false_alarms=sum(not any(a <= at <= b + AFTER for a, b, _ in spans) for at in noticed),
        jumps=jumped,
    )


# Telling ----------------------------------------------------------------------------------------


def latency_table(results: list[Latency]) -> str:
    """What was measured, in columns."""
    rows: list[tuple[str, ...]] = [
        ("echo", "to server", "to queue", "to play", "to halt", "to silence", "card", "canceller")
    ]
    for each in results:
        pairs = (each.capture_ms, each.queue_ms, each.start_ms, each.halt_ms, each.stop_ms)
        card = (each.microphone_ms, each.speaker_ms, each.card_block_ms)
        rows.append(
            (
                each.echo,
                *(f"{middle:.1f} / {late:.1f}" for middle, late in pairs),
                " + ".join(f"{ms:.0f}" for ms in card[:2]) + f" by {card[2]:.0f}",
                f"{each.canceller_ms:.1f}",
            )
        )
    return columns(rows)


def cost_table(results: list[Cost]) -> str:
    """What was measured, in columns."""
    rows = [("echo", "seconds", "playing", "CPU a minute", "memory")]
    for each in results:
        rows.append(
            (
                each.echo,
                f"{each.seconds:.0f}",
                f"{each.playing:.0%}",
                f"{each.cpu_seconds:.2f} s",
                f"{each.peak_mb:.1f} MB",
            )
        )
    return columns(rows)


def interruptions_table(results: list[Interruptions]) -> str:
    """What was measured, in columns."""
    rows = [("echo", "noticed", "soon", "notice", "silence", "false alarms", "alone", "jumps")]
    for each in results:
        times = (each.noticed_ms, each.silent_ms)
        notice, silence = ("none" if ms is None else f"{ms:.0f} ms" for ms in times)
        rows.append(
            (
                f"{each.echo_db:g} dB",
                f"{each.noticed}/{each.tries}",
                f"{each.soon}/{each.tries}",
                notice,
                silence,
                str(each.false_alarms),
                f"{each.alone_seconds:.0f} s",
                str(each.jumps),
            )
        )
    return columns(rows)


EXPLANATIONS = {
    "latency": f"""
All in ms, median / 95th percentile.
to server   from the microphone's callback to the server
to queue    from an answer's first slice, longer than the start-up buffer, to the queue
to halt     from speech_started to the queue                  target for these: median < {OWN_MS:g}
to play, to silence   the same as far as the speaker's callback: what it waits for the card, and
            the fade ({FADE_MS})    target: 95 of 100 in what the card takes at once, and {OWN_MS:g}
card        what it holds back, microphone + speaker, and how much it takes at once
canceller   what echo cancellation holds back, by cross-correlation; like that of the card, this is
            in none of the other numbers
""",
    "cost": f"""
playing     share of the time in which an answer was heard
CPU         of the whole process, start-up left out         target: less than {CPU_SECONDS:g} s \
with cancel
memory      the most it ever had                            target: less than {PEAK_MB:g} MB
""",
    "interruptions": f"""
echo        level at the microphone, of what is played; the voice is at {TALKER_DB} dBFS there, and
            the assistant at {ASSISTANT_DB} dBFS at the speaker
noticed     while it was spoken, or {AFTER} s later
soon        the speaker was silent in {SOON_MS} ms   target: {SURE_SHARE:.0%} at {SURE_DB} dB
notice, silence   from its first loud frame to speech_started, and to silence, medians
false alarms      in answers that nobody interrupted        target: none at {SURE_DB} dB
jumps       of the way from speaker to microphone: the sound server was too busy, and the canceller
            must begin anew
""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.audio", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--answers", type=int, default=30, help="that are interrupted for latency")
    parser.add_argument("--seconds", type=float, default=60, help="of conversation for the cost")
    parser.add_argument("--tries", type=int, default=20, help="to interrupt at each level")
    parser.add_argument("--alone", type=float, default=60, help="seconds without interruptions")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS_DB, metavar="DB")
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args(arguments)
    latencies: list[Latency] = []
    costs: list[Cost] = []
    interruptions: list[Interruptions] = []
    try:
        with VirtualCard() as card:
            for echo in MODES:
                if "latency" in options.only:
                    say(f"latency with --echo {echo}")
                    latencies.append(measure_latency(card, echo, options.answers))
                if "cost" in options.only:
                    say(f"cost with --echo {echo}")
                    costs.append(measure_cost(card, echo, options.seconds))
            for db in options.levels if "interruptions" in options.only else ():
                say(f"{options.tries} interruptions at {db:g} dB")
                interruptions.append(measure_interruptions(card, db, options.tries, options.alone))
    except VoicechatError as error:
        print(f"bench.audio: {error.message}", file=sys.stderr)
        return 1
    results: list[Latency | Cost | Interruptions] = [*latencies, *costs, *interruptions]
    missed = [words for each in results for words in each.missed]
    if options.json:
        told = {
            "latency": [asdict(each) for each in latencies],
            "cost": [asdict(each) for each in costs],
            "interruptions": [asdict(each) for each in interruptions],
            "load_average": load_average(),
            "missed": missed,
        }
        print(json.dumps(told, indent=2))
        return 1 if missed else 0
    for name, table in (
        ("latency", latency_table(latencies)),
        ("cost", cost_table(costs)),
        ("interruptions", interruptions_table(interruptions)),
    ):
        if name in options.only:
            print(table, EXPLANATIONS[name], sep="\n")
    print("load average:", " ".join(f"{load:.2f}" for load in load_average()))
    print("\n".join(f"MISSED: {words}" for words in missed) or "All targets are met.")
    return 1 if missed else 0


def say(what: str) -> None:
    """Tell what is going on."""
    print(f"{what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
