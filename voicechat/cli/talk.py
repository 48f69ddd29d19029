"""``voicechat talk``: from options to a plan."""

import logging
import shlex
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import typer

from voicechat.cli import options
from voicechat.cli.endpoint import Endpoint, find_server, saved_provider, with_key
from voicechat.cli.profile import prices
from voicechat.cli.sync import sync_first
from voicechat.cli.values import (
    PUBLIC_PARAMETERS,
    RANGES,
    check_sound_names,
    is_flag,
    parse_latency,
    read_instructions,
    session_name,
)
from voicechat.errors import UsageError
from voicechat.history.forks import fork_name
from voicechat.history.log import SessionLog
from voicechat.history.sessions import LAST, SavedSession, find_session, load_and_count
from voicechat.prices import is_known
from voicechat.realtime.configuration import Configuration
from voicechat.realtime.policy import HANG_UP_AFTER, RECONNECT_FOR, Policy
from voicechat.realtime.providers import CUSTOM, LOCAL, OPENAI
from voicechat.settings import sessions_directory
from voicechat.transcript import Opened, Transcript, printable, unbroken


def talk(
    context: typer.Context,
    *,
    profile: options.Profile = None,
    resume: options.Resume = None,
    continue_: options.Continue = False,
    fork: options.Fork = False,
    input_files: options.InputFiles = None,
    text: options.Text = None,
    output: options.Output = None,
    input_device: options.InputDevice = None,
    output_device: options.OutputDevice = None,
    latency: options.Latency = "safe",
    echo: options.Echo = "auto",
    noise_reduction: options.NoiseReduction = None,
    record: options.Record = None,
    local: options.Local = False,
    provider: options.Provider = None,
    dialect: options.Dialect = None,
    url: options.Url = None,
    api_key_env: options.ApiKeyEnv = None,
    ca: options.Ca = None,
    insecure: options.Insecure = False,
    model: options.Model = None,
    voice: options.Voice = None,
    instructions: options.Instructions = None,
    language: options.Language = None,
    transcription_model: options.TranscriptionModel = None,
    vad: options.Vad = None,
    reconnect_for: options.ReconnectFor = RECONNECT_FOR,
    rotate_after: options.RotateAfter = None,
    replay_tokens: options.ReplayTokens = None,
    no_summary: options.NoSummary = False,
    max_minutes: options.MaxMinutes = None,
    max_cost: options.MaxCost = None,
    hang_up_after: options.HangUpAfter = HANG_UP_AFTER,
    speed: options.Speed = None,
    text_only: options.TextOnly = False,
    name: options.Name = None,
    no_log: options.NoLog = False,
    json: options.Json = False,
    verbose: options.Verbose = False,
    trace: options.Trace = None,
) -> None:
    """Talk with the assistant, by sound card or with files.

    While you talk: m mutes, t or Enter types a turn, i or Esc interrupts the answer, as speaking
    does, r repeats it, s skips the wait for a summary, q or Ctrl-C hangs up, ? shows all keys; with
    --vad none, Space begins and ends your turn, or is held where the terminal can tell. With
    --input or --text, no key of the keyboard is read, and Ctrl-C hangs up.
    """
    # Here, not above: --help and the other commands must not wait for all this.
    from voicechat.realtime.connection import realtime_url
    from voicechat.realtime.network import Network
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
    if output == "-" and json:
        raise UsageError(
            "--json and --output - both want standard output",
            remedy="Name a file, such as `--output answer.wav`.",
        )
    if output is not None and text_only:
        raise UsageError(
            "--output is for what is spoken, and with --text-only nothing is",
            remedy="Leave out one of the two.",
        )
    check_sound_names(output, record)
    if record == "auto" and no_log:
        raise UsageError(
            "--record auto is for beside the saved session, and --no-log saves none",
            remedy="Name a file, such as `--record talk.flac`.",
        )
    for option, (least, most) in RANGES.items():
        value = context.params[option]
        if value is not None and not least <= value <= most:  # nan is nowhere
            raise UsageError(
                f"--{option.replace('_', '-')} {value:g} is out of range",
                remedy=f"Give a number from {least:g} to {most:g}.",
            )
    wanted = _wanted(context, resume, is_last=continue_)
    if wanted is None and is_flag(context, "fork"):
        raise UsageError("--fork needs a session", remedy="Name one with --resume, or add -c.")
    fork = fork and wanted is not None
    costs = prices(profile)
    if verbose:
        _log_to_stderr()
    with ExitStack() as stack:
        log, transcript, fork_of = None, Transcript(), None
        if wanted is not None:
            sync_first(profile)
            session = _wanted_session(wanted)
            if fork:
                fork_of = session.path
            elif not no_log:
                log = stack.enter_context(closing(SessionLog(session.path)))
            transcript = _loaded(session)  # nobody else adds to it any more
        server = with_key(find_server(context, transcript.opened))
        is_local = server.provider is LOCAL
        network = Network(Path(ca) if ca is not None else None, insecure)
        if not is_local:
            network.check(realtime_url(server.url, ""))  # is it one?
        configuration = _configuration(context, transcript.opened, server)
        if max_cost is not None and not (is_local or is_known(configuration.model, costs)):
            raise UsageError(
                f"--max-cost needs the price of {configuration.model!r}, which is not known",
                remedy="Name a file with prices in VOICECHAT_PRICES, or leave out --max-cost.",
            )
        for line in server.provider.unknown(configuration):
            typer.echo(printable(line), err=True)
        start(
            Plan(
                configuration=configuration,
                provider=server.provider,
                policy=Policy(
                    reconnect_for=reconnect_for,
                    rotate_after=rotate_after * 60 if rotate_after is not None else None,
                    replay_tokens=replay_tokens,
                    use_summary=not no_summary,
                    can_skip=not (inputs or texts) and sys.stdin.isatty(),
                    can_go_on_unsaved=not (inputs or texts) and sys.stdin.isatty(),
                    max_seconds=max_minutes * 60 if max_minutes is not None else None,
                    max_cost=max_cost if not is_local else None,
                    prices=costs,
                    hang_up_after=hang_up_after * 60 or None if not (inputs or texts) else None,
                ),
                url=server.url,
                api_key=server.api_key,
                token_command=server.token_command,
                network=network,
                local=is_local,
                inputs=inputs,
                texts=texts,
                output=output,
                microphone=input_device,
                speaker=output_device,
                latency=parse_latency(latency),
                echo=echo,
                record=record,
                trace=trace,
                name=session_name(name) or (fork_name(transcript.name) if fork else None),
                fork_of=fork_of,
                inherited=len(transcript.spoken) if fork else 0,
                prices=costs,
                sessions=None if no_log else sessions_directory(),
                log=log,
                transcript=transcript,
                resume_options=_resume_options(context),
                json=json,
            )
        )


