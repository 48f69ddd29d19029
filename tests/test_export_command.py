"""`voicechat export`: which sessions, into which files, and what is said when that cannot be."""

import json
import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import Run, voicechat
from tests.test_log import no_file_larger_than
from tests.test_sessions import save
from voicechat.cli.export import BETWEEN, export
from voicechat.errors import (
    AudioFileError,
    OutputError,
    UnknownSessionError,
    UnreadableSessionError,
    UsageError,
)
from voicechat.history.export import FORMATS, Format
from voicechat.history.log import session_id
from voicechat.transcript import printable

TOGETHER: list[Format] = ["md", "txt", "jsonl"]


@pytest.fixture
def sessions(home: Path) -> Path:
    """Where one is saved."""
    save(home / "sessions", "k7f3a2", "Grüß Gott")
    return home / "sessions"


@pytest.fixture
def three(sessions: Path) -> Path:
    """Where three are saved, of which the one that began first was used last."""
    save(sessions, "m9p2xt", "Later", day=2, name="plans")
    old = save(sessions, "zz2345", "First", day=-1)
    lines = old.read_text().replace("2026-08-21T", "2026-08-29T").split("\n")
    old.write_text("\n".join([lines[0].replace("2026-08-29T", "2026-08-21T"), *lines[1:]]))
    return sessions


def refused(run: Run, code: int, *said: str) -> None:
    """It ended with this code and two lines, in which all this is said."""
    assert run.code == code, run.err
    assert run.out == ""
    assert len(run.err.splitlines()) == 2, run.err
    assert all(each in run.err for each in said), run.err


# To standard output -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_an_export_goes_to_stdout_as_utf_8(sessions: Path, encoding: str) -> None:
    shown = voicechat("export", "k7f", "--format", "txt", PYTHONIOENCODING=encoding)
    assert (shown.out, shown.err, shown.code) == ("You: Grüß Gott\n", "", 0)
    for arguments in (["last"], ["--last"], ["--last", "-o", "-"], ["--all"]):
        assert voicechat("export", *arguments).out.startswith("# Grüß Gott\n")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_comes_out(sessions: Path, format: Format) -> None:
    run = voicechat("export", "--last", "-f", format, "--include", "usage,times")
    assert (run.code, run.err) == (0, "")
    assert "Grüß Gott" in run.out


def test_the_records_come_out_of_the_file(sessions: Path) -> None:
    [path] = sessions.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"type": "mood", "is": "\x9b2J"}\n{"type": "said", "tor')
    lines = voicechat("export", "--last", "-f", "jsonl").lines
    assert [json.loads(line)["type"] for line in lines] == ["opened", "said", "mood"]
    assert lines[2] == r'{"type": "mood", "is": "\u009b2J"}'


def test_what_is_included_is_asked_for(sessions: Path) -> None:
    run = voicechat("export", "--last", "-f", "txt", "--include", "times, usage")
    assert run.lines[0] == "[0:00] You: Grüß Gott"
    assert run.lines[1].startswith("Tokens: 0 in (")
    assert len(voicechat("export", "--last", "-f", "txt", "--include", "times").lines) == 1


def test_words_need_neither_numpy_nor_rich(sessions: Path) -> None:
    program = (
        "import sys\nfrom voicechat.cli.main import main\nfor format in sys.argv[1:]:\n"
        "    try: main(['export', '--last', '-f', format])\n    except SystemExit: pass\n"
        "sys.exit(' '.join({'numpy', 'rich'} & set(sys.modules)) or None)"
    )
    command = [sys.executable, "-c", program, *FORMATS]
    run = subprocess.run(command, capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (0, b"")


@pytest.mark.parametrize("format", [*FORMATS, "openai.json", "HTML", "rst"])
def test_without_a_format_the_name_of_the_file_says_it(
    sessions: Path, tmp_path: Path, format: str
) -> None:
    export(["k7f3a2"], None, str(tmp_path / f"talk.{format}"))
    export(["k7f3a2"], _known(format), str(tmp_path / "same"))
    assert (tmp_path / f"talk.{format}").read_bytes() == (tmp_path / "same").read_bytes()
    export(["k7f3a2"], "txt", str(tmp_path / "talk.other.srt"))
    assert (tmp_path / "talk.other.srt").read_text().startswith("You: ")
    (tmp_path / f"{format}.{format}").mkdir()
    export(["k7f3a2"], None, str(tmp_path / f"{format}.{format}"))
    assert [path.suffix for path in (tmp_path / f"{format}.{format}").iterdir()] == [".md"]


def _known(format: str) -> Format:
    return next((each for each in FORMATS if each == format.lower().removesuffix(".json")), "md")


def test_a_name_of_sound_that_is_not_written_is_refused(sessions: Path, tmp_path: Path) -> None:
    run = voicechat("export", "k7f3a2", "-o", tmp_path / "talk.MP3")
    refused(run, 2, "wav or flac", "talk.flac")
    assert not (tmp_path / "talk.MP3").exists()
    assert voicechat("export", "k7f3a2", "-o", tmp_path / "talk.MP3", "-f", "md").code == 0


# Which sessions ---------------------------------------------------------------------------------


def test_a_session_is_named_or_the_last_or_all_are_meant(three: Path) -> None:
    refused(voicechat("export"), 2, "which session", "voicechat history list")
    for arguments in (["k7f3a2", "--last"], ["k7f3a2", "--all"], ["--last", "--all"]):
        refused(voicechat("export", *arguments), 2, "--last and --all exclude each other")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--last"], ["First"]),
        (["m9", "k7f3a2"], ["Later", "Grüß Gott"]),
        (["plans", "m9", "last", "m9p2xt", "zz2345"], ["Later", "First"]),
        (["--all"], ["First", "Grüß Gott", "Later"]),
    ],
)
def test_each_session_comes_once_and_all_in_the_order_in_which_they_began(
    three: Path, arguments: list[str], words: list[str]
) -> None:
    run = voicechat("export", *arguments, "-f", "txt")
    assert run.out == "\n".join(f"You: {word}\n" for word in words)


