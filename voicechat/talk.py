"""The shell around the conversation: it watches the world and does what it is told."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from voicechat.display import Display
from voicechat.errors import OutputError, StoreError, VoicechatError
from voicechat.meters import Meter
from voicechat.realtime.connection import Connection, open_connection
from voicechat.realtime.conversation import Conversation, Link
from voicechat.realtime.effects import (
    Close,
    Connect,
    Effect,
    EndPlayback,
    Finish,
    Notice,
    Play,
    Send,
    StopPlayback,
    Write,
)
from voicechat.realtime.events import Event
from voicechat.realtime.inputs import (
    Connected,
    DeadlineReached,
    Disconnected,
    Garbled,
    Input,
    MicCaptured,
    PlaybackFinished,
    PlaybackStopped,
    QuitRequested,
    Received,
    SavingFailed,
    Silent,
    Woke,
)
from voicechat.realtime.network import Network
from voicechat.script import Script
from voicechat.sound import Sound
from voicechat.token_command import ask_for_token
from voicechat.trace import Trace
from voicechat.transcript import Record

GLANCE = 1.0
SLEPT = 5.0
"""Seconds that pass without us before it counts as sleep."""
_CLOCK = next(
    (getattr(time, name) for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC") if hasattr(time, name)),
    None,
)
"""One that runs on while the machine sleeps; on Linux and macOS `time.monotonic` does not."""


def _time_awake_or_not() -> float:
    if sys.platform == "win32" or _CLOCK is None:
        return time.monotonic()
    return time.clock_gettime(_CLOCK)


class Log(Protocol):
    """Somewhere to write what was said."""

    def append(self, record: Record) -> None:
        """Write one record so that it survives a crash."""


class Recorder(Protocol):
    """Somewhere to keep the sound of both sides."""

    def user(self, pcm: bytes, now_ms: int) -> None:
        """What the user said until `now_ms` on the session's timeline.  Raises `OutputError`."""

    def assistant(self, pcm: bytes, now_ms: int) -> None:
        """What was heard of the assistant until then.  Raises `OutputError`."""


