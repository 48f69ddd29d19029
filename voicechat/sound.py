"""What hears and can be heard, a sound card or files, and who is told about it."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol

from voicechat.errors import UsageError, VoicechatError

EchoMode = Literal["auto", "cancel", "half-duplex", "off"]
"""What is done against the assistant hearing itself."""
RECORDED = (".flac", ".wav")
"""Endings of the files in which a conversation can be recorded."""


def check_recording_name(name: str) -> None:
    """See that a recording can have this name.

    Raises:
        UsageError: It ends in something else than `RECORDED`.
    """
    if Path(name).suffix.lower() not in RECORDED:
        raise UsageError(
            f"{name!r} is no recording: its name ends neither in .flac nor in .wav",
            remedy="Name a file such as `talk.flac` or `talk.wav`, with `--record FILE`.",
        )


class Listener(Protocol):
    """Who is told what becomes of a sound; everything is called on the event loop."""

    def captured(self, pcm: bytes) -> None:
        """The microphone heard these 20 ms."""

    def played(self, pcm: bytes) -> None:
        """The speaker took this sound, or silence; it is heard soon."""

    def finished(self, item_id: str, heard_ms: int) -> None:
        """An item was heard to its end, and had so many ms.

        One that finished just before `Sound.stop` was called may be told of here just after it,
        and is then not among those that `stop` returned.
        """

    def noticed(self, text: str) -> None:
        """Something happened that the user should know."""

    def failed(self, error: VoicechatError) -> None:
        """It broke, and will not come back.  Called once."""


class Sound(Protocol):
    """Something that hears and can be heard."""

    @property
    def echo(self) -> EchoMode | None:
        """What is done about echo at this moment; None where there can be none."""

    def open(self, listener: Listener) -> AbstractAsyncContextManager[None]:
        """Hear and be heard until the block is left.

        Raises:
            DeviceError: There is no microphone or no speaker.
        """

    def play(self, item_id: str, pcm: bytes) -> None:
        """Queue sound behind what is already waiting to be heard; return at once."""

    def end(self, item_id: str) -> None:
        """No more sound of this item comes."""

    def stop(self) -> tuple[tuple[str, int], ...]:
        """Fall silent; return each item that was waiting, and how many ms of it were heard."""

    def renew(self) -> None:
        """The machine has slept: whatever was open is not to be trusted any more."""
