"""``voicechat resume``: ``talk`` about a session that was saved."""

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from voicechat.cli.complete import sessions
from voicechat.cli.sync import sync_first
from voicechat.cli.talk import talk
from voicechat.errors import ExitCode, UsageError
from voicechat.history.sessions import LAST, list_sessions, load
from voicechat.settings import sessions_directory


def _resume_like_talk() -> Callable[..., None]:
    """``resume SESSION`` is ``talk --resume SESSION``, with all its options."""

    def resume(context: typer.Context, session: str | None, last: bool, **options: Any) -> None:
        """Go on with a saved session, all turns restored.

        Without SESSION, on a terminal, one can be picked. The provider, model, voice, instructions
        and language of the session apply unless an option says otherwise, and what is said is added
        to it.
        """
        if session is not None and last:
            raise UsageError("--last and SESSION name two sessions", remedy="Leave out one.")
        if session is None:
            is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
            session = _pick(options["profile"]) if is_terminal and not last else LAST
        talk(context, resume=session, **options)

    parameters = dict(inspect.signature(talk).parameters)
    del parameters["continue_"]
    parameters["resume"] = inspect.Parameter(
        "session",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Argument(
                metavar="[SESSION]",
                help="Its id, the beginning of it, its name, or `last`: the one last used.",
                show_default=False,
                autocompletion=sessions,
            ),
        ],
    )
    last = inspect.Parameter(
        "last",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool, typer.Option("--last", help="The session last used, without asking.")
        ],
    )
    context, session, *rest = parameters.values()
    signature = inspect.Signature([context, session, last, *rest])
    resume.__signature__ = signature  # type: ignore[attr-defined]  # which is where typer looks
    resume.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return resume


resume = _resume_like_talk()


def _pick(profile: str | None) -> str:
    """Let the user choose a saved session."""
    from voicechat.cli.picker import pick  # with prompt_toolkit, which nothing else needs

    sync_first(profile)
    sessions, _ = list_sessions(sessions_directory())
    if not sessions:
        return LAST  # which says that there is none
    picked = pick(sessions, lambda session: load(session.path).spoken)
    if picked is None:
        raise typer.Exit(ExitCode.INTERRUPTED)
    return picked.id
