"""The options of ``talk`` and ``resume``, each as a type that says what it is on a command line."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from voicechat.cli import profile
from voicechat.cli.complete import devices, profiles, sessions
from voicechat.realtime import configuration, providers
from voicechat.realtime.providers import PROVIDERS
from voicechat.sound import EchoMode


def _profile(apply: Callable[[typer.Context, str | None], str | None]) -> Any:
    return typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        envvar=profile.VARIABLE,
        is_eager=True,
        callback=apply,
        autocompletion=profiles,
        help="Use this profile of the settings file; see `voicechat config`.",
    )


Profile = Annotated[str | None, _profile(profile.apply)]
ProfileIfRight = Annotated[str | None, _profile(profile.apply_if_right)]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="SESSION",
        autocompletion=sessions,
        help="Go on with a saved session: its id, the beginning of it, its name, or `last`.",
    ),
]
Continue = Annotated[
    bool, typer.Option("--continue", "-c", help="Go on with the session last used.")
]
Fork = Annotated[
    bool,
    typer.Option("--fork", help="Go on in a copy of the saved session, which stays as it is."),
]
InputFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="FILE",
        help="Be heard from a sound file (WAV, FLAC, Ogg, MP3) instead of the microphone; - is "
        "raw PCM16 24 kHz from standard input. May be repeated.",
    ),
]
Text = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="Type this turn. May be repeated; files come first."),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="With --input or --text: write the answers to a WAV file; - is raw PCM16 24 kHz "
        "to standard output (the transcript then goes to standard error).",
    ),
]
InputDevice = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        envvar="VOICECHAT_INPUT_DEVICE",
        autocompletion=devices("input"),
        help="Microphone: its number or part of its name; see `voicechat devices`. [default: "
        "the system's]",
    ),
]
OutputDevice = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        envvar="VOICECHAT_OUTPUT_DEVICE",
        autocompletion=devices("output"),
        help="Speaker, likewise.",
    ),
]
Latency = Annotated[
    str,
    typer.Option(
        metavar="low|safe|SECONDS",
        envvar="VOICECHAT_LATENCY",
        help="How far the sound card may lag: `safe` is 0.1 s on each side, `low` as little "
        "as the system allows, which breaks off on a busy computer.",
    ),
]
Echo = Annotated[
    EchoMode,
    typer.Option(
        envvar="VOICECHAT_ECHO",
        help="Against the assistant hearing itself on loudspeakers: cancel the echo, close "
        "the microphone while an answer plays, or nothing. `auto` cancels where it can.",
    ),
]
NoiseReduction = Annotated[
    configuration.NoiseReduction | None,
    typer.Option(
        envvar="VOICECHAT_NOISE_REDUCTION",
        help="By the server: `near` for a headset, `far` for a microphone across the room, or "
        "`off`. [default: the server's]",
    ),
]
Record = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="VOICECHAT_RECORD",
        help="Keep the sound as well, you on the left and the assistant on the right, in a "
        ".wav or .flac file; `auto`: beside the saved session, for `voicechat export`.",
    ),
]
Local = Annotated[
    bool,
    typer.Option(
        "--local", envvar="VOICECHAT_LOCAL", help="Use the built-in server: no key, no network."
    ),
]
Provider = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="VOICECHAT_PROVIDER",
        autocompletion=lambda: list(PROVIDERS),
        help=f"Who answers: {', '.join(PROVIDERS)}. [default: the one that --url belongs to, or "
        "openai]",
    ),
]
Dialect = Annotated[
    providers.Dialect | None,
    typer.Option(
        envvar="VOICECHAT_DIALECT",
        help="What a server of yours speaks: the API as OpenAI has it now, or as it was before. "
        "[default: ga]",
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="VOICECHAT_URL",
        help="Realtime server, if not the provider's own, such as ws://127.0.0.1:8000/v1/realtime. "
        "A model in it (?model=) is the one that answers. [default: the provider's]",
    ),
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="VOICECHAT_API_KEY_ENV",
        help="Environment variable that holds the key. [default: the provider's, such as "
        "OPENAI_API_KEY]",
    ),
]
Ca = Annotated[
    str | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        envvar="VOICECHAT_CA",
        help="Trust the authorities in this PEM file, too, when the server shows its certificate.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Trust any certificate of a server on this machine."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        envvar="VOICECHAT_MODEL",
        help="Model that answers. [default: the provider's, such as "
        f"{configuration.DEFAULT_MODEL}]",
    ),
]
Voice = Annotated[
    str | None,
    typer.Option(
        metavar="VOICE",
        envvar="VOICECHAT_VOICE",
        help="Voice that answers. [default: the provider's, such as "
        f"{configuration.DEFAULT_VOICE}]",
    ),
]
Instructions = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        envvar="VOICECHAT_INSTRUCTIONS",
        help="How the assistant is to behave; @FILE reads it from a file.",
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        metavar="CODE",
        envvar="VOICECHAT_LANGUAGE",
        help="What you speak, such as `en` or `de`; helps to write down your words.",
    ),
]
TranscriptionModel = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        envvar="VOICECHAT_TRANSCRIPTION_MODEL",
        help="What writes down your words. [default: the provider's, such as "
        f"{configuration.DEFAULT_TRANSCRIPTION_MODEL}]",
    ),
]
Vad = Annotated[
    configuration.Vad | None,
    typer.Option(
        envvar="VOICECHAT_VAD",
        help="How the end of your turn is found: by silence, by meaning, or by the space bar. "
        "[default: server]",
    ),
]
ReconnectFor = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        envvar="VOICECHAT_RECONNECT_FOR",
        help="How long to try to get a lost line back; 0: not at all.",
    ),
]
RotateAfter = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        envvar="VOICECHAT_ROTATE_AFTER",
        help="Move to a fresh connection so early, rather than shortly before the server's limit.",
    ),
]
ReplayTokens = Annotated[
    int | None,
    typer.Option(
        metavar="NUMBER",
        envvar="VOICECHAT_REPLAY_TOKENS",
        min=1,
        max=10_000_000,
        help="Restore at most so many tokens, and the last turn. [default: what fits the "
        "model's context]",
    ),
]
NoSummary = Annotated[
    bool,
    typer.Option(
        "--no-summary",
        envvar="VOICECHAT_NO_SUMMARY",
        help="Leave out older turns that do not fit, instead of summarising them.",
    ),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        envvar="VOICECHAT_MAX_MINUTES",
        help="Hang up after so long; said a minute before.",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        metavar="DOLLARS",
        envvar="VOICECHAT_MAX_COST",
        help="Hang up when this run has cost so many US dollars, after the answer that does it; "
        "said at 80 %.",
    ),
]
HangUpAfter = Annotated[
    float,
    typer.Option(
        metavar="MINUTES",
        envvar="VOICECHAT_HANG_UP_AFTER",
        help="Hang up after so much silence on both sides, except with files and texts; said a "
        "minute before. 0: never.",
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        envvar="VOICECHAT_SPEED",
        help="How fast answers are spoken, from 0.25 to 1.5. [default: the server's]",
    ),
]
TextOnly = Annotated[
    bool,
    typer.Option(
        "--text-only",
        envvar="VOICECHAT_TEXT_ONLY",
        help="Answers are written, not spoken.",
    ),
]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="Give the session a name.")]
NoLog = Annotated[
    bool,
    typer.Option("--no-log", envvar="VOICECHAT_NO_LOG", help="Save nothing of this."),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print every turn and every change of state as a line of JSON, for other programs.",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", envvar="VOICECHAT_VERBOSE", help="Show every event."),
]
Trace = Annotated[
    str | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        envvar="VOICECHAT_TRACE",
        help="Write every event and decision to a new file, for a bug report: with what is said, "
        "without sound and keys. See `voicechat replay-trace`.",
    ),
]
