"""``voicechat talk``: from options to a plan."""

import logging
import shlex
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import typer

from voicechat.cli.sync import sync_first
from voicechat.cli.values import api_key, parse_latency, read_instructions, session_name
from voicechat.errors import UsageError
from voicechat.history.forks import fork_name, share_recordings
from voicechat.history.log import SessionLog
from voicechat.history.reading import complete, contents
from voicechat.history.sessions import LAST, find_session, load_and_count
from voicechat.realtime.configuration import (
    DEFAULT_MODEL,
    DEFAULT_TRANSCRIPTION_MODEL,
    DEFAULT_VOICE,
    Configuration,
    NoiseReduction,
    Vad,
)
from voicechat.realtime.policy import RECONNECT_FOR, Policy
from voicechat.settings import prices, sessions_directory
from voicechat.sound import EchoMode
from voicechat.transcript import Opened, Transcript, unbroken

OPENAI_URL = "wss://api.openai.com/v1/realtime"
PUBLIC_PARAMETERS = {"model", "deployment", "api-version", "intent"}
"""Of an address: what may be shown.  Anything else could be a key."""
LONGEST_PATIENCE = 86_400
"""Seconds of --reconnect-for: a day."""
SHORTEST_LINE, LONGEST_LINE = 0.01, 1440
"""Minutes of --rotate-after."""


