"""How long it takes to find what was said among 10,000 saved conversations.

Run it with ``python -m bench.history``.  10,000 sessions of 20 turns each, from two years, are
saved as `SessionLog` writes them.  Their words are those of the language reference that comes with
Python, as frequent as there, with a long tail of rare ones besides.  Then each command is timed as
a user would run it, as a process of its own, from its start to its end, into a pipe:

    voicechat history list              the 20 last used
    voicechat history list -q WORD      the 20 last used with this word in them
    voicechat history search WORD
    voicechat history show SESSION
    voicechat export SESSION

WORD is in turn a rare one (in 5 sessions), a middling one (in 1 % of the turns) and a very common
one (in every session).  The medians of 10 runs, after one that is not counted, must be less than
0.3 s for ``list``, ``show`` and ``export``, and 0.7 s where a word is looked for; for the very
common one there is no target.  All sessions that have the word must be found.  The files are in the
system's cache, and Python has its bytecode, as after an installation.  All commands take turns, so
that whatever else the machine does hits all alike.

Beside it stand, in the same run:

    llm     ``llm logs list -n 20``, with ``-q WORD`` where one is looked for: the command line for
            language models with the same conversations, which its own library has saved, in SQLite
            with a full-text index.  It is installed into an environment of its own for this.
    grep    ``grep -rlF WORD`` (which files) beside ``list -q``, and ``grep -rcF WORD`` (how many
            lines in each) beside ``search``

And what the index costs: the first ``history list`` when there is none, how large it is, the list
after one session has changed, and how much memory the command takes at its peak.

``--keep DIRECTORY`` leaves there what was made, which takes most of the time, for the next run.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from pydoc_data.topics import topics
from statistics import median
from typing import Any

from bench.common import ANSWER, BenchmarkError, clean_environment, columns, load_average
from bench.resume import save_session
from bench.startup import entry_point
from voicechat.errors import VoicechatError
from voicechat.history.log import ALPHABET, ENDING, ID_LENGTH, SessionLog
from voicechat.transcript import Opened, Said, Speaking, to_json

RARE, MIDDLING, COMMON = "zephyr", "orchard", "the"
"""To be looked for.  The first two are no part of any other word."""
RARE_SESSIONS = 5
MIDDLING_SHARE = 0.01  # of the turns
NAMED_SHARE = 0.1  # of the sessions
TAIL, TAIL_SHARE = 30_000, 0.05  # words that are rare, as names are; how much of the talk they are
BEGIN, PERIOD = datetime(2023, 1, 1, tzinfo=UTC), timedelta(days=730)
LIST_MS, SEARCH_MS = 300, 700
FIRST_RUNS = 3  # each without an index; they take long, and hardly differ
INDEX = "index.sqlite3*"  # in VOICECHAT_HOME
MADE = "made.json"
"""What there is in a directory that was kept; written last, so that what it says is there."""

Command = tuple[str, ...]


# Making sessions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conversation:
    """What two said to each other: for each turn its sentences."""

    id: str
    name: str | None
    started: datetime
    turns: list[list[str]]


@dataclass(frozen=True, slots=True)
class Made:
    """What was saved."""

    sessions: int
    turns: int
    """Of each session."""
    megabytes: float
    session: str
    """Id of one in the middle."""
    found: dict[str, int]
    """For each word that is looked for, in how many sessions it is."""


def conversations(sessions: int, turns: int) -> Iterator[Conversation]:
    """Yield them in the order of their time, the same ones in every run."""
    chance = random.Random(0)
    words, weights = _vocabulary(chance)
    rare = set(chance.sample(range(sessions), min(RARE_SESSIONS, sessions)))
    ids: dict[str, None] = {}  # each once, in the order in which they came
    while len(ids) < sessions:
        ids["".join(chance.choices(ALPHABET, k=ID_LENGTH))] = None
    for number, session in enumerate(ids):

        def sentence() -> list[str]:
            return chance.choices(words, cum_weights=weights, k=chance.randint(8, 20))

        spoken: list[list[str]] = []
        for turn in range(turns):
            sentences = [sentence() for _ in range(_sentences(turn))]
            if chance.random() < MIDDLING_SHARE or number == turn == 0:
                chance.choice(sentences)[-1] = MIDDLING
            if number in rare and turn == turns // 2:
                chance.choice(sentences)[1] = RARE  # not the first, which gets a capital
            spoken.append([" ".join(each).capitalize() + "." for each in sentences])
        yield Conversation(
            id=session,
            name=" ".join(sentence()[:3]) if chance.random() < NAMED_SHARE else None,
            started=BEGIN + PERIOD * ((number + chance.random()) / sessions),
            turns=spoken,
        )


def _sentences(turn: int) -> int:
    """As many as are written one by one (`bench.resume.save_session`)."""
    return len(ANSWER.split(". ", 2)) if turn % 2 else 1


def _vocabulary(chance: random.Random) -> tuple[list[str], list[float]]:
    """Words, and how frequent they are, added up."""
    said = Counter(re.findall(r"[a-z]{2,}", " ".join(topics.values()).lower()))
    words, counts = list(said), list(map(float, said.values()))
    tail = ["".join(chance.choices(words, k=2)) for _ in range(TAIL)]
    each = sum(counts) * TAIL_SHARE / (1 - TAIL_SHARE) / TAIL
    return words + tail, list(accumulate(counts + [each] * TAIL))


def save(directory: Path, sessions: int, turns: int) -> Made:
    """Save conversations in the very lines that the program wrote of one."""
    with tempfile.TemporaryDirectory(prefix="voicechat-bench-") as scratch:
        template = save_session(Path(scratch), turns).read_bytes().splitlines()
    records = [json.loads(line) for line in template]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    size, middle, found = 0, "", dict.fromkeys((RARE, MIDDLING, COMMON), 0)
    for number, spoken in enumerate(conversations(sessions, turns)):
        data = "".join(_lines(records, spoken)).encode()
        path = directory / f"{spoken.started:%Y%m%d-%H%M%S}-{spoken.id}{ENDING}"
        path.write_bytes(data)
        size += len(data)
        middle = spoken.id if number == sessions // 2 else middle
        said = " ".join(" ".join(turn) for turn in spoken.turns).lower()
        for word in found:
            found[word] += word in said
    return Made(sessions, turns, size / 1e6, middle, found)


def _lines(template: list[dict[str, Any]], spoken: Conversation) -> Iterator[str]:
    """The lines of a session of which what was said, when and by whom is another."""
    turns = iter(spoken.turns)
    turn = next(turns, [])
    pieces = iter(turn)
    at = spoken.started
    for record in template:
        values = record.copy()
        at = max(at, spoken.started + timedelta(milliseconds=_ended_ms(record)))
        values["at"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if values["type"] == Opened.type:
            values["session"] = spoken.id
            values |= {"name": spoken.name} if spoken.name else {}
        elif values["type"] == Speaking.type and "text" in values:
            values["text"] = f" {next(pieces)}"
        elif values["type"] == Said.type:
            values["text"] = " ".join(turn)
            turn = next(turns, [])
            pieces = iter(turn)
        # No two sessions have an item in common, as no server gives an id twice.
        yield to_json(values).replace('"item_000000', f'"item_{spoken.id}') + "\n"


def _ended_ms(record: dict[str, Any]) -> int:
    ended: int = record.get("end_ms") or record.get("start_ms", 0)
    return ended


# llm ----------------------------------------------------------------------------------------------

FILL = """
import json, sys
import llm, sqlite_utils
from llm.migrations import migrate

