"""The last answer once more, from what was received of it: nobody says it again."""

from collections.abc import Iterable, Iterator

from voicechat.pcm import BYTES_PER_MS
from voicechat.realtime.effects import Effect, EndPlayback, Notice, Play, StopPlayback

LONGEST = 300_000  # ms that are kept, 14 MB; no server gives an answer as long as that


class Repeat:
    """The sound of the last answer, and whether it is being played again.

    The speaker plays it under a name that no turn has, so what is heard of it changes nothing: not
    the transcript, and not what the server knows.
    """

    def __init__(self) -> None:
        self._sound: list[bytes] = []
        self._kept_bytes = 0
        self._is_over = False
        """What comes next is another answer."""
        self._playing = ""
        self._times = 0
        self._stops = 0
        """Of it, which the speaker has not confirmed."""

    def begin(self) -> Iterator[Effect]:
        """An answer begins: it will be the last one as soon as there is sound of it."""
        self._is_over = True
        yield from self.stop()

    def keep(self, effects: Iterable[Effect]) -> Iterator[Effect]:
        """Pass on what is done about an answer, and keep its sound."""
        for effect in effects:
            if isinstance(effect, Play):
                if self._is_over:
                    self._sound.clear()
                    self._kept_bytes, self._is_over = 0, False
                if self._kept_bytes < LONGEST * BYTES_PER_MS:
                    self._sound.append(effect.pcm)
                    self._kept_bytes += len(effect.pcm)
            yield effect

    def play(self) -> Iterator[Effect]:
        """From the beginning, also if it is being played again already."""
        yield from self.stop()
        if not self._sound:
            yield Notice("There is no answer to repeat.")
            return
        self._times += 1
        self._playing = f"again-{self._times}"
        yield Play(self._playing, b"".join(self._sound))
        yield EndPlayback(self._playing)

    def stop(self) -> Iterator[Effect]:
        """Somebody speaks, or wants silence."""
        if self._playing:
            self._playing = ""
            self._stops += 1
            yield StopPlayback()

    def has_stopped(self) -> bool:
        """The speaker fell silent: was it this that it was told to stop?

        It answers in the order in which it is told, and nothing is repeated while an answer is
        being stopped.
        """
        is_this = self._stops > 0
        self._stops -= is_this
        return is_this

    def finish(self, item_id: str) -> None:
        """Something was heard to its end."""
        if item_id == self._playing:
            self._playing = ""
