"""The session's own clock: it runs while there is a conversation, and rests between runs."""


class Timeline:
    """Turns a monotonic clock into milliseconds since the session began."""

    def __init__(self, base_ms: int) -> None:
        self._base_ms = base_ms
        self._started: float | None = None

    def start(self, now: float) -> None:
        """Go on from where the last run ended, at the first call."""
        if self._started is None:
            self._started = now

    def ms(self, now: float) -> int:
        """Where the session is."""
        elapsed = now - self._started if self._started is not None else 0.0
        return self._base_ms + round(elapsed * 1000)

    def catch_up(self, ms: int, now: float) -> None:
        """Something ended at `ms`: a speaker that need not wait (a file) is ahead of the clock."""
        self._base_ms += max(0, ms - self.ms(now))