def test_an_unknown_session_is_an_error(three: Path) -> None:
    for names in (["nobody"], ["k7f3a2", "nobody"]):
        with pytest.raises(UnknownSessionError, match="no saved session is called 'nobody'"):
            export(names)


def test_where_nothing_is_saved_that_is_said(home: Path) -> None:
    for arguments in (["--all"], ["--last"], ["last"], ["k7f3a2"]):
        refused(voicechat("export", *arguments), 7, "no conversation is saved", "voicechat talk")
    save(home / "sessions", "empty2")
    refused(voicechat("export", "--all"), 7, "no conversation is saved")


def test_a_session_of_garbage_is_an_error_and_no_part_of_all(sessions: Path) -> None:
    (sessions / "20260822-093000-gggggg.jsonl").write_text("garbage")
    with pytest.raises(UnreadableSessionError):
        export(["gggggg"])
    run = voicechat("export", "--all", "-f", "txt")
    assert (run.out, run.code) == ("You: Grüß Gott\n", 0)
    assert run.err.startswith("1 file in ")
    assert run.err.endswith(" cannot be read.\n")


def test_an_unknown_format_is_a_usage_error_that_names_the_known_ones(sessions: Path) -> None:
    run = voicechat("export", "last", "--format", "pdf")
    assert run.code == 2
    assert all(format in run.err for format in [*FORMATS, "wav", "flac"])


@pytest.mark.parametrize("words", ["cost", "times,cost", "TIMES", "times usage", "\x1b[2J"])
def test_an_unknown_word_to_include_is_a_usage_error_that_names_the_known_ones(
    sessions: Path, words: str
) -> None:
    run = voicechat("export", "--last", "--include", words)
    refused(run, 2, "usage, times")
    assert run.err == "\n  ".join(map(printable, run.err.splitlines())) + "\n"


# Several at once --------------------------------------------------------------------------------


def test_several_sessions_stand_one_after_the_other(three: Path, tmp_path: Path) -> None:
    markdown = voicechat("export", "k7f3a2", "m9p2xt").out
    assert re.findall(r"^(?:# .*|---)$", markdown, re.MULTILINE) == [
        "# Grüß Gott",
        "---",
        "# plans",
    ]
    assert "\n\n---\n\n# plans" in markdown
    assert voicechat("export", "--all", "-o", tmp_path / "all.txt", "-f", "txt").code == 0
    assert (tmp_path / "all.txt").read_text() == "You: First\n\nYou: Grüß Gott\n\nYou: Later\n"
    records = [json.loads(line) for line in voicechat("export", "--all", "-f", "jsonl").lines]
    opened = [record["session"] for record in records if record["type"] == "opened"]
    assert (opened, len(records)) == (["zz2345", "k7f3a2", "m9p2xt"], 6)


def test_the_formats_that_hold_several_sessions() -> None:
    assert list(BETWEEN) == TOGETHER


