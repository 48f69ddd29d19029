"""Asking for answers: two are never being made at once, and what fails is tried once more."""

import re
from collections.abc import Iterator
from typing import Any

from voicechat.realtime.effects import Effect
from voicechat.realtime.events import Json, ResponseCreate
from voicechat.realtime.line import Line
from voicechat.realtime.problems import RESPOND
from voicechat.transcript import Usage

ANSWER_TIMEOUT = 30.0
RETRY_AFTER = 2.0
LONGEST_RETRY = 20.0
UNKNOWN = "unknown"
"""Stands for the id of a response that was not announced."""

_TRY_AGAIN_IN = re.compile(r"try again in (\d+(?:\.\d+)?)\s*(ms|s|m)\b", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}

REASONS = {
    "max_output_tokens": "it became too long for the server",
    "content_filter": "the server's filter stopped it",
    "rate_limit_exceeded": "too much was asked of the server in a short time",
    "client_cancelled": "it was cancelled",
}


class Responses:
    """What was asked of the server, and what it is making."""

    def __init__(self, deadlines: dict[str, float]) -> None:
        self.active: str | None = None
        """Id of the response that the server is making."""
        self._last = ""
        """The one before the active one."""
        self._ended: str | None = None
        """The last one whose end was told, until the next one begins."""
        self.is_asked = False
        """One was asked for, and the server has not begun it."""
        self.is_wanted = False
        """One more is to be asked for when this one is done."""
        self._is_needed = True
        self.is_given_up = False
        """The active one was to be cancelled, since nothing came of it any more."""
        self.must_speak = False
        """The server wrote where it should speak, and is reminded with every request."""
        self.has_retried = False
        """The last turn's answer failed, and was asked for once more."""
        self.reset_seconds = 0.0
        """When there is room for more tokens, as the server last said."""
        self._deadlines = deadlines

    @property
    def is_busy(self) -> bool:
        """The server makes one, or was asked to."""
        return self.active is not None or self.is_asked

    def ask(self, line: Line, now: float, *, is_needed: bool = True) -> Iterator[Effect]:
        """Now, or when the response that is being made is done; that one is enough where this is
        not `is_needed`."""
        self._is_needed = is_needed
        self._deadlines.pop("ask again", None)
        self._deadlines["answer"] = now + ANSWER_TIMEOUT
        self.is_wanted = self.is_busy
        if not self.is_busy:
            self.is_asked, self._ended = True, None
            response = line.provider.speech or None if self.must_speak else None
            yield line.send(ResponseCreate(response, event_id=RESPOND))

    def begin(self, response_id: str) -> None:
        """The server makes one."""
        self.active, self.is_asked, self.is_given_up = response_id, False, False
        self._ended = None

    def is_news(self, response_id: str) -> bool:
        """The server makes this one without having said so."""
        return bool(response_id) and self.active is None and response_id != self._last

    def takes_end(self, response_id: str | None) -> bool:
        """The server says that it is done, and does so for the first time."""
        was_told = bool(response_id) and response_id == self._ended
        self._ended = response_id
        return not was_told

    def hear_busy(self) -> None:
        """The server was making one already, whichever: ours is to be asked for after it."""
        self.active, self.is_asked = self.active or UNKNOWN, False
        self.is_wanted = self._is_needed

    def end(self) -> None:
        """It is done, or nobody waits for it any more."""
        self._last = self.active or self._last
        self.active, self.is_asked = None, False
        self._deadlines.pop("answer", None)

    def forget(self) -> None:
        """Whoever was asked is gone."""
        self.end()
        self.is_wanted = False
        self._deadlines.pop("ask again", None)

    def retry_after(self, error: Json) -> float | None:
        """Seconds after which asking again may help; None if it does not, or was tried."""
        code = str(error.get("code") or "")
        is_passing = code in ("rate_limit_exceeded", "server_error") or (
            error.get("type") == "server_error"
        )
        if self.has_retried or not is_passing:
            return None
        said = _TRY_AGAIN_IN.search(str(error.get("message")))
        wait = float(said[1]) * _UNITS[said[2].lower()] if said else RETRY_AFTER
        if code == "rate_limit_exceeded" and not said:
            wait = max(wait, self.reset_seconds)
        return min(wait, LONGEST_RETRY)


def in_words(reason: str) -> str:
    """Why there was no answer, or not all of one, for the user."""
    return REASONS.get(reason, reason)


def usage_of(response: Json, beside: Json | None, model: str) -> Usage | None:
    """What a response took; what is cached or sound is part of the input, not added to it."""
    usage = response.get("usage") or beside
    if not isinstance(usage, dict):
        return None
    given = _object(usage.get("input_token_details"))
    return Usage(
        input_tokens=_number(usage.get("input_tokens")),
        cached_tokens=_number(given.get("cached_tokens")),
        input_audio_tokens=_number(given.get("audio_tokens")),
        cached_audio_tokens=_number(
            _object(given.get("cached_tokens_details")).get("audio_tokens")
        ),
        output_tokens=_number(usage.get("output_tokens")),
        output_audio_tokens=_number(_object(usage.get("output_token_details")).get("audio_tokens")),
        model=model,
    )


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 10**12 else 0