def talk(
    context: typer.Context,
    *,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="SESSION",
            help="Go on with a saved session: its id, the beginning of it, its name, or `last`.",
        ),
    ] = None,
    continue_: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the session last used.")
    ] = False,
    fork: Annotated[
        bool,
        typer.Option("--fork", help="Go on in a copy of the saved session, which stays as it is."),
    ] = False,
    input_files: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Be heard from a sound file (WAV, FLAC, Ogg, MP3) instead of the microphone; - is "
            "raw PCM16 24 kHz from standard input. May be repeated.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Type this turn. May be repeated; files come first."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --input or --text: write the answers to a WAV file; - is raw PCM16 24 kHz "
            "to standard output (the transcript then goes to standard error).",
        ),
    ] = None,
    input_device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            envvar="VOICECHAT_INPUT_DEVICE",
            help="Microphone: its number or part of its name; see `voicechat devices`. [default: "
            "the system's]",
        ),
    ] = None,
    output_device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", envvar="VOICECHAT_OUTPUT_DEVICE", help="Speaker, likewise."),
    ] = None,
    latency: Annotated[
        str,
        typer.Option(
            metavar="low|safe|SECONDS",
            envvar="VOICECHAT_LATENCY",
            help="How far the sound card may lag: `safe` is 0.1 s on each side, `low` as little "
            "as the system allows, which breaks off on a busy computer.",
        ),
    ] = "safe",
    echo: Annotated[
        EchoMode,
        typer.Option(
            envvar="VOICECHAT_ECHO",
            help="Against the assistant hearing itself on loudspeakers: cancel the echo, close "
            "the microphone while an answer plays, or nothing. `auto` cancels where it can.",
        ),
    ] = "auto",
    noise_reduction: Annotated[
        NoiseReduction | None,
        typer.Option(
            envvar="VOICECHAT_NOISE_REDUCTION",
            help="By the server: `near` for a headset, `far` for a microphone across the room, or "
            "`off`. [default: the server's]",
        ),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="VOICECHAT_RECORD",
            help="Keep the sound as well, you on the left and the assistant on the right, in a "
            ".wav or .flac file; `auto`: beside the saved session, for `voicechat export`.",
        ),
    ] = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local", envvar="VOICECHAT_LOCAL", help="Use the built-in server: no key, no network."
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="VOICECHAT_URL",
            help=f"Realtime server. [default: {OPENAI_URL}]",
        ),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="VOICECHAT_API_KEY_ENV",
            help="Environment variable that holds the key. [default: OPENAI_API_KEY]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", envvar="VOICECHAT_MODEL", help=f"[default: {DEFAULT_MODEL}]"),
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option(metavar="VOICE", envvar="VOICECHAT_VOICE", help=f"[default: {DEFAULT_VOICE}]"),
    ] = None,
    instructions: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="VOICECHAT_INSTRUCTIONS",
            help="How the assistant is to behave; @FILE reads it from a file.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            envvar="VOICECHAT_LANGUAGE",
            help="What you speak, such as `en` or `de`; helps to write down your words.",
        ),
    ] = None,
    transcription_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            envvar="VOICECHAT_TRANSCRIPTION_MODEL",
            help=f"What writes down your words. [default: {DEFAULT_TRANSCRIPTION_MODEL}]",
        ),
    ] = None,
    vad: Annotated[
        Vad | None,
        typer.Option(
            envvar="VOICECHAT_VAD",
            help="How the end of your turn is found: by silence, by meaning, or by the space bar. "
            "[default: server]",
        ),
    ] = None,
    reconnect_for: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            envvar="VOICECHAT_RECONNECT_FOR",
            help="How long to try to get a lost line back; 0: not at all.",
        ),
    ] = RECONNECT_FOR,
    rotate_after: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            envvar="VOICECHAT_ROTATE_AFTER",
            help="Move to a fresh connection so early, rather than shortly before the server's "
            "limit.",
        ),
    ] = None,
    replay_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            envvar="VOICECHAT_REPLAY_TOKENS",
            min=1,
            max=10_000_000,
            help="Restore at most so many tokens, and the last turn. [default: what fits the "
            "model's context]",
        ),
    ] = None,
    no_summary: Annotated[
        bool,
        typer.Option(
            "--no-summary",
            envvar="VOICECHAT_NO_SUMMARY",
            help="Leave out older turns that do not fit, instead of summarising them.",
        ),
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Give the session a name.")
    ] = None,
    no_log: Annotated[
        bool,
        typer.Option("--no-log", envvar="VOICECHAT_NO_LOG", help="Save nothing of this."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", envvar="VOICECHAT_VERBOSE", help="Show every event."),
    ] = False,
) -> None:
    """Talk with the assistant, through the sound card or with files.

    While you talk: m mutes, t or Enter types a turn, s skips the wait for a summary, q or Ctrl-C
    hangs up; with --vad none, Space begins and ends your turn. Speak to interrupt.
    """
    # Here, not above: --help and the other commands must not wait for all this.
    from voicechat.realtime.connection import realtime_url
    from voicechat.start import Plan, start

    inputs, texts = tuple(input_files or ()), tuple(map(unbroken, text or ()))
    if not all(each.strip() for each in texts):
        raise UsageError("there is nothing in --text", remedy="Give the words of the turn.")
    if output is not None and not (inputs or texts):
        raise UsageError(
            "--output goes with --input or --text",
            remedy="Say what is to be heard, such as `--input question.wav`.",
        )
    if output is not None and any(map(partial(_is_same_file, output), inputs)):
        raise UsageError(
            f"--output would overwrite the input {output!r}", remedy="Name another file."
        )
    if record == "auto" and no_log:
        raise UsageError(
            "--record auto is for beside the saved session, and --no-log saves none",
            remedy="Name a file, such as `--record talk.flac`.",
        )
    if _is_flag(context, "local") and _is_flag(context, "url"):
        raise UsageError("--local and --url name two servers", remedy="Leave out one of the two.")
    for option, value, least, most in (
        ("--reconnect-for", reconnect_for, 0, LONGEST_PATIENCE),
        ("--rotate-after", rotate_after, SHORTEST_LINE, LONGEST_LINE),
    ):
        if value is not None and not least <= value <= most:  # nan is nowhere
            raise UsageError(
                f"{option} {value:g} is out of range",
                remedy=f"Give a number from {least:g} to {most:g}.",
            )
    if resume is not None and continue_:
        raise UsageError("--continue and --resume name two sessions", remedy="Leave out one.")
    if fork and resume is None and not continue_:
        raise UsageError("--fork needs a session", remedy="Name one with --resume, or add -c.")
    costs = prices()
    if verbose:
        _log_to_stderr()
    with ExitStack() as stack:
        wanted = "last" if continue_ else resume
        log, transcript, parent = None, Transcript(), None
        if wanted is not None:
            sync_first()
            log, transcript, parent = _saved(wanted, fork=fork, no_log=no_log)
            if log is not None:
                stack.enter_context(closing(log))
        is_local = _is_local(context, transcript.opened)
        if not is_local:
            realtime_url(url or OPENAI_URL, "")  # is it one?
        start(
            Plan(
                configuration=_configuration(context, transcript.opened, is_local=is_local),
                policy=Policy(
                    reconnect_for=reconnect_for,
                    rotate_after=rotate_after * 60 if rotate_after is not None else None,
                    replay_tokens=replay_tokens,
                    use_summary=not no_summary,
                    can_skip=not (inputs or texts) and sys.stdin.isatty(),
                    can_go_on_unsaved=not (inputs or texts) and sys.stdin.isatty(),
                ),
                url=url or OPENAI_URL,
                api_key=None if is_local else api_key(api_key_env, is_needed=url is None),
                local=is_local,
                inputs=inputs,
                texts=texts,
                output=output,
                microphone=input_device,
                speaker=output_device,
                latency=parse_latency(latency),
                echo=echo,
                record=record,
                name=session_name(name) or (fork_name(transcript.name) if fork else None),
                parent=parent,
                inherited=len(transcript.spoken) if parent is not None else 0,
                prices=costs,
                sessions=None if no_log else sessions_directory(),
                log=log,
                transcript=transcript,
                resume_options=_resume_options(context),
            )
        )


