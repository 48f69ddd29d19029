"""A terminal as a user has it, with a program in it: a window of tmux that nobody looks at."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.waiting import PATIENCE, wait_until


class Terminal:
    """What the user of a terminal can do, and see."""

    def __init__(self, tmux: Sequence[str]) -> None:
        self._tmux = tmux

    def send(self, *keys: str) -> None:
        """Press keys, by tmux's names: ``Enter``, ``Escape``, ``C-c``, ``Down``, ``PageUp``."""
        self._run("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type letters."""
        self._run("send-keys", "-l", text)

    def paste(self, text: str) -> None:
        """Paste, marked as such where the program in the terminal has asked for that."""
        self._run("set-buffer", "--", text)
        self._run("paste-buffer", "-p", "-r")

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    @property
    def screen(self) -> list[str]:
        """The lines, without the blanks behind each and the empty ones below all."""
        return self._run("capture-pane", "-p").rstrip().split("\n")

    @property
    def scrollback(self) -> list[str]:
        """The lines, and before them those that have left the screen at its top."""
        return self._run("capture-pane", "-p", "-S", "-").rstrip().split("\n")

    @property
    def lines(self) -> list[str]:
        """All that was written, as it would be copied: what the terminal has broken is one line."""
        return self._run("capture-pane", "-p", "-J", "-S", "-").rstrip().split("\n")

    @property
    def cursor(self) -> tuple[int, int]:
        """Where it is, from 0: the column and the line."""
        column, line = self._run("display-message", "-p", "#{cursor_x} #{cursor_y}").split()
        return int(column), int(line)

    @property
    def styled(self) -> str:
        """The screen with the escape sequences that its colours take."""
        return self._run("capture-pane", "-p", "-e")

    def wait_for(self, *texts: str) -> list[str]:
        """Wait until the screen shows all of these, and return it."""
        self.wait_until(lambda screen: all(text in "\n".join(screen) for text in texts))
        return self.screen

    def wait_until(self, is_right: Callable[[list[str]], bool]) -> None:
        """Wait until this is true of the screen."""
        wait_until(lambda: is_right(self.screen), self._shown)

    def interrupt(self, is_right: Callable[[list[str]], bool]) -> None:
        """Press Ctrl-C until this is true of the screen.

        Between a prompt and the reading of the answer, it wakes nobody: it is pressed again.
        """
        looks = count()

        def is_over() -> bool:
            if next(looks) % 200 == 0:
                self.send("C-c")
            return is_right(self.screen)

        wait_until(is_over, self._shown)

    def wait_for_end(self) -> None:
        """Wait until the command has ended."""
        dead = "#{pane_dead}"
        wait_until(
            lambda: self._run("display-message", "-p", dead).strip() == "1",
            self._shown,
        )

    def hang_up(self) -> None:
        """Close the window, as with a click; the command gets SIGHUP, and nothing can be seen."""
        self._run("set-option", "-g", "exit-empty", "off")
        self._run("kill-session")

    def _shown(self) -> str:
        return "\n".join(["on the screen is:", *self.screen])

    def _run(self, *arguments: str) -> str:
        run = subprocess.run(
            [*self._tmux, *arguments],
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=PATIENCE,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout


@contextmanager
def terminal(
    command: Sequence[str | Path], *, width: int = 80, height: int = 24, **environment: str
) -> Iterator[Terminal]:
    """Run a command in a terminal of this size; its end leaves the screen as it is.

    Whatever still runs in it then is ended with it.

    Args:
        environment: On top of that of the tests; ``TERM`` is tmux's own unless given.
    """
    with tempfile.TemporaryDirectory(prefix="voicechat") as directory:
        tmux = ("tmux", "-u", "-S", str(Path(directory) / "socket"), "-f", os.devnull)
        words = ["env", *(f"{name}={value}" for name, value in environment.items())]
        line = shlex.join([*words, *map(str, command)])
        size = ["-x", str(width), "-y", str(height)]
        begin = [";", "set-option", "-g", "remain-on-exit", "on"]
        begin += [";", "set-option", "-g", "remain-on-exit-format", ""]
        inherited = os.environ | {"LC_ALL": "C.UTF-8"}
        for name in ("TMUX", "COLUMNS", "LINES"):  # of the terminal that the tests run in
            inherited.pop(name, None)
        subprocess.run(
            [*tmux, "start-server", *begin, ";", "new-session", "-d", *size, line],
            env=inherited,
            check=True,
        )
        try:
            yield Terminal(tmux)
        finally:
            subprocess.run([*tmux, "kill-server"], check=True)
