"""The line that turns are typed in."""

from prompt_toolkit.keys import Keys

from voicechat.line_editor import LineEditor


def opened(text: str = "", *history: str) -> LineEditor:
    editor = LineEditor(history)
    editor.open(text)
    return editor


def press(editor: LineEditor, *keys: str) -> tuple[str, int]:
    """What the line is then, and where the cursor is."""
    for key in keys:
        editor.press(key)
    return editor.text, editor.cursor


def test_every_letter_is_text() -> None:
    assert press(opened(), *"q ?漢\u0301🙂") == ("q ?漢\u0301🙂", 6)
    assert press(opened(), "👩", "\u200d", "🚀") == ("👩\u200d🚀", 3)
    assert press(opened(), "\x07", "\ud83d", Keys.F5, Keys.ControlSpace, "alt-x") == ("", 0)


def test_the_cursor_moves_by_letters_and_words_and_stays_in_the_line() -> None:
    editor = opened("one two three")
    assert press(editor, Keys.Right) == ("one two three", 13)
    assert press(editor, Keys.Left, Keys.ControlB)[1] == 11
    assert press(editor, "alt-b")[1] == 8
    assert press(editor, Keys.ControlLeft)[1] == 4
    assert press(editor, "alt-f")[1] == 7
    assert press(editor, Keys.ControlRight, "alt-f", "alt-f")[1] == 13
    assert press(editor, Keys.Home, Keys.Left, "alt-b")[1] == 0
    assert press(editor, Keys.ControlF)[1] == 1
    assert press(editor, Keys.ControlA)[1] == 0
    assert press(editor, Keys.End)[1] == 13
    assert press(editor, Keys.Home, Keys.ControlE)[1] == 13


def test_keys_delete_letters_words_and_the_line() -> None:
    editor = opened("one two three four")
    assert press(editor, Keys.ControlW)[0] == "one two three "
    assert press(editor, Keys.Backspace)[0] == "one two three"
    assert press(editor, f"alt-{Keys.Backspace.value}")[0] == "one two "
    assert press(editor, Keys.Home, Keys.Backspace, Keys.Delete) == ("ne two ", 0)
    assert press(editor, "alt-d") == (" two ", 0)
    assert press(editor, Keys.Right, Keys.Right, Keys.ControlK) == (" t", 2)
    assert press(editor, "x", Keys.Left, Keys.ControlU) == ("x", 0)
    assert press(editor, Keys.ControlD, Keys.ControlD, Keys.ControlW, Keys.ControlK) == ("", 0)


def test_the_history_is_gone_through_and_changes_last_until_the_line_is_sent() -> None:
    editor = opened("", "one", " ", "two\nlines")
    assert press(editor, "d") == ("d", 1)
    assert press(editor, Keys.Up) == ("two lines", 9)
    assert press(editor, "!", Keys.ControlP, Keys.Up) == ("one", 3)
    assert press(editor, Keys.Down) == ("two lines!", 10)
    assert press(editor, Keys.Down, Keys.ControlN) == ("d", 1)
    press(editor, Keys.Up)
    assert editor.take() == "two lines!"
    editor.open()
    assert press(editor, Keys.Up)[0] == "two lines!"
    assert press(editor, Keys.Up)[0] == "two lines"
    editor.close()
    editor.open()
    assert editor.text == ""


def test_what_is_sent_twice_in_a_row_is_remembered_once_and_nothing_is_not() -> None:
    editor = LineEditor(["zero"])
    for text in ("one", "one", "  "):
        editor.open(text)
        assert editor.take() == text.strip()
    editor.open()
    assert press(editor, Keys.Up, Keys.Up)[0] == "zero"


def test_what_is_pasted_becomes_part_of_the_one_line() -> None:
    editor = opened("ab")
    press(editor, Keys.Left)
    editor.paste("1\r\n2\x1b[31m\ud83d")
    assert (editor.text, editor.cursor) == ("a1 2 [31m?b", 10)


def test_whoever_shows_it_is_told_of_every_change() -> None:
    editor, shown = LineEditor(), []
    editor.on_change = lambda: shown.append((editor.is_open, editor.text, editor.help_is_open))
    editor.toggle_help()
    editor.open()
    editor.press("a")
    editor.press(Keys.F5)
    editor.close()
    assert shown == [
        (False, "", True),
        (True, "", False),
        (True, "a", False),
        (False, "", False),
    ]
