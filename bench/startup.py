"""How long it takes until a command is there.

Run it with ``python -m bench.startup``.  Three commands are timed as a user would run them, as a
process of its own, from its start

    voicechat --help            to its end
    voicechat history list      to its end, with 100 sessions of 20 turns saved, into a pipe
    voicechat talk --text hi    to the arrival of ``session.update`` at a server on this machine

The median of 10 runs, after one that is not counted, must be at most 0.25, 0.3 and 0.5 s.  Python
has its bytecode, as after an installation.

Beside it stands where the time goes: the bare interpreter (``python -c pass``); the imports, by the
package at the top, as Python itself tells with ``-X importtime`` (each module without those that
it imports in turn; measured in other runs, which that slows down, and scaled to the time without);
and all the rest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.common import ANSWER, QUESTION, clean_environment, load_average
from bench.server import Server, running
from voicechat.history.log import SessionLog
from voicechat.transcript import Closed, Opened, Said

TARGETS_MS = {"help": 250, "history list": 300, "session.update": 500}
SHOWN = 6  # packages; the others are summed
SPLIT_RUNS = 3

Timed = Callable[[dict[str, str]], tuple[float, str]]
"""Runs a command in an environment; returns the ms it took, and what it wrote to stderr."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of one command.  Times are medians, in ms."""

    name: str
    command: str
    total_ms: float
    target_ms: float
    interpreter_ms: float
    imports_ms: dict[str, float]
    """By package, the greatest first; the standard library counts as one."""

    @property
    def rest_ms(self) -> float:
        """What is neither the interpreter's start nor an import: the work itself."""
        return self.total_ms - self.interpreter_ms - sum(self.imports_ms.values())

    @property
    def is_met(self) -> bool:
        """It is fast enough."""
        return self.total_ms <= self.target_ms


def entry_point() -> list[str]:
    """How ``voicechat`` is started: the installed script, or the module where there is none."""
    for name in ("voicechat", "voicechat.exe"):
        script = Path(sys.executable).with_name(name)
        if script.exists():
            return [str(script)]
    return [sys.executable, "-m", "voicechat"]


def to_its_end(command: list[str]) -> Timed:
    """Time a command from its start to its end."""

    def run(environment: dict[str, str]) -> tuple[float, str]:
        started = time.perf_counter()
        finished = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
        return (time.perf_counter() - started) * 1000, finished.stderr.decode()

    return run


def until_configured(command: list[str], server: Server) -> Timed:
    """Time a command from its start to the arrival of its ``session.update``; then end it."""

    def run(environment: dict[str, str]) -> tuple[float, str]:
        with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads could fill up
            started = time.perf_counter()
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            server.wait_until_configured()
            took = time.perf_counter() - started
            process.kill()
            process.wait()
            server.took()  # the server has noticed, too
            errors.seek(0)
            return took * 1000, errors.read().decode(errors="replace")

    return run


def imports(timed: Timed, environment: dict[str, str], total_ms: float) -> dict[str, float]:
    """Milliseconds of importing, by the package at the top; the standard library is one.

    Being watched slows a run down; the times are scaled to one of `total_ms`.
    """
    took, told = timed(environment | {"PYTHONPROFILEIMPORTTIME": "1"})
    spent: Counter[str] = Counter()
    for line in told.splitlines():
        columns = line.removeprefix("import time:").split("|")
        if len(columns) == 3 and columns[0].strip().isdigit():
            package = columns[2].strip().partition(".")[0]
            is_standard = package in sys.stdlib_module_names
            spent["standard library" if is_standard else package] += int(columns[0])
    return {package: each / 1000 * total_ms / took for package, each in spent.items()}


def measure(
    name: str, command: list[str], timed: Timed, environment: dict[str, str], repetitions: int
) -> Result:
    """Time a command and the bare interpreter by turns, then see where the time went."""
    bare = to_its_end([sys.executable, "-c", "pass"])
    for warm_up in (bare, timed):
        warm_up(environment)
    totals, interpreter = [], []
    for _ in range(repetitions):
        interpreter.append(bare(environment)[0])
        totals.append(timed(environment)[0])
    total, alone = median(totals), median(interpreter)
    splits = [imports(timed, environment, total) for _ in range(SPLIT_RUNS)]
    of_the_interpreter = [imports(bare, environment, alone) for _ in range(SPLIT_RUNS)]
    spent = {
        package: median(split.get(package, 0.0) for split in splits)
        - median(split.get(package, 0.0) for split in of_the_interpreter)
        for package in splits[0]
    }
    return Result(
        name=name,
        command=" ".join(["voicechat", *command]),
        total_ms=total,
        target_ms=TARGETS_MS[name],
        interpreter_ms=alone,
        imports_ms=dict(sorted(spent.items(), key=lambda item: -item[1])),
    )


def make_sessions(directory: Path, sessions: int, turns: int) -> None:
    """Save some conversations, as the program does."""
    for _ in range(sessions):
        log = SessionLog.create(directory)
        log.append(Opened(session=log.session, version="0", model="gpt-realtime"))
        for number in range(turns):
            item_id, at = f"item_{number}", number * 4000
            if number % 2:
                said = Said(item_id=item_id, role="assistant", text=ANSWER, start_ms=at)
            else:
                said = Said(item_id=item_id, role="user", text=QUESTION, start_ms=at)
            log.append(said)
        log.append(Closed(end_ms=turns * 4000))
        log.close()


def table(results: list[Result]) -> str:
    """What was measured, a paragraph for each command."""
    lines = []
    for each in results:
        verdict = "met" if each.is_met else "MISSED"
        lines.append(f"{each.command}")
        lines.append(
            f"  {each.total_ms:6.0f} ms  in all; target: {each.target_ms:.0f} ms, {verdict}"
        )
        lines.append(f"  {each.interpreter_ms:6.0f} ms  the bare interpreter")
        shown = list(each.imports_ms.items())
        lines += [f"  {ms:6.0f} ms  importing {package}" for package, ms in shown[:SHOWN]]
        if others := shown[SHOWN:]:
            lines.append(f"  {sum(ms for _, ms in others):6.0f} ms  importing all others")
        lines.append(f"  {each.rest_ms:6.0f} ms  the rest: what the command does")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=100, help="that are saved")
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="voicechat-bench-") as home, running(0) as server:
        environment = clean_environment(Path(home))
        make_sessions(Path(home) / "sessions", options.sessions, turns=20)
        results = []
        for name, command in (
            ("help", ["--help"]),
            ("history list", ["history", "list"]),
            ("session.update", ["talk", "--text", "hi", "--url", server.url]),
        ):
            whole = [*entry_point(), *command]
            is_talk = name == "session.update"
            timed = until_configured(whole, server) if is_talk else to_its_end(whole)
            results.append(measure(name, command, timed, environment, options.repetitions))
    if options.json:
        print(json.dumps(described(results), indent=2))
    else:
        print(table(results))
        print("load average:", " ".join(f"{load:.2f}" for load in load_average()))
    return 0 if all(each.is_met for each in results) else 1


def described(results: list[Result]) -> dict[str, object]:
    """The same for scripts."""
    return {
        "results": [
            asdict(each) | {"rest_ms": each.rest_ms, "is_met": each.is_met} for each in results
        ],
        "load_average": load_average(),
    }


if __name__ == "__main__":
    sys.exit(main())