class Talk:
    """Runs a `Conversation` against real sockets, sound cards, disks and clocks.

    Whatever happens, on whatever thread or task, becomes one input in one queue, and one loop
    takes them out.  So the conversation needs no locks, and no two things happen to it at once.
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        sound: Sound,
        log: Log | None,
        display: Display,
        url: str,
        api_key: str | None = None,
        token_command: Sequence[str] = (),
        network: Network | None = None,
        script: Script | None = None,
        recorder: Recorder | None = None,
        trace: Trace | None = None,
    ) -> None:
        # A deque and an event, not a queue, which costs a long replay a tenth of its time.
        self._inbox: deque[Input] = deque()
        self._has_news = asyncio.Event()
        self._conversation = conversation
        self._sound = sound
        self._log = log
        self._display = display
        self._url = url
        self._api_key = api_key
        self._token_command = token_command
        self._network = network
        self._script = script
        self._recorder = recorder
        self._microphone = Meter()
        self._speaker = Meter()
        self._trace = trace
        self._connections: dict[int, Connection] = {}
        self._held: dict[int, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup
        self._is_opening = True
        self._finish: Finish | None = None
        self._unsaved: StoreError | None = None
        """The last words could not be saved."""

    async def run(self) -> VoicechatError | None:
        """Talk until the conversation is finished; return why, unless the user wished it.

        Raises:
            DeviceError: There is no microphone or speaker.
        """
        # Devices open outside the task group: what is raised inside one arrives wrapped in an
        # ExceptionGroup, which the command line could not show.
        async with self._sound.open(self), asyncio.TaskGroup() as self._tasks:
            watching = [self._tasks.create_task(self._watch_for_sleep())]
            if self._display.interval is not None:
                watching.append(self._tasks.create_task(self._show(self._display.interval)))
            self._perform(self._conversation.start())
            self._follow(asyncio.get_running_loop().time())
            while self._finish is None:
                if not self._inbox:
                    await self._wait_for_news()
                self._handle(self._inbox.popleft() if self._inbox else DeadlineReached())
            for task in (*watching, *self._held.values()):
                task.cancel()
        return self._finish.error or self._unsaved

    def post(self, happened: Input) -> None:
        """Something happened.  On the event loop; from a thread by ``call_soon_threadsafe``."""
        self._inbox.append(happened)
        self._has_news.set()

    # What the sound tells (`voicechat.sound.Listener`) -------------------------------------------

    def captured(self, pcm: bytes) -> None:
        """The microphone heard 20 ms."""
        self.post(MicCaptured(pcm))
        self._microphone.hear(pcm)
        if self._recorder is not None:
            heard = bytes(len(pcm)) if self._conversation.is_shut else pcm
            self._record(self._recorder.user, heard)

    def played(self, pcm: bytes) -> None:
        """The speaker took some sound."""
        self._speaker.hear(pcm)
        if self._recorder is not None:
            self._record(self._recorder.assistant, pcm)

    def finished(self, item_id: str, heard_ms: int) -> None:
        """An item was heard to its end."""
        self.post(PlaybackFinished(item_id, heard_ms))

    def noticed(self, text: str) -> None:
        """Something is the matter with the sound."""
        self._display.notice(text)

    def failed(self, error: VoicechatError) -> None:
        """There will be no more sound."""
        self._end(error)

    def _record(self, write: Callable[[bytes, int], None], pcm: bytes) -> None:
        try:
            write(pcm, self._conversation.timeline_ms(asyncio.get_running_loop().time()))
        except OutputError as error:
            self._recorder = None
            self._display.notice(f"The recording ends here: {error.message}.")

    # ---------------------------------------------------------------------------------------------

    async def _watch_for_sleep(self) -> None:
        """A clock that went on without us: nothing that was open before is to be trusted."""
        last = _time_awake_or_not()
        while True:
            await asyncio.sleep(GLANCE)
            now = _time_awake_or_not()
            if now - last > GLANCE + SLEPT:
                self._sound.renew()
                self.post(Woke(now - last))
            last = now

    async def _show(self, interval: float) -> None:
        """How things stand, as long as they do."""
        while True:
            self._display.look(
                self._conversation,
                asyncio.get_running_loop().time(),
                microphone=self._microphone.read(),
                speaker=self._speaker.read(),
                echo=self._sound.echo,
            )
            await asyncio.sleep(interval)

    def _follow(self, now: float) -> None:
        try:
            self._display.follow(self._conversation, now)
        except OutputError as error:
            self._end(error)

    def _hear_silence(self, number: int, seconds: float) -> None:
        self.post(Silent(number, seconds))

    async def _wait_for_news(self) -> None:
        """Until something happens, or the conversation's deadline has come."""
        self._has_news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._conversation.deadline):
                await self._has_news.wait()

    def _handle(self, happened: Input | None) -> None:
        now = round(asyncio.get_running_loop().time(), 6)  # which a trace can tell exactly
        while happened is not None:
            if self._trace is not None:
                self._trace.happened(happened, now)
            if effects := self._conversation.handle(happened, now):
                self._perform(effects)
            if self._is_opening and self._conversation.link is Link.LIVE:
                self._is_opening = False
                if self._script is None:
                    self._display.notice("Listening.")
            self._follow(now)
            happened = self._script.next(self._conversation, now) if self._script else None

    def _perform(self, effects: list[Effect]) -> None:
        if self._trace is not None:
            self._trace.decided(effects)
        for effect in effects:
            match effect:
                case Connect(number):
                    self._held[number] = self._tasks.create_task(self._hold_connection(number))
                case Close(number):
                    if number in self._held:
                        self._held[number].cancel()
                case Send(number, event):
                    if number in self._connections:
                        self._connections[number].send(event)
                case Play(item_id, pcm):
                    self._sound.play(item_id, pcm)
                case EndPlayback(item_id):
                    self._sound.end(item_id)
                case StopPlayback():
                    self.post(PlaybackStopped(self._sound.stop()))
                case Write(record):
                    self._write(record)
                case Notice(text):
                    self._display.notice(text)
                case Finish():
                    self._finish = effect

    def _write(self, record: Record) -> None:
        """On disk first, then on the screen: what was printed is saved."""
        try:
            if self._log is not None:
                self._log.append(record)
        except StoreError as error:
            self._log = None
            self._display.is_failing_to_save = True
            if self._is_ending:
                self._unsaved = error
            else:
                self.post(SavingFailed(error))
        try:
            self._display.turns(self._conversation.transcript)
        except OutputError as error:
            self._end(error)

    def _end(self, error: VoicechatError) -> None:
        """It makes no sense to go on; if the end has begun already, let it come as it comes."""
        if not self._is_ending:
            self.post(QuitRequested(error))

    @property
    def _is_ending(self) -> bool:
        return self._conversation.link in (Link.LEAVING, Link.CLOSED)

    async def _hold_connection(self, number: int) -> None:
        """Live one connection, from `Connected` to `Disconnected`."""
        try:
            key = self._api_key
            if self._token_command:  # each time: tokens expire
                key = await ask_for_token(self._token_command)
            provider = self._conversation.provider
            async with open_connection(self._url, key, self._network, provider) as connection:
                self._connections[number] = connection
                self.post(Connected(number, connection.server_time))
                on_silence = partial(self._hear_silence, number)
                watching = self._tasks.create_task(connection.watch(on_silence))
                writing = self._tasks.create_task(connection.write())
                try:
                    async for heard in connection.read():
                        if isinstance(heard, Event):
                            self.post(Received(number, heard))
                        else:
                            self.post(Garbled(number, str(heard)))
                finally:
                    watching.cancel()
                    writing.cancel()
            self.post(Disconnected(number, connection.ending()))
        except VoicechatError as error:
            self.post(Disconnected(number, error))
        finally:
            self._connections.pop(number, None)
            self._held.pop(number, None)
