"""How a conversation stands, for whoever shows it: a screen, or another program."""

from typing import Literal

from voicechat.realtime.state import Floor, Link, State
from voicechat.transcript import Role

Standing = Literal[
    "connecting",
    "summarising",
    "restoring",
    "listening",
    "waiting",
    "muted",
    "speaking",
    "thinking",
    "answering",
    "lost",
    "leaving",
]
"""``waiting`` is for the talk key, ``speaking`` is the user; README describes them all."""

_FLOORS: dict[Floor, Standing] = {
    Floor.USER: "speaking",
    Floor.THINKING: "thinking",
    Floor.ASSISTANT: "answering",
}


class View:
    """What may be seen of a conversation, as it is at the moment of asking."""

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def standing(self) -> Standing:
        """What goes on, in one word."""
        state = self._state
        match state.link:
            case Link.LEAVING | Link.CLOSED:
                return "leaving"
            case Link.OPENING if state.lines.is_summarising:
                return "summarising"
            case Link.OPENING:
                return "restoring" if self._is_restoring else "connecting"
            case Link.LOST:
                return "restoring" if self._is_restoring else "lost"
            case Link.LIVE:
                pass
        if (floor := state.floor) is not Floor.OPEN:
            return _FLOORS[floor]
        if state.is_deaf:
            return "muted"
        return "waiting" if state.is_shut else "listening"

    @property
    def _is_restoring(self) -> bool:
        return bool(self.progress and self.progress[1])

    @property
    def progress(self) -> tuple[int, int] | None:
        """While nothing serves, and a server is told what was said: how many items of how many
        are settled."""
        return self._state.lines.progress

    @property
    def is_deaf(self) -> bool:
        """The microphone is muted."""
        return self._state.is_deaf

    @property
    def words(self) -> dict[str, tuple[Role, str]]:
        """What has come of turns that are not final: whose it is and the words, by item id."""
        words: dict[str, tuple[Role, str]] = {}
        for item_id, text in self._state.user.words.items():
            words[item_id] = ("user", text)
        for item_id, text in self._state.assistant.words.items():
            words[item_id] = ("assistant", text)
        return words

    @property
    def latency(self) -> float | None:
        """Seconds from the end of the last turn that was answered to the first sound of that."""
        return self._state.latency
