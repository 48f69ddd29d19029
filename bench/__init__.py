"""How fast voicechat is, measured beside the simplest program that does the same.

    python -m bench.replay      how long it takes to restore a conversation, to move it to a fresh
                                connection, and to resume a huge one
    python -m bench.startup     how long it takes until a command is there
    python -m bench.audio       how late sound is, what it costs, and whether one can interrupt
    python -m bench.soak        whether a long conversation drifts, or grows
    python -m bench.history     how long it takes to find what was said among 10,000 conversations
    python -m bench.crash       whether anything is lost when the program is killed, 200 times

All print what they measured and whether it is good enough, as ``--json`` for scripts, and exit with
1 if it is not.
"""
