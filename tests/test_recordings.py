"""The recordings beside a session's log, and what `voicechat export` makes of them."""

import io
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.program import voicechat
from tests.test_log import no_file_larger_than
from tests.test_recorder import sound
from tests.test_sessions import save
from voicechat.audio.parts import end_ms, joined
from voicechat.audio.recorder import Recorder
from voicechat.cli.export import AnyFormat, SoundFormat, export
from voicechat.errors import AudioFileError, OutputError, StoreError
from voicechat.history.export import FORMATS
from voicechat.history.recordings import discard_recordings, new_recording, recordings_of
from voicechat.history.sessions import find_session, list_sessions
from voicechat.pcm import SAMPLE_RATE

SOUND_FORMATS: tuple[SoundFormat, ...] = get_args(SoundFormat)


@pytest.fixture
def log(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a session."""
    monkeypatch.setenv("VOICECHAT_HOME", str(home))
    return save(home / "sessions", "k7f3a2", "Hello")


def record(log: Path, start_ms: int, user: bytes, assistant: bytes = b"") -> Path:
    """One run of a session, both sides from its beginning on."""
    path = new_recording(log, start_ms)
    with Recorder(path, start_ms) as recorder:
        for at in range(0, max(len(user), len(assistant)), 960):
            now_ms = start_ms + at // 48 + 20
            recorder.user(user[at : at + 960], now_ms)
            recorder.assistant(assistant[at : at + 960], now_ms)
    return path


def stereo(left: bytes, right: bytes) -> NDArray[np.int16]:
    """Shape (n, 2)."""
    length = max(len(left), len(right))
    return np.column_stack(
        [np.frombuffer(side.ljust(length, b"\0"), dtype="<i2") for side in (left, right)]
    )


def read(file: Path | io.BytesIO) -> NDArray[Any]:
    """A whole sound file, shape (n, 2)."""
    frames, rate = soundfile.read(file, dtype="int16", always_2d=True)
    assert rate == SAMPLE_RATE
    return np.asarray(frames)


# Beside the log ---------------------------------------------------------------------------------


def test_every_run_has_a_recording_beside_the_log_for_its_owner_only(log: Path) -> None:
    paths = [new_recording(log, start_ms) for start_ms in (61_500, 0, 7_000, 61_500, 61_500)]
    assert [path.name.removeprefix(log.stem) for path in paths] == [
        ".61500.flac",
        ".0.flac",
        ".7000.flac",
        ".61500-2.flac",
        ".61500-3.flac",
    ]
    assert {path.parent for path in paths} == {log.parent}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert recordings_of(log) == []  # nothing is in them
    for path in paths:
        path.write_bytes(b"x")
    assert [(at, path.name.removeprefix(log.stem)) for at, path in recordings_of(log)] == [
        (0, ".0.flac"),
        (7_000, ".7000.flac"),
        (61_500, ".61500.flac"),
        (61_500, ".61500-2.flac"),
        (61_500, ".61500-3.flac"),
    ]


def test_files_of_other_sessions_and_other_kinds_are_no_recordings(log: Path) -> None:
    other = save(log.parent, "zz2345", "Hello")
    new_recording(other, 0).write_bytes(b"x")
    for name in (
        "flac",
        "x.flac",
        "-1.flac",
        "1.wav",
        "1.flac.part",
        "1-x.flac",
        "9" * 11 + ".flac",
    ):
        log.with_name(f"{log.stem}.{name}").write_bytes(b"x")
    log.with_name(f"{log.stem}.5.flac").mkdir()
    log.with_name(f"{log.stem}.6.flac").symlink_to(f"{log.stem}.6.flac")
    assert recordings_of(log) == []
    assert len(recordings_of(other)) == 1


def test_the_list_and_the_search_for_sessions_see_no_recordings(log: Path) -> None:
    record(log, 0, sound(100))
    sessions, unreadable = list_sessions(log.parent)
    assert ([session.id for session in sessions], unreadable) == (["k7f3a2"], [])
    for wanted in ("last", "k7", "k7f3a2"):
        assert find_session(log.parent, wanted).path == log


def test_a_recording_that_cannot_be_made_is_an_error(log: Path, home: Path) -> None:
    with pytest.raises(StoreError, match="no such file or directory"):
        new_recording(home / "missing" / log.name, 0)
    with pytest.raises(StoreError, match="no such file or directory"):
        recordings_of(home / "missing" / log.name)


def test_the_recordings_of_a_session_in_which_nothing_was_said_go_with_it(log: Path) -> None:
    record(log, 0, sound(20))
    new_recording(log, 20)
    discard_recordings(log)
    assert len(list(log.parent.iterdir())) == 3
    log.unlink()
    discard_recordings(log)
    assert list(log.parent.iterdir()) == []


# `voicechat export` -----------------------------------------------------------------------------


@pytest.mark.parametrize("format", SOUND_FORMATS)
def test_a_recording_comes_out_to_the_sample(log: Path, home: Path, format: SoundFormat) -> None:
    user, assistant = sound(3_020, 1), sound(2_740, 2)
    record(log, 0, user, assistant)
    export(["last"], format, str(home / "talk"))
    frames = read(home / "talk")
    assert (frames == stereo(user, assistant)).all()
    assert soundfile.info(home / "talk").format.lower() == format
    assert soundfile.info(home / "talk").frames == len(frames)


@pytest.mark.parametrize("format", SOUND_FORMATS)
def test_runs_are_at_their_places_and_silence_is_between(
    log: Path, home: Path, format: SoundFormat
) -> None:
    record(log, 5_300, sound(1_500, 3), sound(1_500, 4))
    record(log, 1_700, sound(1_100, 1), sound(1_100, 2))
    export(["last"], format, str(home / "talk"))
    left = [bytes(1_700 * 48), sound(1_100, 1), bytes(2_500 * 48), sound(1_500, 3)]
    right = [bytes(1_700 * 48), sound(1_100, 2), bytes(2_500 * 48), sound(1_500, 4)]
    assert (read(home / "talk") == stereo(b"".join(left), b"".join(right))).all()


def test_where_two_runs_overlap_both_are_heard(log: Path, home: Path) -> None:
    # Of older versions: the next run began after the last word; the one before had gone on.
    first, second = sound(2_500, 1), sound(2_500, 2)
    record(log, 0, first)
    record(log, 1_900, second)
    record(log, 1_900, second)
    export(["last"], "flac", str(home / "talk"))
    expected = np.zeros(4_400 * 24, dtype=np.int32)
    expected[: 2_500 * 24] += np.frombuffer(first, dtype="<i2")
    expected[1_900 * 24 :] += 2 * np.frombuffer(second, dtype="<i2").astype(np.int32)
    assert (read(home / "talk")[:, 0] == expected.clip(-32768, 32767)).all()


def test_where_the_recordings_end_is_known_whatever_lies_among_them(log: Path) -> None:
    assert end_ms([]) == 0
    record(log, 0, sound(2_500))
    record(log, 1_900, sound(400))
    assert end_ms(recordings_of(log)) == 2_500
    new_recording(log, 90_000).write_bytes(b"x")
    assert end_ms(recordings_of(log)) == 90_000
    assert end_ms([(0, log.with_name("gone.flac"))]) == 0


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.01])
def test_a_torn_recording_is_heard_as_far_as_it_goes(log: Path, home: Path, kept: float) -> None:
    user = sound(4_000, 1)
    path = record(log, 0, user)
    record(log, 6_000, sound(500, 2))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    export(["last"], "wav", str(home / "talk"))
    frames = read(home / "talk")[:, 0]
    torn = np.frombuffer(user, dtype="<i2")[: int(max(0, kept * 4_000 - 150)) * 24]
    assert (frames[: len(torn)] == torn).all()
    assert not frames[4_000 * 24 : 6_000 * 24].any()
    assert (frames[6_000 * 24 :] == np.frombuffer(sound(500, 2), dtype="<i2")).all()


def test_a_session_that_was_not_recorded_is_an_error_that_says_how(log: Path, home: Path) -> None:
    new_recording(log, 0)  # of a run that ended before it began
    for format in SOUND_FORMATS:
        with pytest.raises(AudioFileError, match="beside session k7f3a2: only") as caught:
            export(["last"], format, str(home / "talk"))
        assert "voicechat resume k7f3a2 --record auto" in caught.value.remedy
        assert not (home / "talk").exists()
    run = voicechat("export", "last", "--format", "wav")
    assert (run.code, len(run.err.splitlines())) == (9, 2)


def test_a_file_that_is_no_recording_of_ours_is_an_error(log: Path, home: Path) -> None:
    soundfile.write(new_recording(log, 0), np.zeros(100), 8_000)
    with pytest.raises(AudioFileError, match="is not one that voicechat made"):
        export(["last"], "wav", str(home / "talk"))
    assert not (home / "talk").exists()


@pytest.mark.parametrize("format", SOUND_FORMATS)
def test_sound_goes_through_a_pipe(log: Path, home: Path, format: SoundFormat) -> None:
    record(log, 0, sound(2_000, 1), sound(2_000, 2))
    command = [sys.executable, "-m", "voicechat", "export", "last", "--format", format]
    run = subprocess.run(command, capture_output=True, check=True)
    assert (read(io.BytesIO(run.stdout)) == stereo(sound(2_000, 1), sound(2_000, 2))).all()
    pipe = home / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([*command, "-o", str(pipe)]) as program:
        content = pipe.read_bytes()
    assert program.returncode == 0
    copy = home / "copy"
    copy.write_bytes(content)
    assert (whole_of(copy) == stereo(sound(2_000, 1), sound(2_000, 2))).all()


def whole_of(path: Path) -> NDArray[np.int16]:
    """Of a file that does not say how long it is."""
    pcm = b"".join(joined([(0, path)]))
    return np.frombuffer(pcm, dtype="<i2").reshape(-1, 2)


def test_sound_does_not_go_to_a_terminal(log: Path) -> None:
    record(log, 0, sound(100))
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "voicechat", "export", "last", "--format", "wav"]
    run = subprocess.run(command, stdout=end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(end)
    os.close(terminal)
    assert run.returncode == 14
    assert run.stderr.splitlines()[0] == "voicechat: a terminal cannot show sound"
    assert "-o" in run.stderr.splitlines()[1]


@pytest.mark.parametrize("format", SOUND_FORMATS)
@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_no_half_recording(
    log: Path, home: Path, format: SoundFormat, force: bool
) -> None:
    record(log, 0, sound(2_000))
    if force:
        (home / "talk").write_bytes(b"precious")
    find_session(log.parent, "last")  # which leaves an index there
    before = sorted(home.iterdir())
    with no_file_larger_than(20_000), pytest.raises(OutputError, match="file too large"):
        export(["last"], format, str(home / "talk"), force)
    assert sorted(home.iterdir()) == before
    assert not force or (home / "talk").read_bytes() == b"precious"


def test_a_recording_is_overwritten_only_by_force(log: Path, home: Path) -> None:
    record(log, 0, sound(100))
    (home / "talk").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"exists already$"):
        export(["last"], "wav", str(home / "talk"))
    export(["last"], "wav", str(home / "talk"), force=True)
    assert len(read(home / "talk")) == 2_400


def peak_memory(program: str) -> int:
    """Bytes that a program takes at its most."""
    program += "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(run.stdout) * 1024


def test_an_hour_needs_little_memory(log: Path, home: Path) -> None:
    path = new_recording(log, 0)
    with Recorder(path) as recorder:
        recorder.CLOSING_SECONDS = 60
        recorder.user(sound(1_000), 3_600_000)
    imports = "import numpy, soundfile, typer\nfrom pathlib import Path\n"
    imports += "from voicechat.cli.export import export\n"
    imports += "from voicechat.audio import parts, wav\n"
    work = f"export(['last'], 'flac', {str(home / 'talk')!r})"
    assert (
        peak_memory(imports + work) - peak_memory(imports) < 64 << 20
    )  # an hour of stereo is 346 MB
    assert soundfile.info(home / "talk").frames == 3_600_000 * 24


def test_every_format_is_of_words_or_of_sound() -> None:
    assert get_args(AnyFormat) == (*FORMATS, *SOUND_FORMATS)
