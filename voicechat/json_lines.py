"""What happens, for other programs: a JSON object a line, documented in the README."""

from typing import TextIO

from voicechat.display import Display
from voicechat.realtime.conversation import Conversation
from voicechat.realtime.view import Standing
from voicechat.transcript import Transcript, Turn, to_json


class JsonLines(Display):
    """Writes every turn that is final, as `Display` prints it, and every change of the standing."""

    def __init__(self, out: TextIO, err: TextIO, transcript: Transcript) -> None:
        super().__init__(out, err, transcript)
        self._transcript = transcript
        self._standing: Standing | None = None

    def follow(self, conversation: Conversation, now: float) -> None:
        """Tell what goes on from now on, if that is something else.

        Raises:
            OutputError: Nobody reads any more.
        """
        standing = conversation.view.standing
        if standing != self._standing:
            self._standing = standing
            self._tell("state", state=standing, at_ms=conversation.timeline_ms(now))

    def _print(self, turn: Turn) -> None:
        self._tell(
            "turn",
            item_id=turn.item_id,
            role=turn.role,
            text=turn.text,
            status=turn.status,
            start_ms=turn.start_ms,
            end_ms=turn.end_ms,
            saved=self._session is not None and not self.is_failing_to_save,
        )

    @property
    def _session(self) -> str | None:
        """Its id, if it is saved."""
        opened = self._transcript.opened
        return (opened.session or None) if opened is not None else None

    def _tell(self, kind: str, **facts: str | int) -> None:
        self._write(to_json({"type": kind, "session": self._session, **facts}) + "\n")