@pytest.mark.parametrize("format", sorted(set(FORMATS) - set(TOGETHER)))
def test_the_other_formats_need_a_directory_for_several(
    three: Path, tmp_path: Path, format: Format
) -> None:
    target = tmp_path / "talk"
    for output in (None, "-", str(target)):
        with pytest.raises(UsageError, match=f"3 sessions do not go into one {format}") as caught:
            export(None, format, output, everything=True)
        assert caught.value.remedy == "Name a directory with -o."
    assert not target.exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_directory_gets_a_file_for_each_session(
    three: Path, tmp_path: Path, format: Format
) -> None:
    for directory in (tmp_path / "new" / "deep", tmp_path / "there"):
        if directory.name == "there":
            directory.mkdir()
            run = voicechat("export", "--all", "-f", format, "-o", directory)
        else:
            run = voicechat("export", "--all", "-f", format, "-o", f"{directory}/")
        assert (run.out, run.err, run.code) == ("", f"Wrote 3 files to {directory}.\n", 0)
        ending = "openai.json" if format == "openai" else format
        assert {path.name: voicechat("export", path.name[:6], "-f", format).out
                for path in directory.iterdir()} == {
            f"{id}.{ending}": (directory / f"{id}.{ending}").read_text()
            for id in ("k7f3a2", "m9p2xt", "zz2345")
        }  # fmt: skip


def test_one_session_goes_into_a_directory_too(sessions: Path, tmp_path: Path) -> None:
    run = voicechat("export", "--last", "-f", "txt", "-o", tmp_path)
    assert run.err == f"Wrote {tmp_path}/k7f3a2.txt.\n"
    assert (tmp_path / "k7f3a2.txt").read_text() == "You: Grüß Gott\n"


