"""``voicechat login`` and ``logout``: where a key goes, and where it never is."""

import json
import stat
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.program import Run, bound_by_permissions, locked, voicechat
from tests.strict_server import KEY, StrictServer
from tests.tmux import terminal
from voicechat.cli.login import NAMES
from voicechat.cli.values import api_key
from voicechat.errors import AuthenticationError, StoreError
from voicechat.keys import PATIENCE, checked, put_in_file, saved_key

Keyring = Callable[[str], Path]

IN_A_FILE = """
import json
from pathlib import Path
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

PLACE = Path({place!r})


class Keyring(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        return self._all().get(service + "/" + username)

    def set_password(self, service, username, password):
        self._write(self._all() | {{service + "/" + username: password}})

    def delete_password(self, service, username):
        left = self._all()
        if left.pop(service + "/" + username, None) is None:
            raise PasswordDeleteError("not found")
        self._write(left)

    def _all(self):
        return json.loads(PLACE.read_text()) if PLACE.exists() else {{}}

    def _write(self, entries):
        PLACE.write_text(json.dumps(entries))
"""
HANGS = """
import time
from pathlib import Path
from keyring.backend import KeyringBackend

PLACE = Path({place!r})


class Keyring(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        PLACE.with_name("asked").touch()
        time.sleep(1000)

    set_password = delete_password = lambda self, *arguments: time.sleep(1000)
"""
CRASHES = """
import os
from keyring.backend import KeyringBackend


class Keyring(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        os.abort()

    set_password = delete_password = lambda self, *arguments: os.abort()
"""


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    """Makes a keyring of this kind the system's, and says where it keeps the keys."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    place = tmp_path / "keyring.json"

    def install(code: str) -> Path:
        (tmp_path / "own_keyring.py").write_text(code.format(place=str(place)))
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "own_keyring.Keyring")
        return place

    return install


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictServer]:
    with StrictServer().running() as server:
        monkeypatch.setenv("VOICECHAT_URL", server.url)
        yield server


def login(*arguments: str, key: str = KEY, code: int = 0, **environment: Any) -> Run:
    run = voicechat("login", *arguments, stdin=f"{key}\n".encode(), **environment)
    assert run.code == code, run.err
    assert not key or key not in run.out + run.err
    return run


def sent(server: StrictServer) -> str:
    headers = {name.lower(): value for name, value in server.headers[-1].items()}
    return str(headers.get("authorization"))


def test_a_key_in_the_keyring_is_used_and_stands_nowhere_else(
    server: StrictServer, keyring: Keyring, home: Path
) -> None:
    place = keyring(IN_A_FILE)
    assert "in the system keyring" in login("custom").err
    assert json.loads(place.read_text()) == {"voicechat/custom": KEY}
    run = voicechat("talk", "--text", "Hi", "--verbose")
    assert run.code == 0, run.err
    assert sent(server) == f"Bearer {KEY}"
    assert KEY not in run.out + run.err
    for path in home.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()
    assert "removed" in voicechat("logout", "custom").err
    assert json.loads(place.read_text()) == {}
    assert saved_key("custom") is None
    assert "No key" in voicechat("logout", "custom").err


def test_a_home_that_is_a_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = login(VOICECHAT_HOME=str(tmp_path / "file"), code=8)
    assert "Set VOICECHAT_HOME to a directory of yours" in run.err
    assert "Remove" not in run.err


def test_a_key_on_the_command_line_is_neither_taken_nor_repeated() -> None:
    for command in ("login", "logout"):
        run = voicechat(command, "openai", "sk-proj-secret")
        assert run.code == 2
        assert "sk-proj-secret" not in run.out + run.err
        assert len(run.err.splitlines()) == 2


def test_the_environment_goes_before_what_was_saved(server: StrictServer, keyring: Keyring) -> None:
    keyring(IN_A_FILE)
    login("custom", key="another-key")
    assert voicechat("talk", "--text", "Hi", OPENAI_API_KEY=KEY).code == 0
    assert sent(server) == f"Bearer {KEY}"
    assert "goes before" in login(OPENAI_API_KEY=KEY, key="another-key").err


def test_a_key_saved_for_openai_is_not_sent_to_another_server(server: StrictServer) -> None:
    login()
    assert voicechat("talk", "--text", "Hi", "--reconnect-for", "0").code == 0
    assert server.headers
    usual = {"usual": "OPENAI_API_KEY", "provider": "openai"}
    assert api_key(None, **usual, is_needed=True) == KEY  # but to OpenAI
    assert KEY not in json.dumps([dict(each) for each in server.headers])


def test_a_named_variable_is_the_only_place(server: StrictServer) -> None:
    login("custom")
    run = voicechat("talk", "--text", "Hi", "--api-key-env", "MY_KEY")
    assert (run.code, "MY_KEY" in run.err) == (5, True)
    for odd in (KEY + "-x", "sk-proj-abcdefgh"):
        run = voicechat("talk", "--text", "Hi", "--api-key-env", odd)
        assert (run.code, odd in run.err) == (2, False)


def test_without_a_keyring_it_goes_into_a_file_after_saying_so(
    server: StrictServer, home: Path
) -> None:
    run = login("custom")
    path = home / "keys.json"
    said, done = run.err.splitlines()
    assert "No system keyring" in said
    assert str(path) in said
    assert "only you may read it" in done
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert voicechat("talk", "--text", "Hi").code == 0
    assert sent(server) == f"Bearer {KEY}"
    login("xai", key="other")
    voicechat("logout", "custom")
    assert json.loads(path.read_text()) == {"xai": "other"}
    voicechat("logout", "xai")
    assert not path.exists()


def test_a_keyring_that_forgets_is_none(keyring: Keyring, home: Path) -> None:
    run = login(PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring")
    assert "No system keyring" in run.err
    assert saved_key("openai") == KEY


def test_a_keyring_that_hangs_or_crashes_does_not_stop_anyone(
    server: StrictServer, keyring: Keyring
) -> None:
    place = keyring(IN_A_FILE)
    login("custom")
    keyring(CRASHES)
    run = voicechat("talk", "--text", "Hi")
    assert (run.code, "keyring does not give" in run.err) == (5, True)
    assert "No system keyring" in login("custom").err
    assert voicechat("talk", "--text", "Hi").code == 0
    keyring(HANGS)
    started = time.monotonic()
    assert "No system keyring" in login("custom").err
    assert PATIENCE <= time.monotonic() - started < PATIENCE + 30
    place.with_name("asked").unlink(missing_ok=True)
    assert voicechat("talk", "--text", "Hi").code == 0  # it is not asked for a key in the file
    assert not place.with_name("asked").exists()
    assert place.exists()


def test_a_keyring_is_not_asked_when_nothing_was_put_there(
    server: StrictServer, keyring: Keyring
) -> None:
    place = keyring(HANGS)
    voicechat("talk", "--text", "Hi", "--reconnect-for", "0")
    assert not place.with_name("asked").exists()


def test_a_keyring_that_does_not_let_go_says_so(keyring: Keyring) -> None:
    place = keyring(IN_A_FILE)
    login()
    keyring(CRASHES)
    run = voicechat("logout")
    assert (run.code, "did not remove" in run.err) == (5, True)
    assert KEY in place.read_text()
    assert saved_key("openai") is None


def test_it_is_asked_for_on_a_terminal_and_not_shown(home: Path) -> None:
    command = [sys.executable, "-m", "voicechat", "login"]
    with terminal(command, VOICECHAT_HOME=str(home)) as screen:
        screen.wait_for("API key for openai:")
        screen.type(KEY)
        screen.send("Enter")
        screen.wait_for("is saved")
        assert KEY not in "\n".join(screen.scrollback)
    assert saved_key("openai") == KEY


def test_leaving_without_a_key_saves_nothing(home: Path) -> None:
    command = f'trap : INT; "{sys.executable}" -m voicechat login; echo "code $?"'
    for key, words in (("C-c", ""), ("C-d", "no key was given"), ("Enter", "no key was given")):
        with terminal(["sh", "-c", command]) as screen:
            screen.wait_for("API key for openai:")
            if key == "C-c":
                screen.interrupt(lambda lines: "code 130" in "".join(lines))
            else:
                screen.send(key)
            screen.wait_for_end()
            assert words in "\n".join(screen.screen)
            assert "Traceback" not in "\n".join(screen.screen)
    assert not (home / "keys.json").exists()


@pytest.mark.parametrize("odd", ["", "two words", "schlüssel", "sk-\x1b[31m", "k" * 20_000])
def test_what_is_no_key_is_refused_and_not_repeated(odd: str, home: Path) -> None:
    run = login(key=odd, code=5)
    assert len(run.err.splitlines()) == 2
    assert not (home / "keys.json").exists()


@pytest.mark.parametrize("odd", ["opnai", "OpenAI", KEY, "sk-proj-abcdefgh"])
def test_a_provider_that_is_none_is_not_repeated_since_it_may_be_a_key(odd: str) -> None:
    for command in ("login", "logout"):
        run = voicechat(command, odd, stdin=b"abc")
        assert run.code == 2
        assert odd not in run.err
        is_near = odd.lower().startswith("op")
        assert ("Did you mean openai?" if is_near else ", ".join(NAMES)) in run.err


def test_a_damaged_or_unwritable_file_is_named(home: Path, tmp_path: Path) -> None:
    put_in_file("openai", KEY)
    (home / "keys.json").write_text("{")
    with pytest.raises(StoreError, match=r"keys\.json"):
        saved_key("openai")
    assert voicechat("talk", "--text", "Hi").code == 8
    assert login(code=8).err.count("\n") == 3
    (tmp_path / "file").write_text("")
    assert login(code=8, VOICECHAT_HOME=str(tmp_path / "file")).err.count("\n") == 3


def test_keys_that_may_not_be_read_are_not_to_be_thrown_away(home: Path) -> None:
    put_in_file("openai", KEY)
    commands = (["talk", "--provider", "openai", "--text", "Hi"], ["logout"])
    with locked(home):
        for command in commands:
            run = voicechat(*command, preexec=bound_by_permissions)
            assert run.code == 8
            assert f"{str(home / 'keys.json')!r} cannot be read: permission denied" in run.err
            assert "Make it readable for you" in run.err
            assert "Remove" not in run.err
    (home / "keys.json").write_text("{")
    for command in commands:
        assert "Remove that file" in voicechat(*command).err


def test_an_odd_file_of_keys_holds_none(home: Path) -> None:
    home.mkdir()
    for text in ("[]", '{"openai": 3}', '"x"'):
        (home / "keys.json").write_text(text)
        assert saved_key("openai") is None
    (home / "keys.json").write_text('{"openai": "a\\u001bb"}')
    with pytest.raises(AuthenticationError):
        saved_key("openai")


def test_a_key_never_stands_on_a_command_line(tmp_path: Path, keyring: Keyring) -> None:
    spy = IN_A_FILE + textwrap.dedent(
        """
        import sys
        with open({place!r} + ".commands", "a") as file:
            for name in ("cmdline", "environ"):
                file.write(Path("/proc/self", name).read_text())
        """
    )
    place = keyring(spy)
    login()
    seen = place.with_name(place.name + ".commands").read_text()
    assert "keyring" in seen
    assert KEY not in seen


def test_a_key_may_be_anything_printable() -> None:
    assert checked("ey.J-_=+/", "it") == "ey.J-_=+/"
