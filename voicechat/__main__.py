"""``voicechat`` and ``python -m voicechat``."""

import signal


def main() -> None:
    """Run the command line; Ctrl-C while it is being loaded just ends it, without a traceback."""
    as_found = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from voicechat.cli.main import main as run

    signal.signal(signal.SIGINT, as_found)
    run()


if __name__ == "__main__":
    main()
