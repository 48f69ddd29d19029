"""Everything that can go wrong, in words a user can act on.

* VoicechatError                     exit 1    anything else that was expected
    * UsageError                     exit 2    options that contradict each other
    * DeviceError                    exit 3    microphone, speaker, PortAudio
    * ConnectError                   exit 4    network, handshake, the line was lost
        * BusyError                  exit 4    the server is there, but does not serve us now
        * TokenError                 exit 5    the command that says a token does not
    * AuthenticationError            exit 5    key missing or refused, no quota
    * ProtocolError                  exit 6    what answered is no Realtime server, or turns us away
    * UnknownSessionError            exit 7    no saved session by that name, or several
    * StoreError                     exit 8    the session files cannot be written
    * AudioFileError                 exit 9    a sound file that cannot be used
    * UnreadableSessionError         exit 10   a session file that holds no conversation
    * ModelError                     exit 11   the server does not know the model
    * LocalError                     exit 12   the built-in server, its engines or weights
    * SessionInUseError              exit 13   another process talks in this session
    * OutputError                    exit 14   a result cannot be written where it should go
    * AnswerError                    exit 15   the server took a turn and gave no answer
    * SharedStoreError               exit 16   the shared store of sessions cannot be used
    * ImportFileError                exit 17   a file to be imported holds no conversation

This module imports nothing from voicechat, so everything may import it.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the calling shell sees; the README lists them and tests/test_docs.py checks that."""

    OK = 0
    ERROR = 1
    USAGE = 2
    DEVICE = 3
    CONNECTION = 4
    AUTHENTICATION = 5
    PROTOCOL = 6
    UNKNOWN_SESSION = 7
    STORE = 8
    AUDIO_FILE = 9
    UNREADABLE_SESSION = 10
    MODEL = 11
    LOCAL = 12
    SESSION_IN_USE = 13
    OUTPUT = 14
    ANSWER = 15
    SHARED_STORE = 16
    IMPORT = 17
    INTERRUPTED = 130


class VoicechatError(Exception):
    """A problem with a remedy: `message` says what happened, `remedy` what to do next."""

    exit_code = ExitCode.ERROR

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(VoicechatError):
    """The command line asks for things that do not go together."""

    exit_code = ExitCode.USAGE


class DeviceError(VoicechatError):
    """The microphone or the speaker cannot be used."""

    exit_code = ExitCode.DEVICE


class ConnectError(VoicechatError):
    """The server cannot be reached, or went away."""

    exit_code = ExitCode.CONNECTION


class BusyError(ConnectError):
    """The server was reached, but does not serve us now: it may do so in a moment."""


class TokenError(ConnectError):
    """There is no token just now: once the conversation goes on, one may come with the network."""

    exit_code = ExitCode.AUTHENTICATION


class AuthenticationError(VoicechatError):
    """The server was reached and said no to this key: retrying cannot help."""

    exit_code = ExitCode.AUTHENTICATION


class ProtocolError(VoicechatError):
    """The server said what the Realtime API does not allow, or that it does not want us."""

    exit_code = ExitCode.PROTOCOL


class UnknownSessionError(VoicechatError):
    """No saved session has that name, or more than one has."""

    exit_code = ExitCode.UNKNOWN_SESSION


class StoreError(VoicechatError):
    """The session files cannot be read or written."""

    exit_code = ExitCode.STORE


class AudioFileError(VoicechatError):
    """A sound file is missing, damaged, silent or in a form that is not read."""

    exit_code = ExitCode.AUDIO_FILE


class UnreadableSessionError(VoicechatError):
    """A session file is there, but nothing in it can be read."""

    exit_code = ExitCode.UNREADABLE_SESSION


class ModelError(VoicechatError):
    """The server does not offer the model that was asked for."""

    exit_code = ExitCode.MODEL


class LocalError(VoicechatError):
    """The built-in server did not start, or its weights could not be fetched."""

    exit_code = ExitCode.LOCAL


class SessionInUseError(VoicechatError):
    """Another process holds the session."""

    exit_code = ExitCode.SESSION_IN_USE


class OutputError(VoicechatError):
    """A result cannot be written: the file exists, the directory does not, the pipe is closed."""

    exit_code = ExitCode.OUTPUT


class AnswerError(VoicechatError):
    """The server took a turn, but its answer failed or never came."""

    exit_code = ExitCode.ANSWER


class SharedStoreError(VoicechatError):
    """The store that machines share cannot be reached, refuses us, or is not one of ours."""

    exit_code = ExitCode.SHARED_STORE


class ImportFileError(VoicechatError):
    """A file that was to be imported cannot be read, or holds no conversation."""

    exit_code = ExitCode.IMPORT
