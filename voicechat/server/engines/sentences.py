"""Cutting an answer into sentences while it is being written, and cleaning them for the voice."""

import re

FIRST_WORDS = 6
"""The first piece may end at a comma after so many words: the sooner something is heard."""
_END = re.compile(r"[.!?…]+[\"\u201d\u2019)\]]*\s+")
_FIRST_END = re.compile(r"[.!?…]+[\"\u201d\u2019)\]]*\s+|[,;:—]\s+")
_ABBREVIATIONS = frozenset({"Mr.", "Mrs.", "Ms.", "Dr.", "St.", "vs.", "e.g.", "i.e.", "etc."})
_SPOKEN_AS = (
    (re.compile(r"```.*?```", re.DOTALL), " "),
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),  # a link is its text
    (re.compile(r"\b(?:https?://|www\.)\S+"), " "),
    (re.compile(r"^\s*(?:#{1,6}|>|[-*+]|\d+\.)\s+", re.MULTILINE), ""),
    (re.compile(r"[*_`~#|<>{}\[\]\\]+"), " "),
    (re.compile(r"\s+"), " "),
)


class Sentences:
    """Collects text and gives it back a sentence at a time."""

    def __init__(self) -> None:
        self._text = ""
        self._is_first = True

    def push(self, text: str) -> list[str]:
        """Add text; returns the sentences that are complete now."""
        self._text += text
        sentences = []
        while (end := self._end()) is not None:
            sentences.append(self._text[:end].strip())
            self._text = self._text[end:]
            self._is_first = False
        return sentences

    def rest(self) -> str:
        """What is left when no more comes."""
        rest, self._text = self._text.strip(), ""
        return rest

    def _end(self) -> int | None:
        pattern = _FIRST_END if self._is_first else _END
        for match in pattern.finditer(self._text):
            words = self._text[: match.end()].split()
            is_comma = match.group()[0] in ",;:—"
            if is_comma and len(words) < FIRST_WORDS:
                continue
            if (
                words
                and words[-1] not in _ABBREVIATIONS
                and not re.fullmatch(r"[A-Z]\.", words[-1])
            ):
                return match.end()
        return None


def speakable(text: str) -> str:
    """The text as one would read it aloud: no markdown, no addresses."""
    for pattern, replacement in _SPOKEN_AS:
        text = pattern.sub(replacement, text)
    return text.strip()
