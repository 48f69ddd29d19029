"""What a conversation took: turns, time, tokens and, roughly, money.

A leaf.  Prices are what the provider lists, in US dollars for a million tokens, as of `DATED`; what
writing down the user's words costs is not among them, since servers do not tell.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from re import compile as pattern

from voicechat.transcript import Transcript, Usage

DATED = "2026-11"


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens of each kind, in US dollars."""

    text: float = 0.0
    cached_text: float = 0.0
    text_output: float = 0.0
    audio: float = 0.0
    cached_audio: float = 0.0
    audio_output: float = 0.0


PRICES: Mapping[str, Price] = {
    "gpt-realtime-2.1": Price(4.0, 0.4, 24.0, 32.0, 0.4, 64.0),
    "gpt-realtime-2.1-mini": Price(0.6, 0.06, 2.4, 10.0, 0.3, 20.0),
}
"""Source: the models' pages in OpenAI's documentation, `DATED`."""

_SNAPSHOT = pattern(r"-\d{4}-\d{2}-\d{2}$")


def cost(transcript: Transcript, prices: Mapping[str, Price] = PRICES) -> float | None:
    """US dollars that all responses together cost; None if a model has no known price."""
    models = [transcript.opened.model] if transcript.opened else []
    total = 0.0
    for model, usage in transcript.usages.items():
        price = _price(prices, [model] if model else models)
        if price is None:
            return None
        total += _of(usage, price)
    return total if transcript.usage.total_tokens else None


def is_known(model: str, prices: Mapping[str, Price]) -> bool:
    """This model has a price."""
    return _price(prices, [model]) is not None


def cost_of(usage: Usage, prices: Mapping[str, Price]) -> float | None:
    """US dollars that one response cost; None if its model has no known price."""
    price = _price(prices, [usage.model])
    return _of(usage, price) if price is not None else None


def dollars(money: float) -> str:
    """An amount, with tenths of a cent where they matter: ``$2.50``, ``$0.008``."""
    return f"${money:.2f}" if money >= 0.1 else f"${money:.3f}"


def in_short(transcript: Transcript, prices: Mapping[str, Price] = PRICES) -> str:
    """One line: ``12 turns · 4 min 10 s · 8.1k tokens (~$0.21)``."""
    turns = len(transcript.spoken)
    minutes, seconds = divmod(transcript.end_ms // 1000, 60)  # whole ones, as `clock` has them
    facts = [
        f"{turns} {'turn' if turns == 1 else 'turns'}",
        f"{minutes} min {seconds} s" if minutes else f"{seconds} s",
    ]
    if spent := spent_in_short(transcript, prices):
        facts.append(spent)
    return " · ".join(facts)


def spent_in_short(transcript: Transcript, prices: Mapping[str, Price] = PRICES) -> str:
    """``8.1k tokens (~$0.21)``; nothing where nothing was spent."""
    if (tokens := transcript.usage.total_tokens) <= 0:
        return ""
    money = cost(transcript, prices)
    return f"{_short(tokens)} tokens{_dollars(money) if money is not None else ''}"


def _price(prices: Mapping[str, Price], models: Iterable[str | None]) -> Price | None:
    for model in models:
        if model is not None:
            return prices.get(model) or prices.get(_SNAPSHOT.sub("", model))
    return None


def _of(usage: Usage, price: Price) -> float:
    """Cached tokens and those of sound are parts of the input, not added to it."""
    cached_audio = min(usage.cached_audio_tokens, usage.input_audio_tokens, usage.cached_tokens)
    cached_text = usage.cached_tokens - cached_audio
    text = usage.input_tokens - usage.input_audio_tokens
    parts = (
        (max(0, text - cached_text), price.text),
        (cached_text, price.cached_text),
        (usage.output_tokens - usage.output_audio_tokens, price.text_output),
        (usage.input_audio_tokens - cached_audio, price.audio),
        (cached_audio, price.cached_audio),
        (usage.output_audio_tokens, price.audio_output),
    )
    return sum(max(0, tokens) * each for tokens, each in parts) / 1_000_000


def _dollars(money: float) -> str:
    return f" (~${money:.2f})" if money >= 0.005 else " (<$0.01)"


def _short(number: int) -> str:
    """A number that need not be exact: 940, 8.1k, 1.0M."""
    if number < 1000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 999_950 else f"{number / 1_000_000:.1f}M"
