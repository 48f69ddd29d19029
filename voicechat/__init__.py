"""voicechat: talk with a realtime voice model from your terminal, and go on tomorrow.

One rule: the conversation is a pure state machine; everything else is a door.

    effects = conversation.handle(what_happened, now)

Whatever happens (a microphone frame, a WebSocket message, a key, a deadline) becomes one *input*
in one queue; one loop (`talk.Talk.run`) takes it out, asks the conversation, and carries out the
*effects*.  What was said is a list of *records*; the transcript is their sum, in memory and on disk
alike.  Starting a new session, resuming a saved one, getting a lost line back and moving to a fresh
connection before the server's limit are the same code: replay of a transcript that may be empty.
The built-in server (``--local``) is just another URL.

    cli/            parses options, delegates, turns errors into exit codes
    start.py        builds the house for one run, and says how to come back
    talk.py         the shell: one inbox, one loop (token_command asks for its tokens)
    script.py       files and typed turns in the place of someone who talks
    settings.py     where data lives
    config.py       flag > saved session > environment > profile > file > default
    keys.py         API keys, in the keyring or in a file
    display.py      what is printed while talking: plain lines, lines of JSON (json_lines), or a
                    terminal (terminal) that shows what view finds and screen renders, and meters
    keyboard.py     keys, typed turns (keystrokes, line_editor, kitty, plain_line)
    trace.py        what happens and is decided, in a file
    doctor/         whether all that a conversation needs is there
    errors.py pcm.py resampling.py transcript.py     leaves, importing no others
    prices.py sound.py       nearly: what a transcript cost; what any sound can do
    realtime/       the wire (events), what can happen (inputs), what to do (effects), its door
                    (connection, on network's ways), what each server can do (providers, abilities)
                    and means by its errors (problems), all of it as a trace (tracing), and THE
                    CORE: conversation sorts what happened; turns, answering, connecting, saving,
                    limits and leaving react; state is what they share:
                      user, assistant      each side's turns; responses: answers that are asked for
                      lines, line          the connections, and one of them
                      replay, summary      a transcript as items for a new one, and its older part
                      recording            what was said, until it is in words
                      timeline, policy     the session's own clock; how hard to try, and how long
    audio/          sound card (card on portaudio, probe), what is played (playback) and heard
                    (hearing, echo, echo_path), files in its place (files, wav, libsndfile), and
                    what keeps it all (recorder, parts)
    history/        session files (log, reading, recordings), looking them up (sessions, index),
                    forks and tombstones (forks, deleting), other formats (export, subtitles, page,
                    importing), damage (checking), other machines (sync, synced, stores/)
    server/         the core's mirror image (session), its engines (each on a thread of workshop),
                    its door (serve), itself as a child process (launch), and the weights that are
                    fetched (models) from a package index (index)

Imports point downwards only, rooms do not know each other (except that the server speaks
`realtime.events`), and only doors touch the world: tests/test_architecture.py enforces both.

Five-minute tour: `realtime/inputs.py`, `realtime/effects.py`, tests/test_barge_in.py,
`realtime.conversation.Conversation.handle`, `talk.Talk.run`.
"""

__version__ = "0.1.0"
