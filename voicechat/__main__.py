"""``python -m voicechat``."""

from voicechat.cli.main import main

main()
