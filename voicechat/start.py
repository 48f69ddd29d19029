"""Builds the house for one run, holds the conversation in it, and says how to come back."""

import asyncio
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from voicechat import __version__
from voicechat.display import Display, fetching
from voicechat.errors import ExitCode, OutputError, StoreError, VoicechatError
from voicechat.history.forks import share_recordings
from voicechat.history.log import SessionLog, session_id
from voicechat.history.reading import complete, contents
from voicechat.history.recordings import discard_recordings, new_recording, recordings_of
from voicechat.keyboard import HELP, KEYS, keyboard
from voicechat.prices import Price, in_short
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.connection import realtime_url
from voicechat.realtime.conversation import Conversation
from voicechat.realtime.inputs import Input, QuitRequested
from voicechat.realtime.network import Network, shown
from voicechat.realtime.policy import Policy
from voicechat.realtime.providers import OPENAI, Provider
from voicechat.script import Script, Speech, Text
from voicechat.sound import EchoMode, Listener, Sound
from voicechat.talk import Talk
from voicechat.trace import Trace
from voicechat.transcript import Opened, Transcript

if TYPE_CHECKING:
    from voicechat.audio.files import FileMicrophone, FileSpeaker
    from voicechat.audio.recorder import Recorder
    from voicechat.line_editor import LineEditor

