"""Someone who is told what becomes of a sound, and notes it."""

from voicechat.errors import VoicechatError


class Notes:
    """A `voicechat.sound.Listener`."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.heard = bytearray()
        self.ended: list[tuple[str, int]] = []
        self.notices: list[str] = []
        self.failures: list[VoicechatError] = []

    def captured(self, pcm: bytes) -> None:
        self.frames.append(pcm)

    def played(self, pcm: bytes) -> None:
        self.heard += pcm

    def finished(self, item_id: str, heard_ms: int) -> None:
        self.ended.append((item_id, heard_ms))

    def noticed(self, text: str) -> None:
        self.notices.append(text)

    def failed(self, error: VoicechatError) -> None:
        self.failures.append(error)
