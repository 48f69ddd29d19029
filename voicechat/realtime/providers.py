"""The endpoints that speak the Realtime API, or nearly: what each deviates in, a row each.

`PROVIDERS` is the table; to add one is to add a row to it and a test.  Nothing else in the program
asks for the name of a provider, only for what it can do.

Sources: the Realtime references of OpenAI, Microsoft, xAI, Alibaba and StepFun, and what the
projects of the compatible servers write about theirs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from voicechat.pcm import SAMPLE_RATE
from voicechat.realtime.abilities import Abilities
from voicechat.realtime.configuration import (
    DEFAULT_MODEL,
    DEFAULT_TRANSCRIPTION_MODEL,
    DEFAULT_VOICE,
    Configuration,
)

Dialect = Literal["ga", "beta"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An endpoint, and how to talk to it."""

    name: str
    title: str
    # How to get there
    url: str | None = None
    """Where it is; None: the user must say it."""
    url_variable: str = ""
    """Environment variable that says it as well."""
    hosts: tuple[str, ...] = ()
    """Hosts that are its own; those that begin with a dot are ends of names."""
    path: str = ""
    """What completes an address that is only a host."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key."""
    needs_key: bool = True
    key_header: str = "Authorization"
    """Where the key goes; in ``Authorization`` it is a bearer's."""
    token_variable: str = ""
    """Environment variable that may hold a token instead of a key, if it takes tokens."""
    # What to say, and how
    session: Callable[["Provider", Configuration], dict[str, Any]]
    """Makes the ``session`` of a ``session.update``."""
    speech: dict[str, Any]
    """In a ``response.create``: what asks for speech in so many words."""
    input_rate: int = SAMPLE_RATE
    """Hz of the sound it wants to hear; what it says is always at `SAMPLE_RATE`."""
    threshold: float = 0.5
    silence_ms: int = 500
    """How loud speech is, and how long the pause that ends a turn."""
    assistant_part: str | None = "output_text"
    """What it calls the text of an earlier answer; None: it takes no such items, and the history
    goes into one message of the user's."""
    takes_system: bool = True
    can_truncate: bool = True
    """It forgets what nobody heard; else only the transcript does."""
    takes_speed: bool = True
    """How fast it speaks can be chosen."""
    can_write: bool = True
    """It answers in writing, if asked to; else the words of what it speaks must do."""
    can_summarise: bool = True
    """It makes responses that the conversation does not notice."""
    lifetime: float | None = None
    """Seconds that a connection lasts, where it does not say so itself."""
    # Who answers
    model: str = DEFAULT_MODEL
    voice: str = DEFAULT_VOICE
    transcription_model: str = DEFAULT_TRANSCRIPTION_MODEL
    models: tuple[str, ...] = ()
    """Beginnings of the names of those it has; none: they are the user's own."""
    voices: tuple[str, ...] = ()

    @property
    def how_to_get_in(self) -> str:
        """A remedy where the key is refused."""
        return (
            f"See that {self.key_variable} gives a valid key, save one with `voicechat login "
            f"{self.name}`, or talk without one: `voicechat talk --local`."
        )

    @property
    def dialect(self) -> Dialect:
        """Under which names it knows the settings."""
        return "beta" if self.session is beta_session else "ga"

    def abilities(self, model: str) -> Abilities:
        """What a model of its takes."""
        return replace(
            Abilities.of(model),
            takes_assistant=self.assistant_part is not None,
            assistant_part=self.assistant_part or "",
            takes_system=self.takes_system,
        )

    def unknown(self, configuration: Configuration) -> list[str]:
        """What of the configuration it may not have, a line each: it is asked for all the same."""
        model, voice = configuration.model, configuration.voice
        lines = []
        if configuration.speed is not None and not self.takes_speed:
            lines.append(f"{self.title} does not let anyone choose how fast it speaks.")
        if configuration.text_only and not self.can_write:
            lines.append(f"{self.title} speaks all the same: only the words are taken.")
        if self.models and not model.startswith(self.models):
            lines.append(f"{model!r} is not among the models of {self.title} that are known here.")
        if self.voices and voice.lower() not in map(str.lower, self.voices):
            known = ", ".join(self.voices)
            lines.append(f"{voice!r} is not among the voices of {self.title}: {known}.")
        return lines

    def has_host(self, host: str) -> bool:
        """An address with this host is one of its."""
        return any(
            host.endswith(each) if each.startswith(".") else host == each for each in self.hosts
        )


