"""The one audio format: PCM16, little-endian, mono, 24 kHz."""

SAMPLE_RATE = 24_000
BYTES_PER_SAMPLE = 2
BYTES_PER_MS = SAMPLE_RATE * BYTES_PER_SAMPLE // 1000
FRAME_MS = 20
FRAME_SAMPLES = SAMPLE_RATE * FRAME_MS // 1000
FRAME_BYTES = FRAME_SAMPLES * BYTES_PER_SAMPLE


def duration_ms(pcm: bytes) -> int:
    """How long these samples last."""
    return len(pcm) // BYTES_PER_MS


def silence(ms: int) -> bytes:
    """So many milliseconds of nothing."""
    return bytes(BYTES_PER_MS * ms)
