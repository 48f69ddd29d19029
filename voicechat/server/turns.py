"""When does a turn begin and end?  Told from voice activity, in the time of the sound itself."""

from dataclasses import dataclass
from typing import Literal

from voicechat.server.contract import HOP_MS

START_HOPS = 2
"""So many voiced hops begin a turn: a click lasts one."""
RELEASE = 0.15
"""Speech that has begun goes on down to this much below the threshold."""
SPECULATION_MS = 200
"""After so much silence the words are worth working out: the turn is probably over."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What `session.audio.input.turn_detection` asks for."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 200


@dataclass(frozen=True, slots=True)
class Began:
    """A turn began at `at_ms`, padding included."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn ended at `at_ms`, the silence that told so included."""

    at_ms: int


Change = Began | Ended | Literal["paused", "resumed"]


class TurnDetector:
    """Follows voice activity hop by hop and tells where turns begin and end."""

    def __init__(self) -> None:
        self.is_speech = False
        self.position_ms = 0
        """How much sound has been judged, from the first of the connection."""
        self._floor_ms = 0
        self._voiced_hops = 0
        self._silence_ms = 0

    def reset(self, floor_ms: int) -> None:
        """Forget the turn that may have begun; sound before `floor_ms` begins none."""
        self.is_speech = False
        self._floor_ms = floor_ms
        self._voiced_hops = self._silence_ms = 0

    def hear(self, probability: float, rules: TurnRules | None) -> Change | None:
        """Take in the next hop.  Without rules nobody wants to know, but time goes on."""
        self.position_ms += HOP_MS
        if rules is None or self.position_ms <= self._floor_ms:
            return None
        if not self.is_speech:
            return self._hear_silence(probability, rules)
        if probability >= rules.threshold - RELEASE:
            was_paused = self._silence_ms >= SPECULATION_MS
            self._silence_ms = 0
            return "resumed" if was_paused else None
        was_paused = self._silence_ms >= SPECULATION_MS
        self._silence_ms += HOP_MS
        if self._silence_ms >= rules.silence_duration_ms:
            self.reset(self.position_ms)
            return Ended(self.position_ms)
        return "paused" if not was_paused and self._silence_ms >= SPECULATION_MS else None

    def _hear_silence(self, probability: float, rules: TurnRules) -> Change | None:
        self._voiced_hops = self._voiced_hops + 1 if probability >= rules.threshold else 0
        if self._voiced_hops < START_HOPS:
            return None
        self.is_speech = True
        start_ms = self.position_ms - START_HOPS * HOP_MS - rules.prefix_padding_ms
        return Began(max(start_ms, self._floor_ms))
