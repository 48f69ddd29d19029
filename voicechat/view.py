"""From a conversation to what is shown of it."""

from collections.abc import Container, Iterator, Mapping

from voicechat.prices import Price, spent_in_short
from voicechat.realtime.conversation import Conversation
from voicechat.realtime.view import Standing
from voicechat.screen import Editor, Live, Shown, Typed
from voicechat.sound import EchoMode

LATEST = 30
"""Turns among which those that are not over are looked for: they are the last ones."""
_WORDS: dict[Standing, tuple[str, str]] = {
    "connecting": ("connecting", "yellow"),
    "summarising": ("summarising", "yellow"),
    "restoring": ("restoring", "yellow"),
    "listening": ("listening", "bold green"),
    "waiting": ("Space talks", "bold green"),
    "muted": ("muted", "bold yellow"),
    "speaking": ("you speak", "bold"),
    "thinking": ("thinking", "bold magenta"),
    "answering": ("answering", "bold cyan"),
    "lost": ("line lost", "bold red"),
    "leaving": ("hanging up", "yellow"),
}
"""What a standing is called on the screen, and how it looks there."""


def shown(
    conversation: Conversation,
    now: float,
    *,
    microphone: int,
    speaker: int,
    echo: EchoMode | None,
    prices: Mapping[str, Price],
    printed: Container[str],
    editor: Editor | None = None,
    keys: tuple[tuple[str, str, str], ...] = (),
) -> Shown:
    """What there is to see now.

    Args:
        microphone: How loud it is; so is `speaker`.
        printed: The turns that were shown for good, by item id.
        keys: Each key, what it does, and that in short.
    """
    view, transcript = conversation.view, conversation.transcript
    words, style = _WORDS[view.standing]
    if view.standing == "restoring" and view.progress is not None:
        words += " {}/{}".format(*view.progress)
    is_typed = editor is not None and editor.is_open
    return Shown(
        standing=words,
        style=style,
        turns=tuple(_live_turns(conversation, printed)),
        microphone=None if view.is_deaf else microphone,
        speaker=speaker,
        echo=echo,
        elapsed_s=conversation.timeline_ms(now) // 1000,
        spent=spent_in_short(transcript, prices),
        latency_ms=round(view.latency * 1000) if view.latency is not None else None,
        typed=Typed(editor.text, editor.cursor) if editor is not None and is_typed else None,
        keys=keys if editor is not None and editor.help_is_open else (),
    )


def _live_turns(conversation: Conversation, printed: Container[str]) -> Iterator[Live]:
    """The turns that are not over, and those behind them, in order."""
    words = conversation.view.words
    for turn in conversation.transcript.turns[-LATEST:]:
        _, said = words.pop(turn.item_id, ("", ""))
        is_empty = turn.is_settled and not turn.text
        if turn.item_id not in printed and not is_empty:
            text = turn.text if turn.is_settled else said or turn.text
            yield Live(turn.item_id, turn.role, text, turn.mark if turn.is_settled else "")
    for item_id, (role, text) in words.items():
        if text and conversation.transcript.get(item_id) is None:
            yield Live(item_id, role, text)