class Saved(llm.Model):
    model_id = "gpt-realtime-2.1"
    answer = ""

    def execute(self, prompt, stream, response, conversation):
        yield self.answer

database = sqlite_utils.Database(sys.argv[1])
migrate(database)
model = Saved()
with database.atomic() if hasattr(database, "atomic") else database.conn:
    for line in sys.stdin:
        conversation = model.conversation()
        for question, model.answer in json.loads(line):
            response = conversation.prompt(question)
            response.text()
            response.log_to_db(database)
"""
"""Saves conversations as llm itself does, whatever its tables are: it only asks no model."""


def install_llm(directory: Path) -> Path | None:
    """Install llm into an environment of its own; None where that cannot be done."""
    programs = directory / ("Scripts" if sys.platform == "win32" else "bin")
    installed = programs / ("llm.exe" if sys.platform == "win32" else "llm")
    if not installed.exists():
        venv.create(directory, with_pip=True)
        pip = [str(_python_beside(installed)), "-m", "pip", "install", "--quiet", "llm"]
        if subprocess.run(pip, capture_output=True).returncode:
            return None
    return installed


def fill_llm(llm: Path, home: Path, sessions: int, turns: int) -> None:
    """Save the same conversations with llm.

    Raises:
        BenchmarkError: It cannot.
    """
    home.mkdir(parents=True, exist_ok=True)
    unfinished = home / "unfinished.db"
    unfinished.unlink(missing_ok=True)
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads could fill up
        filling = subprocess.Popen(
            [_python_beside(llm), "-c", FILL, str(unfinished)],
            stdin=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert filling.stdin is not None
        try:
            with filling.stdin:
                for spoken in conversations(sessions, turns):
                    texts = [" ".join(sentences) for sentences in spoken.turns]
                    pairs = list(zip(texts[::2], texts[1::2], strict=False))
                    filling.stdin.write(json.dumps(pairs) + "\n")
        except BrokenPipeError:
            pass  # the errors tell why
        if filling.wait():
            errors.seek(0)
            told = errors.read().decode(errors="replace").strip()
            raise BenchmarkError(f"llm cannot be filled: {told}")
    unfinished.rename(home / "logs.db")


def _python_beside(program: Path) -> Path:
    """The interpreter of the environment in which a program is, also if that is linked to."""
    python = "python.exe" if sys.platform == "win32" else "python"
    return program.resolve().with_name(python)


# Measuring ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of one command.  Times are medians, in ms; None: not measured."""

    command: str
    sessions: int | None
    """In which the word is that is looked for."""
    voicechat_ms: float | None
    llm_ms: float | None
    grep_ms: float | None
    target_ms: int | None
    wrong: str = ""
    """Why the command is of no use, however fast it is."""

    @property
    def missed(self) -> list[str]:
        """The targets that were missed, in words."""
        if self.wrong:
            return [f"{self.command}: {self.wrong}"]
        if self.target_ms and (self.voicechat_ms or 0) >= self.target_ms:
            return [f"{self.command} takes {self.voicechat_ms:.0f} ms"]
        return []


