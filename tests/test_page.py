"""The HTML page shows exactly what was said, and holds nothing that was not put there by us."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_export import HOSTILE, TALK, exported, lines_of
from tests.test_subtitles import LOGS, TEXTS
from voicechat.history.export import FORMATS
from voicechat.transcript import Opened, Record, Said, Transcript, printable

VOID = {"meta"}


class Page(HTMLParser):
    """Every element of a page, and the text in those that have a class or are known by name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.texts: list[tuple[str, str]] = []
        self._open: list[tuple[str, int]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append((tag, len(self.texts)))
            self.texts.append((dict(attrs).get("class") or tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            place = self._open[-1][1]
            name, text = self.texts[place]
            self.texts[place] = (name, text + data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")

    def of(self, name: str) -> list[str]:
        return [text for each, text in self.texts if each == name]


@given(LOGS, TEXTS, TEXTS)
@settings(deadline=None, max_examples=300)
def test_a_page_shows_exactly_what_was_said(log: list[Record], name: str, model: str) -> None:
    log = [Opened(session="k7f3a2", name=name, model=model), *log]
    spoken = Transcript.of(log).spoken
    page = Page(FORMATS["html"](exported(log)))
    assert [text.split("\n") for text in page.of("text")] == [
        lines_of(turn.text) for turn in spoken if printable(turn.text)
    ]
    assert page.of("mark") == [turn.mark for turn in spoken if turn.mark]
    assert page.of("title") == page.of("h1")
    if title := printable(name):
        assert page.of("h1") == [title]
    shown_model = f", {printable(model)}" if model else ""
    assert page.of("facts") == [f"2026-08-22 09:30 UTC{shown_model}, session k7f3a2"]
    once = Counter(["html", "head", "title", "style", "body", "main", "h1"])
    paragraphs = 1 + len(spoken) + len(page.of("text")) + len(page.of("mark"))
    assert page.elements == once + Counter(meta=4, p=paragraphs, div=len(spoken))
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "dir"}


@given(st.text(st.sampled_from("<>&;\"'/-! =scriptamp#x0")))
@settings(deadline=None, max_examples=300)
def test_no_text_is_markup(text: str) -> None:
    page = Page(FORMATS["html"](exported([Said(item_id="a", role="user", text=f"|{text}|")])))
    assert page.of("text") == [f"|{text}|"]


def test_a_page_needs_nothing_else_and_runs_nothing() -> None:
    for log in (TALK, HOSTILE):
        text = FORMATS["html"](replace(exported(log), include=frozenset({"times", "usage"})))
        page = Page(text)
        assert not set(page.elements) & {"script", "link", "img", "a", "iframe", "base", "form"}
        style = page.of("style")[0]
        assert "url(" not in style and "@import" not in style  # noqa: PT018
        assert "content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; " in text
        assert not re.search(r"\son\w+=", re.sub(r"(?s)<p class=\"text\".*?</p>", "", text))


def test_a_page_is_for_phones_the_dark_and_paper() -> None:
    text = FORMATS["html"](exported(TALK))
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n')
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "@media (prefers-color-scheme: dark)" in text
    assert "@media print" in text
    assert text.count('dir="auto"') == 1 + len(Page(text).of("text"))


def test_times_are_shown_when_they_are_wanted() -> None:
    plain = Page(FORMATS["html"](exported(TALK)))
    timed = Page(FORMATS["html"](replace(exported(TALK), include=frozenset({"times"}))))
    assert plain.of("time") == []
    assert timed.of("time") == ["0:00", "0:03", "0:05", "0:06", "0:06", "0:11", "0:12"]
    assert timed.of("text") == plain.of("text")
