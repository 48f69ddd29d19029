"""What every test has: a place of its own to save conversations in, and no key."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("VOICECHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = tmp_path / "home"
    monkeypatch.setenv("VOICECHAT_HOME", str(path))
    monkeypatch.setenv("COLUMNS", "100")
    return path
