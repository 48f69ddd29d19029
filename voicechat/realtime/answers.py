"""An answer on its way to the ear: what was received of it, and what was heard."""

import re
from dataclasses import dataclass, field

from voicechat.pcm import BYTES_PER_MS
from voicechat.transcript import Status

_SENTENCE_END = re.compile("[.!?\u2026]+[\"'\u201d\u2019)\\]]*\\s+|[\u3002\uff01\uff1f]+|\n+")
_LONGEST_UNSAVED = 240  # characters; not every language has sentence marks


@dataclass(slots=True)
class Answer:
    """The assistant's item that is being received or played."""

    item_id: str
    """In the transcript."""
    wire_id: str
    """In the events of the connection it came by."""
    previous_item_id: str | None = None
    received_bytes: int = 0
    texts: dict[int, str] = field(default_factory=dict)
    """Words by content index."""
    kinds: dict[int, bool] = field(default_factory=dict)
    """Whether the words of a content index come as text, rather than as a transcript."""
    final: set[int] = field(default_factory=set)
    """Content indexes of which all words are there."""
    marks: list[tuple[int, int]] = field(default_factory=list)
    """(ms of audio, characters) received, after each slice of audio."""
    saved: int = 0
    """Characters of the text that are on disk."""
    start_ms: int | None = None
    """When playback of it began, on the session's timeline."""
    is_written: bool = False
    """An answer in text: it has no voice, or none that is listened to."""
    has_unwanted_sound: bool = False
    """It was spoken though text was wanted."""
    sound_is_whole: bool = False
    """No more audio comes; the speaker knows."""
    text_is_whole: bool = False
    is_partial: bool = False
    """The server did not finish it: it failed, was cancelled or cut short."""
    heard_ms: int | None = None
    """Set once it was heard to its end."""
    was_cut: bool = False
    """The user interrupted: whatever still arrives of it is not for the ear."""

    @property
    def text(self) -> str:
        """All words so far."""
        return "".join(self.texts[index] for index in sorted(self.texts))

    @property
    def received_ms(self) -> int:
        """How much sound has arrived."""
        return self.received_bytes // BYTES_PER_MS

    def receive(self, pcm: bytes) -> None:
        """Count a slice of audio."""
        self.received_bytes += len(pcm)
        self.marks.append((self.received_ms, len(self.text)))

    def unsaved_sentences(self) -> str:
        """The words since the last call that make whole sentences, so that they can be saved."""
        rest = self.text[self.saved :]
        ends = [match.end() for match in _SENTENCE_END.finditer(rest)]
        end = ends[-1] if ends else len(rest) if len(rest) > _LONGEST_UNSAVED else 0
        self.saved += end
        return rest[:end]

    def unsaved_rest(self) -> str:
        """All words since the last call."""
        rest = self.text[self.saved :]
        self.saved += len(rest)
        return rest

    def read(self, index: int, words: str) -> None:
        """Add words; what comes late, after all of them, is none of them."""
        if index not in self.final and not self.text_is_whole:
            self.texts[index] = self.texts.get(index, "") + words

    def heard(self, heard_ms: int) -> tuple[str, Status]:
        """What was heard of it, and what became of it, when `heard_ms` of its sound were."""
        is_whole = self.text_is_whole and not self.is_partial
        if is_whole and self.has_unwanted_sound and not self.text.strip():
            return "", "untranscribed"
        if self.is_written and not self.received_bytes:  # what was written was seen
            return self.text, "complete" if is_whole else "interrupted"
        if is_whole and self.sound_is_whole and heard_ms >= self.received_ms:
            has_words = self.text.strip() or not heard_ms
            return self.text, "complete" if has_words else "untranscribed"
        text = self.text
        if self.is_partial:  # the rest of the words has no sound, and will have none
            text = text[: self.marks[-1][1]] if self.marks else ""
        return heard_text(text, self.marks, heard_ms), "interrupted"


def heard_text(text: str, marks: list[tuple[int, int]], heard_ms: int) -> str:
    """What was heard of `text` when `heard_ms` of its audio was.

    The smaller of two guesses, cut at a word: what had arrived by the time that audio had (but
    transcripts run ahead of the audio), and the share of the audio (but speech is not even).

    Args:
        text: All that was received.
        marks: (ms of audio, characters of text) received, after each slice of audio, ascending.
        heard_ms: How much of the audio was heard.
    """
    if not marks or heard_ms <= 0:
        return ""
    received_ms = marks[-1][0]
    if heard_ms >= received_ms:
        return text
    arrived = next(characters for ms, characters in marks if ms >= heard_ms)
    end = min(arrived, len(text) * heard_ms // received_ms)
    if end < len(text) and text[end : end + 1].strip() and text[:end].strip():
        # In the middle of a word: it was not heard.  Scripts without spaces are cut as they are.
        space = max(text.rfind(" ", 0, end), text.rfind("\n", 0, end))
        if space >= 0:
            end = space
        elif text.isascii():
            end = 0
    return text[:end].rstrip()