# What a session.update holds ---------------------------------------------------------------------


def ga_session(provider: Provider, configuration: Configuration) -> dict[str, Any]:
    """As OpenAI has it since the general availability of the API.

    Every field of the turn detection is sent, because servers' defaults differ from what their
    documentation says (200 ms of silence on the wire, 500 in the docs).
    """
    heard = {
        "format": {"type": "audio/pcm", "rate": provider.input_rate},
        "transcription": _transcription(configuration),
        "turn_detection": _turn_detection(provider, configuration),
    }
    if configuration.noise_reduction is not None:
        heard["noise_reduction"] = _noise_reduction(configuration)
    spoken: dict[str, Any] = {
        "format": {"type": "audio/pcm", "rate": SAMPLE_RATE},
        "voice": configuration.voice,
    }
    if configuration.speed is not None and provider.takes_speed:
        spoken["speed"] = configuration.speed
    return {
        "type": "realtime",
        "output_modalities": ["text" if configuration.text_only else "audio"],
        "instructions": configuration.instructions,
        "audio": {"input": heard, "output": spoken},
    }


def beta_session(provider: Provider, configuration: Configuration) -> dict[str, Any]:
    """As OpenAI had it before, and many compatible servers still do: flat, under older names."""
    detection = _turn_detection(provider, configuration)
    if detection is not None:
        detection.pop("idle_timeout_ms", None)  # which is new in GA
    session: dict[str, Any] = {
        "modalities": ["text"] if configuration.text_only else ["text", "audio"],
        "instructions": configuration.instructions,
        "voice": configuration.voice,
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm16",
        "input_audio_transcription": _transcription(configuration),
        "turn_detection": detection,
    }
    if configuration.noise_reduction is not None:
        session["input_audio_noise_reduction"] = _noise_reduction(configuration)
    if configuration.speed is not None and provider.takes_speed:
        session["speed"] = configuration.speed
    return session


def xai_session(provider: Provider, configuration: Configuration) -> dict[str, Any]:
    """As xAI has it: the voice and the turn detection stand where they stood in the beta, and it
    always speaks."""
    session = ga_session(provider, configuration)
    del session["output_modalities"]
    session["turn_detection"] = session["audio"]["input"].pop("turn_detection")
    session["voice"] = session["audio"]["output"].pop("voice")
    return session


def _transcription(configuration: Configuration) -> dict[str, Any]:
    transcription = {"model": configuration.transcription_model}
    if configuration.language:
        transcription["language"] = configuration.language
    return transcription


def _noise_reduction(configuration: Configuration) -> dict[str, Any] | None:
    kind = configuration.noise_reduction
    return None if kind == "off" else {"type": f"{kind}_field"}


def _turn_detection(provider: Provider, configuration: Configuration) -> dict[str, Any] | None:
    match configuration.vad:
        case "server":
            return {
                "type": "server_vad",
                "threshold": provider.threshold,
                "prefix_padding_ms": 300,
                "silence_duration_ms": provider.silence_ms,
                "idle_timeout_ms": None,
                "create_response": True,
                "interrupt_response": True,
            }
        case "semantic":
            return {
                "type": "semantic_vad",
                "eagerness": "auto",
                "create_response": True,
                "interrupt_response": True,
            }
        case "none":
            return None


# The table ---------------------------------------------------------------------------------------

_Ga = partial(Provider, session=ga_session, speech={"output_modalities": ["audio"]})
_Beta = partial(
    Provider,
    session=beta_session,
    speech={"modalities": ["text", "audio"]},
    assistant_part="text",
    can_summarise=False,
    voice="alloy",
    transcription_model="whisper-1",
)