def test_nothing_is_overwritten_and_nothing_written_when_a_file_exists(
    three: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    precious, dangling = tmp_path / "out" / "m9p2xt.md", tmp_path / "out" / "zz2345.md"
    precious.write_text("precious")
    run = voicechat("export", "--all", "-o", tmp_path / "out")
    refused(run, 14, f"{precious} exists already", "--force")
    dangling.symlink_to(tmp_path / "nowhere")
    refused(voicechat("export", "--all", "-o", tmp_path / "out"), 14, "and 1 more exist already")
    assert (precious.read_text(), len(list((tmp_path / "out").iterdir()))) == ("precious", 2)
    dangling.unlink()
    assert voicechat("export", "--all", "-o", tmp_path / "out", "--force").code == 0
    assert precious.read_text().startswith("# plans\n")


HOSTILE_IDS = [
    "..",
    ".hidden",
    "-rf",
    "~",
    "a\\b:c*d?e\"f<g>h|i",
    "\x1b[2J\u202e",
    "nul",
    "NUL.txt",
    "Same",
    "same",
    "SAME",
    "x" * 200,
    "界" * 80,
    " . ",
    "odd\udcff",
]  # fmt: skip


def test_no_id_leads_out_of_the_directory(home: Path, tmp_path: Path) -> None:
    sessions, target = home / "sessions", tmp_path / "a" / "b"
    for number, id in enumerate(HOSTILE_IDS):
        path = save(sessions, f"id{number:04}", f"turn {number}")
        path.rename(path.with_name(f"{id}.jsonl"))
        assert session_id(path.with_name(f"{id}.jsonl")) == id
    doubled = save(sessions, "k7f3a2", "one"), save(sessions, "k7f3a2", "two", day=1)
    assert doubled[0] != doubled[1]
    export(None, "txt", f"{target}/", everything=True)
    written = sorted(target.iterdir())
    assert sorted(tmp_path.iterdir()) == [target.parent, home]
    assert list(target.parent.iterdir()) == [target]
    assert len(written) == len(HOSTILE_IDS) + 2
    assert len({path.name.casefold() for path in written}) == len(written)
    for path in written:
        name = path.name
        assert name.isprintable()
        assert not re.search(r'[/\\:*?"<>|]|^[-. ]|[. ]\.txt$|^(?i:nul)\.', name)
        assert len(os.fsencode(name)) <= 255
    assert {"k7f3a2.txt", "k7f3a2-2.txt", "_nul.txt", "session.txt"} <= {p.name for p in written}


# Into files -------------------------------------------------------------------------------------


def test_an_export_goes_into_a_file(sessions: Path, tmp_path: Path) -> None:
    export(["last"], "txt", str(tmp_path / "talk.txt"))
    assert (tmp_path / "talk.txt").read_text() == "You: Grüß Gott\n"


def test_a_file_is_overwritten_only_by_force(sessions: Path, tmp_path: Path) -> None:
    target = tmp_path / "talk.txt"
    target.write_text("precious")
    target.chmod(0o600)
    with pytest.raises(OutputError, match=r"exists already$") as caught:
        export(["last"], "txt", str(target))
    assert "--force" in caught.value.remedy
    assert target.read_text() == "precious"
    export(["last"], "txt", str(target), force=True)
    assert target.read_text() == "You: Grüß Gott\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_goes_on_being_a_link(sessions: Path, tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    export(["last"], "txt", str(tmp_path / "link.txt"), force=True)
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "You: Grüß Gott\n"


@pytest.mark.parametrize("force", [False, True])
def test_where_nothing_can_be_written_is_an_error(
    sessions: Path, tmp_path: Path, force: bool
) -> None:
    (tmp_path / "file").touch()
    places = [tmp_path / "missing" / "talk.txt", tmp_path / "file" / "x", Path("/proc/x.txt"),
              tmp_path / ("long" * 100)]  # fmt: skip
    for target in places:
        with pytest.raises(OutputError, match=re.escape(f"cannot write {target}: ")):
            export(["last"], "txt", str(target), force)
    for target in (tmp_path / "file", Path("/proc/x"), tmp_path / ("long" * 100)):
        with pytest.raises(OutputError, match=re.escape(f"cannot make the directory {target}: ")):
            export(["last"], "txt", f"{target}/", force)
    with pytest.raises(OutputError, match=r"cannot write /proc/k7f3a2\.txt: "):
        export(["last"], "txt", "/proc", force)
    with pytest.raises(UsageError, match="-o is given without a name"):
        export(["last"], "txt", "", force)


def test_a_directory_in_the_place_of_a_file_is_an_error(sessions: Path, tmp_path: Path) -> None:
    target = tmp_path / "k7f3a2.txt"
    target.mkdir()
    with pytest.raises(OutputError, match=re.escape(f"{target} exists already")):
        export(["last"], "txt", str(tmp_path))
    with pytest.raises(OutputError, match=re.escape(f"cannot write {target}: is a directory")):
        export(["last"], "txt", str(tmp_path), force=True)
    assert list(target.iterdir()) == []


def test_a_device_is_written_to_and_not_replaced(sessions: Path) -> None:
    for force in (False, True):
        export(["last"], "txt", os.devnull, force)
        assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_no_half_file(sessions: Path, tmp_path: Path, force: bool) -> None:
    if force:
        (tmp_path / "talk.txt").write_text("precious")
    before = sorted(tmp_path.iterdir())
    with no_file_larger_than(10), pytest.raises(OutputError, match="file too large"):
        export(["last"], "txt", str(tmp_path / "talk.txt"), force)
    assert sorted(tmp_path.iterdir()) == before
    assert not force or (tmp_path / "talk.txt").read_text() == "precious"


def test_a_full_device_is_an_error(sessions: Path) -> None:
    with pytest.raises(OutputError, match="no space left on device"):
        export(["last"], "txt", "/dev/full")


# Sound ------------------------------------------------------------------------------------------


def record(directory: Path, id: str) -> None:
    """Put down a recording of a moment of silence."""
    from voicechat.audio.recorder import Recorder
    from voicechat.history.recordings import new_recording

    [log] = directory.glob(f"*-{id}.jsonl")
    with Recorder(new_recording(log, 0)) as recorder:
        recorder.user(bytes(9_600), 200)


def test_of_all_sessions_the_recorded_ones_come_out(three: Path, tmp_path: Path) -> None:
    refused(voicechat("export", "--all", "-f", "flac", "-o", f"{tmp_path}/"), 9, "--record auto")
    record(three, "k7f3a2")
    record(three, "zz2345")
    run = voicechat("export", "--all", "-f", "flac", "-o", f"{tmp_path}/out/")
    said = f"Nothing is recorded beside 1 session.\nWrote 2 files to {tmp_path}/out.\n"
    assert (run.out, run.err, run.code) == ("", said, 0)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["k7f3a2.flac", "zz2345.flac"]
    with pytest.raises(UsageError, match="2 sessions do not go into one wav file"):
        export(None, "wav", everything=True)


def test_a_session_without_sound_is_named_before_anything_is_written(
    three: Path, tmp_path: Path
) -> None:
    record(three, "k7f3a2")
    with pytest.raises(AudioFileError, match="beside session m9p2xt"):
        export(["k7f3a2", "m9p2xt"], "wav", f"{tmp_path}/out/")
    assert not (tmp_path / "out").exists()


def test_what_is_written_to_a_terminal_does_nothing_there(home: Path) -> None:
    save(home / "sessions", "k7f3a2", "\x1b[31mred \x9b2J", name="\x1b]0;owned\x07")
    for format in FORMATS:
        terminal, end = pty.openpty()
        command = [sys.executable, "-m", "voicechat", "export", "--last", "-f", format]
        subprocess.run(command, stdout=end, check=True)
        os.close(end)
        shown = os.read(terminal, 100_000).decode()
        os.close(terminal)
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", shown)