def _saved(
    wanted: str, *, fork: bool, no_log: bool
) -> tuple[SessionLog | None, Transcript, str | None]:
    """The log to go on in, what was said so far, and whose fork this is."""
    session = find_session(sessions_directory(), wanted)
    if wanted == LAST:
        name = f' "{session.name}"' if session.name else ""
        used = f"{session.last_used.astimezone():%Y-%m-%d %H:%M}"
        typer.echo(f"Going on with {session.id}{name}, last used {used}.", err=True)
    log = None
    if fork and not no_log:
        log = SessionLog.create(sessions_directory(), complete(contents(session.path)))
        share_recordings(session.path, log.path)
    elif not no_log:
        log = SessionLog(session.path)
    transcript, passed_over = load_and_count(session)
    if passed_over:
        lines = "line" if passed_over == 1 else "lines"
        typer.echo(f"Passed over {passed_over} {lines} that cannot be read.", err=True)
    return log, transcript, session.id if fork else None


def _is_flag(context: typer.Context, name: str) -> bool:
    """The option was given on the command line, not by the environment or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _is_local(context: typer.Context, saved: Opened | None) -> bool:
    """Flag, saved session, environment: what was said without a network stays without one."""
    if _is_flag(context, "url"):
        return False
    if _is_flag(context, "local"):
        return True
    return saved.local if saved is not None else bool(context.params["local"])


def _is_same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)  # also through links
    except OSError:
        return False


def _configuration(
    context: typer.Context, saved: Opened | None, *, is_local: bool
) -> Configuration:
    """Flag, then saved session, then environment, then default."""
    of_the_server = ("model", "voice", "transcription_model")  # another has others
    chosen: dict[str, Any] = {"noise_reduction": context.params["noise_reduction"]}
    for name in (*of_the_server, "instructions", "language", "vad"):
        value = context.params[name]
        if name == "instructions" and value is not None and value.startswith("@"):
            value = read_instructions(Path(value[1:]))  # not what is saved: that is no path
        applies = saved is not None and (saved.local == is_local or name not in of_the_server)
        if applies and not _is_flag(context, name):
            value = getattr(saved, name) or value
        if value is not None:
            chosen[name] = unbroken(value)
    return Configuration(**chosen)


def _resume_options(context: typer.Context) -> str:
    """What was said about the server on the command line must be said again; the rest is saved."""
    options = ""
    if _is_flag(context, "url"):
        url = context.params["url"]
        parts = urlsplit(url)
        is_open = not parts.username and parse_qs(parts.query).keys() <= PUBLIC_PARAMETERS
        options += f" --url {shlex.quote(url) if is_open else '...'}"
    if _is_flag(context, "api_key_env") and context.params["api_key_env"]:
        options += f" --api-key-env {shlex.quote(context.params['api_key_env'])}"
    return options


class _ToStderr(logging.StreamHandler[Any]):
    """To what standard error is at the time: the sound card gives it another descriptor."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _log_to_stderr() -> None:
    handler = _ToStderr()
    handler.setFormatter(logging.Formatter("%(relativeCreated)7d ms  %(message)s"))
    logger = logging.getLogger("voicechat")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
