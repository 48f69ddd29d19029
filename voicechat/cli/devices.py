"""``voicechat devices``: which microphones and speakers there are, and whether they work."""

import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voicechat.cli.values import parse_latency
from voicechat.errors import DeviceError, VoicechatError
from voicechat.pcm import FRAME_BYTES, FRAME_MS

if TYPE_CHECKING:
    from voicechat.audio.card import SoundCard
    from voicechat.audio.portaudio import Device

TEST_SECONDS = 2
WIDTH = 40
QUIET = 30
"""Of 32 767: a microphone that is switched on is louder, even in a quiet room."""


def devices(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON list.")] = False,
    test: Annotated[
        bool, typer.Option("--test", help="Record two seconds, and play them back.")
    ] = False,
    input_device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE", envvar="VOICECHAT_INPUT_DEVICE", help="With --test: the microphone."
        ),
    ] = None,
    output_device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE", envvar="VOICECHAT_OUTPUT_DEVICE", help="With --test: the speaker."
        ),
    ] = None,
    latency: Annotated[
        str,
        typer.Option(
            metavar="low|safe|SECONDS", envvar="VOICECHAT_LATENCY", help="With --test: as for talk."
        ),
    ] = "safe",
) -> None:
    """Show microphones and speakers, and their sample rates.

    A star marks the default. 24000 is used where it opens, else the device's own rate is converted.
    """
    import asyncio

    from voicechat.audio import portaudio
    from voicechat.audio.card import SoundCard
    from voicechat.transcript import to_json

    with portaudio.hushed():
        if test:
            card = SoundCard(
                microphone=input_device,
                speaker=output_device,
                latency=parse_latency(latency),
                echo="off",
            )
            asyncio.run(_test(card))
            return
        # A sound system that is stuck keeps the program in C, where no handler is ever called.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        there = portaudio.devices()
        rows = [_described(device) for device in there]
    if as_json:
        typer.echo(to_json(rows, indent=2))
    if not rows:
        portaudio.find("input", None)  # which says why there may be none
    if not as_json:
        _print(rows)


def _described(device: "Device") -> dict[str, Any]:
    from voicechat.audio.portaudio import rates_of

    return {
        "index": device.index,
        "name": device.name,
        "host": device.host,
        "input_channels": device.inputs,
        "output_channels": device.outputs,
        "input_rates": rates_of("input", device) if device.inputs else [],
        "output_rates": rates_of("output", device) if device.outputs else [],
        "is_default_input": device.is_default_input,
        "is_default_output": device.is_default_output,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from voicechat.transcript import printable

    table = Table(box=None, pad_edge=False)
    table.add_column(justify="right")
    for heading in ("Device", "", "Microphone", "", "Speaker"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        name = Text(printable(row["name"]))
        name.append(f" ({printable(row['host'])})", style="dim")
        table.add_row(str(row["index"]), name, *_side(row, "input"), *_side(row, "output"))
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as rendered:
        console.print(table)
    typer.echo(rendered.get(), nl=False)


def _side(row: dict[str, Any], kind: str) -> tuple[str, str]:
    if not row[f"{kind}_channels"]:
        return "", ""
    rates = " ".join(map(str, row[f"{kind}_rates"])) or "does not open"
    return "*" * row[f"is_default_{kind}"], rates


class _Ear:
    """Hears two seconds, and knows when they were played back."""

    def __init__(self) -> None:
        from asyncio import Event

        self.frames: list[bytes] = []
        self.is_played = Event()
        self.has_news = Event()

    def captured(self, pcm: bytes) -> None:
        self.frames.append(pcm)
        self.has_news.set()

    def played(self, pcm: bytes) -> None:
        pass

    def finished(self, item_id: str, heard_ms: int) -> None:
        self.is_played.set()

    def noticed(self, text: str) -> None:
        typer.echo(text, err=True)

    def failed(self, error: VoicechatError) -> None:
        typer.echo(error.message, err=True)


async def _test(card: "SoundCard") -> None:
    """Record, with a level meter; then play back.

    Raises:
        DeviceError: A device does not work, or nothing was heard.
    """
    ear = _Ear()
    peak = 0
    async with card.open(ear):
        typer.echo(f"Say something: {TEST_SECONDS} seconds are recorded.", err=True)
        ear.frames.clear()
        while len(ear.frames) < TEST_SECONDS * 1000 // FRAME_MS:
            await ear.has_news.wait()
            ear.has_news.clear()
            level = _peak(b"".join(ear.frames[-5:]))
            peak = max(peak, level)
            _meter(level)
        recorded = b"".join(ear.frames[: TEST_SECONDS * 1000 // FRAME_MS])
        _meter(peak, end="\n")
        if peak <= QUIET:
            raise DeviceError(
                "the microphone heard nothing",
                remedy="Unmute it in the system's sound settings, or choose another with "
                "`--input-device`; `voicechat devices` lists them.",
            )
        typer.echo("This is what was heard.", err=True)
        for at in range(0, len(recorded), FRAME_BYTES):
            card.play("test", recorded[at : at + FRAME_BYTES])
        card.end("test")
        await ear.is_played.wait()
    typer.echo(f"It works: recorded and played {TEST_SECONDS} s, peak {_decibels(peak):.0f} dB.")


def _peak(pcm: bytes) -> int:
    import numpy as np

    samples = np.frombuffer(pcm, dtype="<i2").astype(int)
    return int(np.abs(samples).max(initial=0))


def _decibels(peak: int) -> float:
    """Below the loudest that there is."""
    import math

    return 20 * math.log10(max(peak, 1) / 32768)


def _meter(peak: int, end: str = "") -> None:
    """60 dB wide."""
    filled = max(0, min(WIDTH, round(WIDTH * (1 + _decibels(peak) / 60))))
    if sys.stderr.isatty() or end:
        start = "\r" if sys.stderr.isatty() else ""
        bar = "#" * filled + "." * (WIDTH - filled)
        sys.stderr.write(f"{start}[{bar}] {_decibels(peak):4.0f} dB{end}")
        sys.stderr.flush()
