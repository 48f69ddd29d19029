"""What a conversation cost: cached tokens and tokens of sound are parts of the input."""

from pathlib import Path

import pytest

from voicechat.errors import UsageError
from voicechat.prices import PRICES, Price, cost, in_short
from voicechat.settings import prices
from voicechat.transcript import Opened, Said, Transcript, Usage, clock

M = 1_000_000


def of(*usages: Usage, model: str | None = None) -> Transcript:
    return Transcript.of([Opened(session="k7f3a2", model=model), *usages])


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(input_tokens=M), 4.0),
        (Usage(input_tokens=M, cached_tokens=M), 0.4),
        (Usage(input_tokens=M, input_audio_tokens=M), 32.0),
        (Usage(input_tokens=M, input_audio_tokens=M, cached_tokens=M, cached_audio_tokens=M), 0.4),
        (Usage(output_tokens=M), 24.0),
        (Usage(output_tokens=M, output_audio_tokens=M), 64.0),
        (Usage(input_tokens=4 * M, input_audio_tokens=2 * M, cached_tokens=2 * M,
               cached_audio_tokens=M), 4.0 + 0.4 + 32.0 + 0.4),
    ],
)  # fmt: skip
def test_each_kind_of_token_has_its_price(usage: Usage, dollars: float) -> None:
    assert cost(of(usage, model="gpt-realtime-2.1")) == pytest.approx(dollars)


def test_each_model_has_its_price_and_one_without_spoils_the_sum() -> None:
    one = Usage(output_tokens=M, model="gpt-realtime-2.1-2026-05-01")
    mini = Usage(output_tokens=M, model="gpt-realtime-2.1-mini")
    assert cost(of(one, mini)) == pytest.approx(26.4)
    assert cost(of(one, Usage(output_tokens=1, model="mine"))) is None
    assert cost(of(Usage(output_tokens=1))) is None
    assert cost(of()) is None


def test_nonsense_from_a_server_costs_nothing_less_than_nothing() -> None:
    odd = Usage(input_tokens=1, cached_tokens=M, input_audio_tokens=M, model="gpt-realtime-2.1")
    assert (cost(of(odd)) or 0) >= 0


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (0, "1 turn · 4 min 10 s"),
        (100, "1 turn · 4 min 10 s · 100 tokens (<$0.01)"),
        (8_750, "1 turn · 4 min 10 s · 8.8k tokens (~$0.21)"),
        (999_960, "1 turn · 4 min 10 s · 1.0M tokens (~$24.00)"),
    ],
)
def test_in_short(tokens: int, told: str) -> None:
    said = Said(item_id="a", role="user", text="Hello", end_ms=250_999)
    usage = Usage(output_tokens=tokens, model="gpt-realtime-2.1")
    assert in_short(transcript := Transcript.of([said, usage])) == told
    assert clock(transcript.end_ms) == "4:10"  # as the list of sessions tells it


def test_prices_can_be_overridden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('["gpt-realtime-2.1"]\ntext = 1\n[mine]\naudio_output = 2.5\n')
    monkeypatch.setenv("VOICECHAT_PRICES", str(file))
    table = prices()
    assert table["gpt-realtime-2.1"] == Price(1, 0.4, 24.0, 32.0, 0.4, 64.0)
    assert table["mine"] == Price(audio_output=2.5)
    assert table["gpt-realtime-2.1-mini"] == PRICES["gpt-realtime-2.1-mini"]


@pytest.mark.parametrize(
    "text",
    ["[mine", "mine = 3", '[mine]\ntext = "x"', "[mine]\ntekst = 1", "[mine]\ntext = -1",
     "[mine]\ntext = nan", "[mine]\ntext = true", "[mine]\ntext = inf", "\x00\udcff",
     "a=" + "[" * 20_000, None],
)  # fmt: skip
def test_a_table_that_is_none_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    file = tmp_path / "prices.toml"
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    monkeypatch.setenv("VOICECHAT_PRICES", str(file))
    with pytest.raises(UsageError):
        prices()