ENDING_TIME = 0.3
"""Seconds for what is left to do when the conversation is over and everything is on disk."""
HANGING_UP_TIME = 1.9
"""Seconds, whatever a device or a connection does: everything that was said is on disk by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run of ``voicechat talk`` is to do; the command line fills it in."""

    configuration: Configuration
    policy: Policy = field(default_factory=Policy)
    url: str
    api_key: str | None = field(default=None, repr=False)
    token_command: tuple[str, ...] = ()
    """What prints a token that is used instead, anew for each connection."""
    provider: Provider = OPENAI
    network: Network = field(default_factory=Network)
    local: bool = False
    """The built-in server, whatever `url` says."""
    inputs: tuple[str, ...] = ()
    """Sound files, or ``-``."""
    texts: tuple[str, ...] = ()
    output: str | None = None
    microphone: str | None = None
    """Number, name or part of the name of a device; None for the default one."""
    speaker: str | None = None
    latency: Literal["low"] | float = 0.1
    """Seconds asked of the sound card."""
    echo: EchoMode = "auto"
    record: str | None = None
    """Where the sound of both sides goes; ``auto``: beside the session's file."""
    trace: str | None = None
    """File that tells what happens and what is decided, for a bug report."""
    name: str | None = None
    fork_of: Path | None = None
    """File of the session of which this one is a fork."""
    inherited: int = 0
    """Turns that a fork begins with; without more, it is not kept."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    """What tokens cost, by model."""
    sessions: Path | None
    """Where a new session is saved; None keeps it off the disk."""
    log: SessionLog | None = None
    """Of a session that is gone on with."""
    transcript: Transcript = field(default_factory=Transcript)
    json: bool = False
    """Turns and states go to standard output as JSON."""
    resume_options: str = ""
    """What ``voicechat resume`` must be told again to reach the same server."""


def start(plan: Plan) -> None:
    """Hold the conversation that is planned, until it is over.

    Raises:
        VoicechatError: With a message and a remedy for the user.
    """
    error, guard = asyncio.run(_hold(plan))
    guard.cancel()
    if error is not None:
        raise error


async def _hold(plan: Plan) -> tuple[VoicechatError | None, threading.Timer]:
    """Hold the conversation; what is returned with its outcome must be cancelled when all is over.

    A name that is being looked up in vain would hold up the end of the event loop for minutes.
    """
    error, display = await _talk(plan)

    def give_up() -> None:
        if error is not None:
            display.notice(f"voicechat: {error.message}")
            display.notice(error.remedy)
        os._exit(error.exit_code if error is not None else ExitCode.OK)

    guard = threading.Timer(ENDING_TIME, give_up)
    guard.daemon = True
    guard.start()
    return error, guard


async def _talk(plan: Plan) -> tuple[VoicechatError | None, Display]:
    async with AsyncExitStack() as house:
        sound, script = _files(plan, house) if plan.inputs or plan.texts else _card(plan, house)
        display = _display(plan)
        if plan.local:
            plan = await _local(plan, display, house)
        log = plan.log or _new_log(plan, display)
        if log is not None:
            house.callback(discard_recordings, log.path)  # if the log was
            house.callback(log.discard)  # closes it, and removes it if nothing was said
        _begin_after_what_is_recorded(plan, log)
        recorder = _recorder(plan, log, display, house)
        trace = _trace(plan, display, house)
        plan.transcript.apply(opened := _opened(plan, log))
        if log is not None:
            log.append(opened)
        chosen = plan.transcript, plan.configuration, plan.policy, plan.provider
        if trace is not None:
            trace.begin(*chosen, url=shown(plan.url))
        talk = Talk(
            Conversation(*chosen, chance=trace.chance if trace is not None else random.random),
            sound=sound,
            log=log,
            display=display,
            url=realtime_url(plan.url, plan.configuration.model),
            api_key=plan.api_key,
            token_command=plan.token_command,
            network=plan.network,
            script=script,
            recorder=recorder,
            trace=trace,
        )
        error = await _until_hung_up(talk, plan, display, is_live=script is None)
        if log is not None:
            with suppress(StoreError):
                plan.transcript.name = log.name() or plan.transcript.name
        for line in _closing_lines(plan):
            display.notice(line)
        return error, display


async def _until_hung_up(
    talk: Talk, plan: Plan, display: Display, *, is_live: bool
) -> VoicechatError | None:
    """Run the conversation; once someone hangs up, it is over within two seconds."""
    with ExitStack() as stack:
        restore: Callable[[], object] = bool

        def give_up() -> None:
            restore()
            display.close()
            for line in _closing_lines(plan):
                display.notice(line)
            os._exit(ExitCode.OK)

        guard = threading.Timer(HANGING_UP_TIME, give_up)
        guard.daemon = True
        stack.callback(guard.cancel)

        def post(happened: Input) -> None:
            if isinstance(happened, QuitRequested) and guard.ident is None:
                guard.start()
            talk.post(happened)

        stack.callback(display.close)
        if display.interval is not None:
            stack.enter_context(_stops(display))
        stack.enter_context(_signals(post))
        if is_live:
            typed_before = [turn.text for turn in plan.transcript.turns if turn.role == "user"]
            is_held = plan.configuration.vad == "none"
            keys = stack.enter_context(
                keyboard(post, display.away, typed_before=typed_before, is_held=is_held)
            )
            if keys is not None:
                restore = keys.restore
                display.editor, display.keys = keys.editor, KEYS
                if display.interval is None:
                    _show_line(keys.editor)
            has_keys = keys is not None
            display.notice(f"Connecting. {HELP}" if has_keys else "Connecting. Ctrl-C hangs up.")
        return await talk.run()


def _show_line(editor: "LineEditor") -> None:
    from voicechat.plain_line import show_plainly

    editor.on_change = partial(show_plainly, editor)


def _display(plan: Plan) -> Display:
    """Plain lines, unless something else is wished, or turns go to a terminal."""
    out = sys.stderr if plan.output == "-" else sys.stdout
    if plan.json:
        from voicechat.json_lines import JsonLines

        return JsonLines(out, sys.stderr, plan.transcript)
    # With --verbose, lines of the log are all over the place.
    if out.isatty() and not logging.getLogger("voicechat").isEnabledFor(logging.DEBUG):
        from voicechat.terminal import Terminal

        if Terminal.suits(out):
            return Terminal(out, sys.stderr, plan.transcript, prices=plan.prices)
    return Display(out, sys.stderr, plan.transcript)


def _card(plan: Plan, house: AsyncExitStack) -> tuple[Sound, None]:
    from voicechat.audio.card import SoundCard  # which needs PortAudio, and takes time
    from voicechat.audio.portaudio import hushed

    house.enter_context(hushed())
    # PortAudio begins here.  With a sound system that is stuck, it stays in C for ever, where no
    # handler is ever called.
    as_found = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        card = SoundCard(
            microphone=plan.microphone, speaker=plan.speaker, latency=plan.latency, echo=plan.echo
        )
    finally:
        signal.signal(signal.SIGINT, as_found)
    return card, None


def _files(plan: Plan, house: AsyncExitStack) -> tuple[Sound, Script]:
    """Files for a sound card: read and opened before anything else, so that errors come early."""
    from voicechat.audio.files import FileMicrophone, FileSpeaker, RawOutput
    from voicechat.audio.wav import WavFile, read_audio

    microphone = FileMicrophone()
    steps: list[Speech | Text] = []
    for name in plan.inputs:
        if name == "-":
            steps.append(Speech("standard input", partial(microphone.say_stream, 0)))
        else:
            steps.append(Speech(name, partial(microphone.say, read_audio(Path(name)))))
    steps += map(Text, plan.texts)
    sink: WavFile | RawOutput | None = None
    if plan.output is not None:
        sink = RawOutput(1) if plan.output == "-" else WavFile(Path(plan.output))
        house.enter_context(sink)
    speaker = FileSpeaker(sink)
    return _Files(microphone, speaker), Script(steps, microphone=microphone, speaker=speaker)


class _Files:
    """A sound card made of files."""

    echo = None

    def __init__(self, microphone: "FileMicrophone", speaker: "FileSpeaker") -> None:
        self._microphone = microphone
        self._speaker = speaker
        self.play, self.end, self.stop = speaker.play, speaker.end, speaker.stop

    @asynccontextmanager
    async def open(self, listener: Listener) -> AsyncIterator[None]:
        """Hear and be heard."""
        with self._microphone.open(listener), self._speaker.open(listener):
            yield

    def renew(self) -> None:
        """Files do not mind a sleep."""


async def _local(plan: Plan, display: Display, house: AsyncExitStack) -> Plan:
    """Start the built-in server, and say what may be expected of it; without a voice, text."""
    from voicechat.server.engines.table import INSTALL, missing
    from voicechat.server.launch import local_server
    from voicechat.server.models import SMOLLM

    if absent := missing():
        names = ", ".join(engine.name for engine in absent)
        display.notice(f"The built-in server lacks {names}. This adds what is missing: {INSTALL}")
    display.notice("Starting the built-in server.")
    with fetching(SMOLLM.described) as progress:
        server = await house.enter_async_context(local_server(progress))
    if server.thinks and not plan.transcript.turns:
        display.notice(
            "The built-in model is tiny, knows English only, and hardly follows --instructions."
        )
    is_text_only = plan.configuration.text_only or not server.speaks
    configuration = replace(plan.configuration, model=server.model, text_only=is_text_only)
    return replace(plan, url=server.url, api_key=server.key, configuration=configuration)


def _begin_after_what_is_recorded(plan: Plan, log: SessionLog | None) -> None:
    """Go on where the recordings of the session end: a run that was killed has sound, and perhaps
    words, of which its log knows nothing."""
    if log is None or not (recordings := recordings_of(log.path)):
        return
    from voicechat.audio.parts import end_ms

    plan.transcript.end_ms = max(plan.transcript.end_ms, end_ms(recordings))


def _recorder(
    plan: Plan, log: SessionLog | None, display: Display, house: AsyncExitStack
) -> "Recorder | None":
    """Where the sound goes, if anywhere: a file of the user's, or one of this run's own."""
    if plan.record is None:
        return None
    from voicechat.audio.recorder import Recorder

    start_ms = plan.transcript.end_ms
    is_auto = plan.record == "auto"
    path = new_recording(log.path, start_ms) if is_auto and log is not None else Path(plan.record)
    recorder = Recorder(path, start_ms)

    def close() -> None:
        try:
            recorder.close()
        except OutputError as error:
            display.notice(f"The recording is not complete: {error.message}.")

    house.callback(close)
    display.notice(f"Recording to {path}.")
    return recorder


def _trace(plan: Plan, display: Display, house: AsyncExitStack) -> Trace | None:
    if plan.trace is None:
        return None
    trace = Trace(Path(plan.trace), [plan.api_key], display.notice)
    house.callback(trace.close)
    display.notice(f"Tracing to {plan.trace}: what is said stands in it, sound and keys do not.")
    return trace


def _new_log(plan: Plan, display: Display) -> SessionLog | None:
    if plan.sessions is None:
        return None
    is_first = not os.path.exists(plan.sessions)  # noqa: PTH110  # Path's raises on odd names
    if plan.fork_of is None:
        log = SessionLog.create(plan.sessions)
    else:
        log = SessionLog.create(plan.sessions, complete(contents(plan.fork_of)))
        share_recordings(plan.fork_of, log.path)
    if is_first:
        display.notice(f"Conversations are saved in {plan.sessions}; with --no-log, one is not.")
    return log


def _opened(plan: Plan, log: SessionLog | None) -> Opened:
    configuration = plan.configuration
    return Opened(
        session=log.session if log is not None else "",
        version=__version__,
        pid=os.getpid(),
        name=plan.name,
        local=plan.local,
        model=configuration.model,
        voice=configuration.voice,
        instructions=configuration.instructions,
        language=configuration.language,
        transcription_model=configuration.transcription_model,
        vad=configuration.vad,
        parent=session_id(plan.fork_of) if plan.fork_of is not None else None,
        provider=plan.provider.name,
    )


def _closing_lines(plan: Plan) -> list[str]:
    transcript = plan.transcript
    opened = transcript.opened
    if opened is None or len(transcript.spoken) <= plan.inherited:
        return []
    told = in_short(transcript, plan.prices)
    if not opened.session:
        return [] if plan.sessions is not None else [f"Not saved (--no-log) · {told}"]
    name = f' "{transcript.name}"' if transcript.name else ""
    return [
        f"Saved {opened.session}{name} · {told}",
        f"Resume: voicechat resume {opened.session}{plan.resume_options}",
    ]


@contextmanager
def _stops(display: Display) -> Iterator[None]:
    """Ctrl-Z leaves the terminal to the shell, until ``fg``."""
    if sys.platform == "win32":
        yield
        return
    loop = asyncio.get_running_loop()

    def stop() -> None:
        with display.away():
            loop.remove_signal_handler(signal.SIGTSTP)
            signal.raise_signal(signal.SIGTSTP)  # which takes until ``fg``
            loop.add_signal_handler(signal.SIGTSTP, stop)

    loop.add_signal_handler(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTSTP)


@contextmanager
def _signals(post: Callable[[Input], object]) -> Iterator[None]:
    """The first signal hangs up.  Further ones change nothing: a closing terminal sends several,
    and the last words are waited for, but never for long.  When all is said, none does any more, to
    the end of the process, which is near."""
    loop = asyncio.get_running_loop()
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    numbers = [signal.Signals[name] for name in names if hasattr(signal, name)]
    is_hanging_up = False

    def hang_up() -> None:
        nonlocal is_hanging_up
        if not is_hanging_up:
            is_hanging_up = True
            post(QuitRequested())

    as_found = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(hang_up))
    is_over = False
    try:
        yield
        is_over = True
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN if is_over else as_found[number])
