"""What every test has: a place of its own to save conversations and settings in, and no key."""

import os
import signal
from pathlib import Path

import pytest

from voicechat.realtime.providers import PROVIDERS


def pytest_configure() -> None:
    """Let Ctrl-C mean what it does at a terminal: a shell has its background jobs ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try what goes through a sound card again once: it does not wait for a busy machine."""
    for item in items:
        if item.get_closest_marker("card"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("VOICECHAT_", "AZURE_OPENAI_"))]:
        monkeypatch.delenv(name)
    for provider in PROVIDERS.values():
        monkeypatch.delenv(provider.key_variable, raising=False)
    monkeypatch.setenv("VOICECHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # on Linux
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the conversations of this test are saved."""
    return tmp_path / "home"