OPENAI = _Ga(
    name="openai",
    title="OpenAI",
    url="wss://api.openai.com/v1/realtime",
    hosts=("api.openai.com",),
    models=("gpt-realtime", "gpt-4o-realtime", "gpt-4o-mini-realtime", "gpt-audio"),
    voices=(
        *("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"),
        *("marin", "cedar"),
    ),
)
AZURE = _Ga(
    name="azure",
    title="Azure OpenAI",
    url_variable="AZURE_OPENAI_ENDPOINT",
    hosts=(".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
    path="/openai/v1/realtime",
    key_variable="AZURE_OPENAI_API_KEY",
    key_header="api-key",
    token_variable="AZURE_OPENAI_AD_TOKEN",
    lifetime=1800,
    transcription_model="whisper-1",
    voices=OPENAI.voices,
)
LOCAL = _Ga(name="local", title="the built-in server", needs_key=False)
CUSTOM = _Ga(name="custom", title="a server of yours", needs_key=False)
CUSTOM_BETA = _Beta(name="custom", title="a server of yours", needs_key=False)

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        OPENAI,
        AZURE,
        Provider(
            name="xai",
            title="xAI",
            url="wss://api.x.ai/v1/realtime",
            hosts=("api.x.ai",),
            key_variable="XAI_API_KEY",
            session=xai_session,
            speech={},  # it does not write
            can_truncate=False,  # unreliably
            takes_speed=False,
            can_write=False,
            can_summarise=False,
            lifetime=3600,
            model="grok-voice-latest",
            voice="ara",
            transcription_model="grok-transcribe",
            models=("grok-voice",),
        ),
        _Beta(
            name="qwen",
            title="Alibaba's Model Studio",
            url="wss://dashscope.aliyuncs.com/api-ws/v1/realtime",
            hosts=("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"),
            path="/api-ws/v1/realtime",
            key_variable="DASHSCOPE_API_KEY",
            input_rate=16_000,
            threshold=0.2,
            silence_ms=800,
            assistant_part=None,
            takes_system=False,
            can_truncate=False,
            lifetime=7200,
            model="qwen3-omni-flash-realtime",
            voice="Cherry",
            transcription_model="gummy-realtime-v1",
            models=("qwen",),
        ),
        _Beta(
            name="stepfun",
            title="StepFun",
            url="wss://api.stepfun.com/v1/realtime",
            hosts=("api.stepfun.com",),
            key_variable="STEPFUN_API_KEY",
            can_truncate=False,
            lifetime=1800,
            model="step-audio-2",
            voice="linjiajiejie",
            models=("step",),
        ),
        _Beta(
            name="speaches",
            title="speaches",
            url="ws://localhost:8000/v1/realtime",
            key_variable="SPEACHES_API_KEY",
            needs_key=False,
            can_truncate=False,
        ),
        _Ga(
            name="localai",
            title="LocalAI",
            url="ws://localhost:8080/v1/realtime",
            key_variable="LOCALAI_API_KEY",
            needs_key=False,
            can_truncate=False,
            can_summarise=False,
            transcription_model="whisper-1",
            voice="alloy",
        ),
        _Ga(
            name="vllm",
            title="vLLM-Omni",
            url="ws://localhost:8000/v1/realtime",
            key_variable="VLLM_API_KEY",
            needs_key=False,
            input_rate=16_000,
            assistant_part=None,
            takes_system=False,
            can_truncate=False,
            can_summarise=False,
            voice="default",
        ),
        _Ga(
            name="speech-to-speech",
            title="Hugging Face's speech-to-speech",
            url="ws://127.0.0.1:8765/v1/realtime",
            key_variable="SPEECH_TO_SPEECH_API_KEY",
            needs_key=False,
            assistant_part=None,  # versions before 1.0 take the user's items only
            takes_system=False,
            can_truncate=False,
        ),
        LOCAL,
        CUSTOM,
    )
}


def provider_named(name: str, dialect: Dialect | None = None) -> Provider | None:
    """The one with this name, if there is one; the user's own server speaks one of two dialects."""
    return CUSTOM_BETA if name == CUSTOM.name and dialect == "beta" else PROVIDERS.get(name)


def provider_of(host: str) -> Provider:
    """Whose host that is: one of the table's, or else the user's own server."""
    known = (each for each in PROVIDERS.values() if each.has_host(host.lower().rstrip(".")))
    return next(known, CUSTOM)
