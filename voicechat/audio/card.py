"""The room's door to the sound card of this computer, which may vanish and come back at any time.

Two streams, because one duplex stream across two devices inserts blocks of silence.  PortAudio's
threads only copy: what the microphone heard and what the speaker took go into one queue, in the
order in which they happened, and the event loop takes them out.  So the echo canceller always sees
both sides of the same moment, however late the loop is.

PortAudio is asked to open and close on threads of their own, because some sound systems never
answer; a timer on the loop looks after the streams, and stands in for those that are gone.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread

import numpy as np

from voicechat.audio import portaudio, probe
from voicechat.audio.hearing import Hearing
from voicechat.audio.playback import PlaybackBuffer, Samples
from voicechat.audio.portaudio import WORDS, Kind, Latency, OnBlock, Opened, Stream, close_streams
from voicechat.errors import DeviceError
from voicechat.pcm import FRAME_BYTES, FRAME_MS, SAMPLE_RATE
from voicechat.sound import EchoMode, Listener

START_UP_MS = 60
FADE_MS = 5
PATIENCE = 0.5
"""Seconds that closing the streams may take at the end."""
OPENING = 10.0
"""Seconds that PortAudio may take to open them, before it is taken to be stuck."""
TICK = 0.1
RETRY = 1.0
"""Seconds between two attempts to get a device back."""
HELD = 3.0
"""Seconds for which an answer waits for its speaker; then it goes on in writing."""
LONGEST_QUEUE = 500
"""Blocks of both sides, five seconds, that may wait for the loop."""
AT_ONCE = 2
"""Blocks of the microphone that are cleaned together: many cards give two, and it is cheaper."""
SILENCE = bytes(FRAME_BYTES)
SILENT_MS = 10_000
MANY_SLIPS = 5
MUTED = {
    "darwin": "muted, or this terminal may not use it: see System Settings, Privacy & Security, "
    "Microphone",
    "win32": "muted, or switched off in Settings, Privacy, Microphone",
    "linux": "muted in the system's sound settings, or another device may be the right one: "
    "`voicechat devices --test`",
}
ECHO = {
    "cancel": "echo is cancelled",
    "half-duplex": "the microphone is closed while an answer plays (--echo half-duplex)",
    "off": "echo is not cancelled, use headphones (--echo off)",
}

logger = logging.getLogger("voicechat")


@dataclass(slots=True)
class _Side:
    """The microphone or the speaker, and how it fares."""

    kind: Kind
    wanted: str | None
    stream: Stream | None = None
    trial: Stream | None = None
    """Opened again, and to be trusted as soon as it runs."""
    lost_at: float | None = None
    """Since when nothing went through it."""
    is_told: bool = False
    stood_in: float = 0.0
    """Until when (loop time) silence was heard in its place."""


class SoundCard:
    """Microphone and speaker of this computer, for 24 kHz mono on each side.

    Args:
        microphone: Number, name or part of the name of a device; None for the default one.
        speaker: Likewise.
        latency: Asked of PortAudio, for each side.
        echo: What is done against the assistant hearing itself.

    Raises:
        DeviceError: PortAudio is not installed, or echo cannot be cancelled here.
    """

    def __init__(
        self,
        *,
        microphone: str | None = None,
        speaker: str | None = None,
        latency: Latency = 0.1,
        echo: EchoMode = "auto",
    ) -> None:
        portaudio.load()
        self._latency = latency
        self._echo = echo
        self._playback = PlaybackBuffer(START_UP_MS, FADE_MS)
        self._microphone = _Side("input", microphone)
        self._speaker = _Side("output", speaker)
        self._sides = (self._microphone, self._speaker)
        self._blocks: deque[tuple[Stream, bytes]] = deque()
        self._has_news = False
        self._dropped_ms = 0
        self._stale: list[Stream] = []
        """Streams to be closed at the next opportunity."""
        self._slips = 0
        self._work: Thread | None = None
        """PortAudio is busy opening and closing."""
        self._closing: Thread | None = None
        self._busy_since: float | None = None
        self._is_stuck = False
        self._next_try = 0.0
        self._is_told_silent = False
        self._is_leaving = False
        self._listener: Listener
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self.play = self._playback.push
        self.end = self._playback.end
        self.stop = self._playback.stop
        self._hearing = self._begin_hearing()

    @property
    def echo(self) -> EchoMode:
        """What is done about echo at this moment."""
        return self._hearing.echo

    @asynccontextmanager
    async def open(self, listener: Listener) -> AsyncIterator[None]:
        """Hear and be heard until the block is left, which never takes longer than `PATIENCE`.

        Raises:
            DeviceError: A device is missing or cannot be used.
        """
        self._listener, self._loop = listener, asyncio.get_running_loop()
        self._is_leaving = False
        for side in self._sides:
            side.lost_at = None
        try:
            await self._open_first()
            listener.noticed(self._describe())
            self._look_after()
            yield
        finally:
            self._is_leaving = True
            if self._timer is not None:
                self._timer.cancel()
            self._leave()

    async def _open_first(self) -> None:
        opened: asyncio.Future[Opened] = self._loop.create_future()

        def take(streams: Opened) -> None:
            if not opened.done():
                opened.set_result(streams)

        self._on_a_thread(lambda: self._open_streams(self._sides, or_default=False), take)
        try:
            async with asyncio.timeout(OPENING):
                streams = await opened
        except TimeoutError as error:
            raise DeviceError(
                f"the sound system did not answer within {OPENING:.0f} s",
                remedy=f"Start it again, {portaudio.WITHOUT}.",
            ) from error
        self._rely_on(stream for stream in streams if isinstance(stream, Stream))
        for problem in streams:
            if isinstance(problem, DeviceError):
                raise problem

    def renew(self) -> None:
        """The machine has slept: open both again, and ask what devices there are now."""
        for side in self._sides:
            self._let_go(side)
            side.is_told = True
        self._next_try = 0.0

    # Opening and closing, on a thread ------------------------------------------------------------

    def _on_a_thread(
        self, work: Callable[[], Opened], on_opened: Callable[[Opened], object]
    ) -> None:
        """Let PortAudio do something that it may never come back from."""

        def finish(opened: Opened) -> None:
            self._work = None
            on_opened(opened)

        def run() -> None:
            opened = work()
            if self._is_leaving:
                close_streams(opened)
            else:
                self._post(finish, opened)

        self._work = Thread(target=run, name="opening the sound card", daemon=True)
        self._work.start()

    def _open_streams(self, sides: Iterable[_Side], *, or_default: bool) -> Opened:
        wanted = {side.kind: side.wanted for side in sides}
        on_block: dict[Kind, OnBlock] = {"input": self._capture, "output": self._render}
        opened = portaudio.open_streams(wanted, self._latency, on_block, or_default=or_default)
        for problem in opened:
            if isinstance(problem, DeviceError):
                logger.debug("sound system: %s", problem.message)
        return opened

    def _close_stale(self) -> None:
        """Give it some time; a sound system that has died is left with what it holds."""
        if self._closing is None or not self._closing.is_alive():
            stale, self._stale = self._stale, []
            self._closing = Thread(target=close_streams, args=[stale], name="closing", daemon=True)
            self._closing.start()
        self._closing.join(PATIENCE)

    def _reopen(self, lost: list[_Side]) -> Opened:
        """Open what is lost, if it works by now."""
        self._close_stale()
        working = probe.working({side.kind: side.wanted for side in lost}, self._latency)
        return self._open_streams([s for s in lost if s.kind in working], or_default=True)

    def _reopen_all(self) -> Opened:
        """So, too, but first see which devices there are now."""
        self._close_stale()
        if self._closing is not None and self._closing.is_alive():
            return []
        with suppress(portaudio.load().PortAudioError):  # then nothing opens
            portaudio.refresh()
        return self._open_streams(self._sides, or_default=True)

    def _side_of(self, stream: Stream) -> _Side:
        return self._microphone if stream.kind == "input" else self._speaker

    def _try_out(self, opened: Opened) -> None:
        """Rely on these as soon as they run.  What works elsewhere and does not open here is news
        to PortAudio, and to learn them, it must let go of everything."""
        self._next_try = self._loop.time() + RETRY
        for stream in opened:
            if isinstance(stream, Stream):
                self._side_of(stream).trial = stream
        if any(isinstance(problem, DeviceError) for problem in opened):
            for side in self._sides:
                self._let_go(side)
            self._on_a_thread(self._reopen_all, self._try_out_all)

    def _try_out_all(self, opened: Opened) -> None:
        self._try_out([stream for stream in opened if isinstance(stream, Stream)])

    def _rely_on(self, streams: Iterable[Stream]) -> None:
        """These are the ones that count now."""
        for stream in streams:
            side = self._side_of(stream)
            side.stream, side.trial, side.lost_at = stream, None, None
            if side.wanted is not None and side.wanted.isdecimal():
                side.wanted = stream.device.name  # numbers change when devices come and go
            if stream.kind == "output":
                self._playback.connect(stream.rate, stream.latency)
            else:
                self._is_told_silent = False
        self._hearing = self._begin_hearing()

    def _leave(self) -> None:
        """Close the streams, but do not wait for a sound system that has died."""
        for side in self._sides:
            self._let_go(side)
        if gaps := self._playback.gaps:
            times = "once" if gaps == 1 else f"{gaps} times"
            self._listener.noticed(f"Answers broke off {times}: they came too slowly.")
        if self._slips >= MANY_SLIPS:
            slow = f"This computer was too slow for the sound card {self._slips} times"
            self._listener.noticed(f"{slow}; a greater --latency, such as 0.3, helps.")
        if self._work is not None:
            self._work.join(PATIENCE)
        self._close_stale()
        if self._is_busy:
            logger.debug("the sound card did not close within %s s", PATIENCE)
            portaudio.forget()

    def _let_go(self, side: _Side) -> None:
        for stream in (side.stream, side.trial):
            if stream is not None:
                self._slips += stream.slips
                self._stale.append(stream)
        side.stream = side.trial = None
        if side.lost_at is None:
            side.lost_at = side.stood_in = self._loop.time()

    # PortAudio's threads: no waiting, no printing, no raising ------------------------------------

    def _post(self, callback: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is listening any more
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _capture(self, stream: Stream, block: Samples) -> None:
        self._keep(stream, block.tobytes())
        if not self._has_news:
            self._has_news = True
            self._post(self._hear)

    def _render(self, stream: Stream, block: Samples) -> None:
        mono = block[:, 0] if stream.channels == 1 else np.empty(len(block), dtype="<i2")
        if stream is not self._speaker.stream:
            block[:] = 0  # not yet, or not any more
            return
        for item_id, heard_ms in self._playback.pull(mono):
            self._post(self._listener.finished, item_id, heard_ms)
        if stream.channels > 1:
            block[:] = mono[:, None]
        self._keep(stream, mono.tobytes())

    def _keep(self, stream: Stream, block: bytes) -> None:
        self._blocks.append((stream, block))
        while len(self._blocks) > LONGEST_QUEUE:
            if self._blocks.popleft()[0].kind == "input":
                self._dropped_ms += FRAME_MS

    # What was heard, on the event loop -----------------------------------------------------------

    def _begin_hearing(self) -> Hearing:
        """Between these two streams everything begins anew: rates, delays, the path of the echo."""
        there = [side.stream for side in self._sides if side.stream is not None]
        rates = {stream.kind: stream.rate for stream in there}
        return Hearing(
            self._echo,
            near_rate=rates.get("input", SAMPLE_RATE),
            far_rate=rates.get("output", SAMPLE_RATE),
            delay_ms=round(1000 * sum(stream.latency for stream in there)),
        )

    def _hear(self) -> None:
        self._has_news = False
        if self._dropped_ms:
            lost, self._dropped_ms = f"{self._dropped_ms / 1000:.1f} s", 0
            self._listener.noticed(f"{lost} of what you said was lost: this computer was too busy.")
        heard: list[bytes] = []
        while self._blocks:
            stream, block = self._blocks.popleft()
            if stream is self._speaker.stream:
                played = self._hearing.play(np.frombuffer(block, dtype="<i2"))
                self._listener.played(played.tobytes())
            elif stream is self._microphone.stream:
                heard.append(block)
            if len(heard) == AT_ONCE or (heard and not self._blocks):
                self._hear_user(b"".join(heard), self._microphone.stream)
                heard.clear()

    def _hear_user(self, pcm: bytes, stream: Stream | None) -> None:
        assert stream is not None
        samples = np.frombuffer(pcm, dtype="<i2").reshape(-1, stream.channels)
        for frame in self._hearing.hear(samples):
            self._listener.captured(frame.tobytes())
        self._tell_what_is_wrong()

    def _tell_what_is_wrong(self) -> None:
        if self._hearing.silent_ms >= SILENT_MS and not self._is_told_silent:
            self._is_told_silent = True  # some are so in every pause, with a gate against noise
            why = MUTED.get(sys.platform, MUTED["linux"])
            name = self._name(self._microphone)
            self._listener.noticed(f"The microphone {name} gives only silence: it may be {why}.")
        if (problem := self._hearing.take_problem()) is not None:
            logger.debug("echo cancellation: %s", problem)
            self._listener.noticed(f"Echo cancellation broke down; {ECHO[self.echo]}.")

    # Looking after the streams, on the event loop ------------------------------------------------

    def _look_after(self) -> None:
        now = self._loop.time()
        self._notice_losses(now)
        running = [s.trial for s in self._sides if s.trial is not None and s.trial.is_running]
        if running:
            self._welcome_back(running)
        for side in self._sides:
            if side.lost_at is not None:
                self._stand_in(side, now - side.lost_at, now)
        self._notice_if_stuck(now)
        lost = [side for side in self._sides if side.stream is None and side.trial is None]
        if lost and self._work is None and now >= self._next_try:
            self._on_a_thread(partial(self._reopen, lost), self._try_out)
        self._timer = self._loop.call_later(TICK, self._look_after)

    def _notice_losses(self, now: float) -> None:
        gone = []
        for side in self._sides:
            stream = side.stream or side.trial
            if stream is not None and stream.is_dead(now):
                self._let_go(side)
                if not side.is_told:
                    side.is_told = True
                    gone.append(f"the {WORDS[side.kind]} {stream.device.name!r}")
        if gone:
            self._next_try = 0.0
            are, them = ("is", "it") if len(gone) == 1 else ("are", "them")
            what = f"{' and '.join(gone)} {are} gone; waiting for {them}, or for another."
            shown = " Answers are shown." * self._speaker.is_told
            self._listener.noticed(what[0].upper() + what[1:] + shown)

    def _notice_if_stuck(self, now: float) -> None:
        if not self._is_busy:
            self._busy_since = None
        elif self._busy_since is None:
            self._busy_since = now
        elif now - self._busy_since > OPENING and not self._is_stuck:
            self._is_stuck = True
            self._listener.noticed(
                "The sound system does not answer any more; the conversation goes on in writing. "
                "Hang up and resume to have sound again."
            )

    @property
    def _is_busy(self) -> bool:
        """PortAudio has not come back yet from what it was told to do."""
        return any(t is not None and t.is_alive() for t in (self._work, self._closing))

    def _welcome_back(self, streams: list[Stream]) -> None:
        self._rely_on(streams)
        self._is_stuck = False
        told = [side for side in map(self._side_of, streams) if side.is_told]
        for side in told:
            side.is_told = False
        if told:
            back = " and ".join(f"{WORDS[side.kind]} {self._name(side)}" for side in told)
            self._listener.noticed(f"Sound is back: {back}; {ECHO[self.echo]}.")

    def _stand_in(self, side: _Side, seconds: float, now: float) -> None:
        """The conversation needs a clock: the server silence, and answers an end."""
        while side.stood_in + FRAME_MS / 1000 <= now:
            side.stood_in += FRAME_MS / 1000
            if side is self._microphone:
                self._listener.captured(SILENCE)
            elif seconds > HELD:
                unheard = np.empty(self._playback.frame_samples, dtype="<i2")
                for item_id, heard_ms in self._playback.pull(unheard):
                    self._listener.finished(item_id, heard_ms)

    def _name(self, side: _Side) -> str:
        return repr(side.stream.device.name) if side.stream is not None else ""

    def _describe(self) -> str:
        devices = f"Microphone {self._name(self._microphone)}, speaker {self._name(self._speaker)}"
        is_makeshift = self._echo == "auto" and self.echo == "half-duplex"
        install = " `pip install pywebrtc-audio` lets you interrupt." * is_makeshift
        return f"{devices}; {ECHO[self.echo]}.{install}"
