"""Where things live."""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def data_directory() -> Path:
    """Where voicechat keeps what was said: ``VOICECHAT_HOME``, or the user's data directory.

    (`os.path.expanduser` leaves ``~nobody`` as it is, where `Path.expanduser` raises.)
    """
    home = os.environ.get("VOICECHAT_HOME")
    return Path(os.path.expanduser(home)) if home else user_data_path("voicechat")  # noqa: PTH111


def child_environment() -> dict[str, str]:
    """Ours, with this very voicechat: a file in the working directory must not shadow a module."""
    home = str(Path(__file__).parent.parent)
    rest = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, rest] if rest else [home])}


def sessions_directory() -> Path:
    """Where the session files are."""
    return data_directory() / "sessions"


def models_directory() -> Path:
    """Where fetched model weights are kept: they can be fetched again at any time."""
    return user_cache_path("voicechat") / "models"