@dataclass(frozen=True, slots=True)
class Cost:
    """What the index costs, in ms and MB."""

    megabytes: float
    first_ms: float
    """The list without an index, which is made then."""
    first_peak_mb: float
    changed_ms: float
    """The list after one session has changed."""
    peak_mb: float
    """The list when nothing has changed."""


def run(command: Command, environment: dict[str, str]) -> tuple[float, str]:
    """Run a command; return the ms it took, and what it printed.

    Raises:
        BenchmarkError: It failed.
    """
    started = time.perf_counter()
    finished = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    took = time.perf_counter() - started
    if finished.returncode:
        told = finished.stderr.decode(errors="replace").strip().splitlines()
        raise BenchmarkError(told[-1] if told else f"exit code {finished.returncode}")
    return took * 1000, finished.stdout.decode(errors="replace")


def interleaved(
    commands: Sequence[Command], environment: dict[str, str], repetitions: int
) -> tuple[dict[Command, float], dict[Command, str]]:
    """Run all commands in turn; return the medians, and of those that fail, why."""
    times: dict[Command, list[float]] = {}
    failed: dict[Command, str] = {}
    for command in dict.fromkeys(commands):
        try:
            run(command, environment)  # which warms up
            times[command] = []
        except BenchmarkError as error:
            failed[command] = error.message
    for _ in range(repetitions):
        for command, each in times.items():
            each.append(run(command, environment)[0])
    return {command: median(each) for command, each in times.items()}, failed


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be timed side by side."""

    arguments: Command
    """Of voicechat."""
    llm: Command | None
    grep: Command | None
    word: str | None
    """To be looked for."""
    target_ms: int | None

    @property
    def ours(self) -> Command:
        """The whole command."""
        return (*entry_point(), *self.arguments)

    @property
    def commands(self) -> list[Command]:
        """All of them."""
        return [each for each in (self.ours, self.llm, self.grep) if each]


def trials(made: Made, files: Path, llm: Path | None) -> list[Trial]:
    """The rows of the table."""
    logs = (str(llm), "logs", "list", "-n", "20") if llm else None
    grep = shutil.which("grep")
    listed: Command = ("history", "list")
    rows = [Trial(listed, logs, None, None, LIST_MS)]
    for search, switch in (((*listed, "-q"), "-rlF"), (("history", "search"), "-rcF")):
        rows += [
            Trial(
                arguments=(*search, word),
                llm=(*logs, "-q", word) if logs else None,
                grep=(grep, switch, word, str(files)) if grep else None,
                word=word,
                target_ms=None if word == COMMON else SEARCH_MS,
            )
            for word in made.found
        ]
    for command in (("history", "show"), ("export",)):
        rows.append(Trial((*command, made.session), None, None, None, LIST_MS))
    return rows


def measure(made: Made, home: Path, llm: Path | None, repetitions: int) -> list[Result]:
    """Time the commands, and look whether they find what there is to be found.

    Raises:
        BenchmarkError: One of the programs that are not ours fails.
    """
    environment = clean_environment(home) | {"LLM_USER_PATH": str(home / "llm")}
    rows = trials(made, home / "sessions", llm)
    times, failed = interleaved(
        [command for trial in rows for command in trial.commands], environment, repetitions
    )
    for command in failed.keys() - {trial.ours for trial in rows}:
        raise BenchmarkError(f"{command[0]} failed: {failed[command]}")
    return [
        Result(
            command=" ".join(trial.arguments),
            sessions=made.found[trial.word] if trial.word else None,
            voicechat_ms=times.get(trial.ours),
            llm_ms=times[trial.llm] if trial.llm else None,
            grep_ms=times[trial.grep] if trial.grep else None,
            target_ms=trial.target_ms,
            wrong=failed.get(trial.ours) or miscounted(trial, made, environment),
        )
        for trial in rows
    ]


def miscounted(trial: Trial, made: Made, environment: dict[str, str]) -> str:
    """What is wrong with the sessions that are found, or nothing."""
    if not trial.word:
        return ""
    number, key = (("-n", "0"), "id") if "-q" in trial.arguments else ((), "session")
    told = run((*trial.ours, *number, "--json"), environment)[1]
    found, expected = len({each[key] for each in json.loads(told)}), made.found[trial.word]
    return "" if found == expected else f"{found} sessions found of {expected}"


WATCHED = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
took = time.perf_counter() - started
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
print(json.dumps([took * 1000, peak / 1e6]))
"""
"""A small process between: Linux counts the memory of who starts a process as that one's own."""


