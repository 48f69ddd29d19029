"""A conversation as one HTML file that needs nothing else.  Pure: text in, text out.

What was said is escaped.  Beyond that, the page tells browsers to load nothing and to run nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from voicechat.transcript import Role


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A turn as it is shown, without control characters but for the line ends in its text."""

    role: Role
    speaker: str
    text: str
    mark: str
    """What a reader must be told about it, or nothing."""
    time: str
    """When it was said, or nothing."""


POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --ink: #1d1d1f; --faint: #63636a; --user: #0b57d0; --assistant: #f1f3f6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131316; --ink: #e6e6e9; --faint: #a0a0a8; --user: #8ab4f8; --assistant: #202126;
  }
}
body {
  max-width: 42rem; margin: 0 auto; padding: 1.5rem 1rem 3rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { margin: 0; font-size: 1.5rem; line-height: 1.25; }
p { margin: 0; }
.facts, .time, .mark, .usage { color: var(--faint); font-size: .875rem; }
.facts { margin: .25rem 0 1.5rem; }
.usage { margin-top: 1.5rem; }
.turn { margin: .75rem 0; padding: .5rem .875rem; border-inline-start: 3px solid transparent; }
.user { border-color: var(--user); }
.assistant { background: var(--assistant); border-radius: .5rem; }
.who { font-size: .875rem; font-weight: 600; }
.user .who { color: var(--user); }
.time { margin-inline-start: .5rem; font-weight: 400; font-variant-numeric: tabular-nums; }
.text { white-space: pre-wrap; }
.mark { font-style: italic; }
@media print {
  :root { --page: #fff; --ink: #000; --faint: #444; --user: #000; --assistant: #fff; }
  body { max-width: none; padding: 0; }
  .turn { break-inside: avoid; }
}
"""


def page(title: str, facts: str, paragraphs: Iterable[Paragraph], usage: str = "") -> str:
    """The whole page.

    Args:
        title: What the conversation is called.
        facts: When, with whom.
        paragraphs: Its turns.
        usage: What it took; nothing is shown if empty.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="format-detection" content="telephone=no">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        f'<h1 dir="auto">{escape(title)}</h1>',
        f'<p class="facts">{escape(facts)}</p>',
        *map(_turn, paragraphs),
        *([f'<p class="usage">{escape(usage)}</p>'] if usage else []),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _turn(paragraph: Paragraph) -> str:
    """Who, when, the words in whatever direction they are written, and the mark."""
    time = f' <span class="time">{paragraph.time}</span>' if paragraph.time else ""
    parts = [
        f'<div class="turn {paragraph.role}">',
        f'<p class="who">{paragraph.speaker}{time}</p>',
    ]
    if paragraph.text:
        # Of no language: the page is in English, what is said need not be.
        parts.append(f'<p class="text" dir="auto" lang="">{escape(paragraph.text)}</p>')
    if paragraph.mark:
        parts.append(f'<p class="mark">{paragraph.mark}</p>')
    return "\n".join([*parts, "</div>"])