def _wanted(context: typer.Context, resume: str | None, *, is_last: bool) -> str | None:
    """The session to go on with, if any; a flag goes before what the settings file says."""
    is_named = resume is not None
    if is_named and is_last:
        if is_flag(context, "resume") == is_flag(context, "continue_"):
            raise UsageError("--continue and --resume name two sessions", remedy="Leave out one.")
        is_last = is_flag(context, "continue_")
    return LAST if is_last else resume


def _wanted_session(wanted: str) -> SavedSession:
    session = find_session(sessions_directory(), wanted)
    if wanted == LAST:
        name = f' "{session.name}"' if session.name else ""
        used = f"{session.last_used.astimezone():%Y-%m-%d %H:%M}"
        typer.echo(f"Going on with {session.id}{name}, last used {used}.", err=True)
    return session


def _loaded(session: SavedSession) -> Transcript:
    transcript, passed_over = load_and_count(session)
    if passed_over:
        lines = "line" if passed_over == 1 else "lines"
        typer.echo(f"Passed over {passed_over} {lines} that cannot be read.", err=True)
    return transcript


def _is_same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)  # also through links
    except OSError:
        return False


def _configuration(context: typer.Context, saved: Opened | None, server: Endpoint) -> Configuration:
    """Flag, then saved session, then environment, then default.

    Raises:
        UsageError: The address and --model name two models.
    """
    from voicechat.realtime.network import model_in

    provider = server.provider
    of_the_server = ("model", "voice", "transcription_model")  # another has others
    of_this_run = ("noise_reduction", "speed", "text_only")  # and not saved
    before = saved_provider(saved)  # which older files do not say; there were two
    is_another = provider.name not in ((before,) if before else (OPENAI.name, CUSTOM.name))
    chosen: dict[str, Any] = {name: context.params[name] for name in of_this_run}
    for name in (*of_the_server, "instructions", "language", "vad"):
        value = context.params[name]
        if name == "instructions" and value is not None and value.startswith("@"):
            value = read_instructions(Path(value[1:]))  # not what is saved: that is no path
        applies = saved is not None and not (is_another and name in of_the_server)
        if applies and not is_flag(context, name):
            value = getattr(saved, name) or value
        if value is None and name in of_the_server:
            value = getattr(provider, name)
        if value is not None:
            chosen[name] = unbroken(value)
    if named := unbroken(model_in(server.url)):
        if is_flag(context, "model") and chosen["model"] != named:
            raise UsageError(
                f"--model {chosen['model']!r} is not the model in the address, {named!r}",
                remedy="Leave out one of the two.",
            )
        chosen["model"] = named
    return Configuration(**chosen)


def _resume_options(context: typer.Context) -> str:
    """What was said about the server on the command line must be said again; the rest is saved."""
    options = ""
    if is_flag(context, "profile"):
        options += f" -p {shlex.quote(context.params['profile'])}"
    if is_flag(context, "dialect"):
        options += f" --dialect {context.params['dialect']}"
    if is_flag(context, "local"):  # which the session says as well, but the profile may not
        options += " --local" * is_flag(context, "profile")
    elif is_flag(context, "provider"):
        options += f" --provider {shlex.quote(context.params['provider'])}"
    if is_flag(context, "url"):
        url = context.params["url"]
        parts = urlsplit(url)
        is_open = not parts.username and parse_qs(parts.query).keys() <= PUBLIC_PARAMETERS
        options += f" --url {shlex.quote(url) if is_open else '...'}"
    if is_flag(context, "api_key_env") and context.params["api_key_env"]:
        options += f" --api-key-env {shlex.quote(context.params['api_key_env'])}"
    if is_flag(context, "ca"):
        options += f" --ca {shlex.quote(context.params['ca'])}"
    if is_flag(context, "insecure"):
        options += " --insecure"
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