def watched(command: Command, environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; return the ms it took, and the MB it had at its peak."""
    _, told = run((sys.executable, "-c", WATCHED, *command), environment)
    took, peak = json.loads(told)
    return took, peak


def measure_index(made: Made, home: Path, repetitions: int) -> Cost:
    """See what the index costs.  All is as before in the end.

    Raises:
        BenchmarkError: A session that has changed is not the first of the list.
    """
    environment, command = clean_environment(home), (*entry_point(), "history", "list")
    first = []
    for _ in range(min(FIRST_RUNS, repetitions)):
        for file in home.glob(INDEX):
            file.unlink()
        first.append(watched(command, environment))
    size = sum(file.stat().st_size for file in home.glob(INDEX))
    peak = median(watched(command, environment)[1] for _ in range(min(FIRST_RUNS, repetitions)))
    (path,) = (home / "sessions").glob(f"*-{made.session}{ENDING}")
    saved, changed = path.read_bytes(), []
    try:
        for number in range(repetitions):
            with closing(SessionLog(path)) as log:
                log.append(Said(item_id=f"late_{number}", role="assistant", text=ANSWER))
            took, told = run(command, environment)
            changed.append(took)
            if made.session not in told.splitlines()[1]:
                raise BenchmarkError("the session that has changed is not the first of the list")
    finally:
        path.write_bytes(saved)
    return Cost(
        megabytes=size / 1e6,
        first_ms=median(took for took, _ in first),
        first_peak_mb=median(peak for _, peak in first),
        changed_ms=median(changed),
        peak_mb=peak,
    )


# Telling ------------------------------------------------------------------------------------------

HEADINGS = ("", "in sessions", "voicechat", "llm", "grep", "target", "")


def table(results: list[Result], cost: Cost) -> str:
    """What was measured, in columns, and what the index costs."""
    rows = [HEADINGS]
    for each in results:
        verdict = "MISSED" if each.missed else "met" if each.target_ms else ""
        rows.append(
            (
                each.command,
                "" if each.sessions is None else str(each.sessions),
                _ms(each.voicechat_ms),
                _ms(each.llm_ms),
                _ms(each.grep_ms),
                _ms(each.target_ms),
                verdict,
            )
        )
    lines = [columns(rows), ""]
    lines += [f"{each.command}: {each.wrong}" for each in results if each.wrong]
    lines += [
        f"index: {cost.megabytes:.1f} MB; {cost.first_ms:.0f} ms and {cost.first_peak_mb:.0f} MB of"
        " memory for the first list, which makes it",
        f"list: {cost.peak_mb:.0f} MB of memory at its peak; {cost.changed_ms:.0f} ms after one "
        "session has changed",
    ]
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sessions", type=int, default=10_000, help="that are saved")
    parser.add_argument("--turns", type=int, default=20, help="of each")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="for the next run")
    parser.add_argument("--llm", type=Path, metavar="PATH", help="instead of installing it")
    parser.add_argument("--no-llm", action="store_true", help="leave it out")
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args(arguments)
    try:
        with ExitStack() as stack:
            home = options.keep or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="voicechat-bench-"))
            )
            made = _make(home, options.sessions, options.turns)
            llm = None if options.no_llm else _prepare_llm(options.llm, home, made)
            say("making the index")
            cost = measure_index(made, home, options.repetitions)
            say("running the commands")
            results = measure(made, home, llm, options.repetitions)
    except VoicechatError as error:
        print(f"bench.history: {error.message}", file=sys.stderr)
        return 1
    missed = [each for result in results for each in result.missed]
    if options.json:
        print(json.dumps(described(made, results, cost), indent=2))
    else:
        print(f"{made.sessions} sessions of {made.turns} turns, {made.megabytes:.0f} MB")
        if not llm and not options.no_llm:
            print("llm cannot be installed here; name one that is with --llm")
        print(table(results, cost))
        print("load average:", " ".join(f"{load:.2f}" for load in load_average()))
    return 1 if missed else 0


def _make(home: Path, sessions: int, turns: int) -> Made:
    """Save the sessions, or take those that were kept.

    Raises:
        BenchmarkError: There are others.
    """
    note = home / MADE
    if note.exists():
        made = Made(**json.loads(note.read_text()))
        if (made.sessions, made.turns) != (sessions, turns):
            raise BenchmarkError(f"{home} holds {made.sessions} sessions of {made.turns} turns")
        return made
    if (home / "sessions").exists():
        raise BenchmarkError(f"{home} holds sessions that were not made here, or not all")
    say(f"saving {sessions} sessions")
    made = save(home / "sessions", sessions, turns)
    note.write_text(json.dumps(asdict(made)))
    return made


def _prepare_llm(llm: Path | None, home: Path, made: Made) -> Path | None:
    """Install llm if need be, and fill it; None where it cannot be installed."""
    if llm and not llm.exists():
        raise BenchmarkError(f"there is no {llm}")
    llm = llm or install_llm(home / "llm-environment")
    if llm and not (home / "llm" / "logs.db").exists():
        say("saving the same with llm")
        fill_llm(llm, home / "llm", made.sessions, made.turns)
    return llm


def say(what: str) -> None:
    """Tell what is going on."""
    print(f"{what} ...", file=sys.stderr, flush=True)


def described(made: Made, results: list[Result], cost: Cost) -> dict[str, object]:
    """The same for scripts."""
    return {
        "made": asdict(made),
        "results": [asdict(each) for each in results],
        "index": asdict(cost),
        "missed": [each for result in results for each in result.missed],
        "load_average": load_average(),
    }


if __name__ == "__main__":
    sys.exit(main())
