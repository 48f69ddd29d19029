"""What the errors of a server mean: over, unimportant, or worth a word to the user.

Most come as ``error`` events, some in the body of an HTTP answer.
"""

import json

from voicechat.errors import (
    AuthenticationError,
    ModelError,
    ProtocolError,
    VoicechatError,
)
from voicechat.realtime.events import Json
from voicechat.realtime.providers import Provider

CHECK_URL = "Check --url: it must be the WebSocket address of a Realtime API."

LONGEST_REASON = 500
"""Letters that are shown of what a server says went wrong."""
FORGET, TRUNCATE = "forget", "truncate"
"""Ids of our events that make a server forget what nobody heard.  Where it has done so already, or
has no such thing, all is well."""
RESPOND = "respond"
"""Id of our events that ask for an answer."""

_BENIGN = frozenset(
    {
        # Races that both ends get over by themselves (Realtime reference, section 6.1).
        "response_cancel_not_active",
        "conversation_already_has_active_response",
        "input_audio_buffer_commit_empty",
        "item_delete_invalid_item_id",
        "item_truncate_invalid_item_id",
        "unsupported_content_type",
    }
)

_ANSWER = ("server_error", "rate_limit_exceeded", "conversation_too_long")
_ACCOUNT = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "account_deactivated",
    }
)
_MODEL = frozenset({"invalid_model", "missing_model", "model_not_found", "DeploymentNotFound"})


def no_realtime_server(reason: str) -> ProtocolError:
    """What it comes to that the first word of a server makes no sense."""
    return ProtocolError(f"what answers is not a Realtime server: {reason}", remedy=CHECK_URL)


def is_benign(error: Json) -> bool:
    """The user need not hear of it: a race that is over, or something forgotten that was not there.

    Servers often leave out our event's id, and the code: then the parameter or the words tell.
    """
    return (
        str(error.get("code")) in _BENIGN
        or error.get("event_id") in (FORGET, TRUNCATE)
        or error.get("param") == "audio_end_ms"
        or "truncate" in str(error.get("message"))
    )


def is_about_answer(error: Json) -> bool:
    """The answer that was asked for will not come.

    Where our event's id is left out, what else is told must do.
    """
    if about := error.get("event_id"):
        return about == RESPOND or error.get("type") == "server_error"
    kinds, param = (error.get("type"), error.get("code")), str(error.get("param"))
    return any(each in kinds for each in _ANSWER) or param.split(".")[0] == "response"


def is_full(error: Json) -> bool:
    """The server has no room for one more client; it may have in a moment."""
    return "session_limit_reached" in (error.get("type"), error.get("code"))


def describe(error: Json) -> str:
    """The server's own words, or its code where it has none."""
    said = str(error.get("message") or error.get("code") or "no reason given")
    return said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}…"


def error_in(body: str) -> Json:
    """What the body of an HTTP answer tells, as an ``error`` event would; empty if it is nothing.

    Some servers put nothing around it, or have ``error`` hold the words alone.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):  # such as a page of a proxy's
        return {}
    if not isinstance(told, dict):
        return {}
    error = told.get("error")
    if isinstance(error, str):
        error = told | {"message": error}
    error = error if isinstance(error, dict) else told
    says = any(isinstance(error.get(name), str) for name in ("message", "code"))
    return error if says else {}


def fatal(error: Json, provider: Provider, model: str = "") -> VoicechatError | None:
    """The end that this ``error`` means, or None when the conversation can go on.

    Args:
        error: What the server told.
        provider: Whose server it is.
        model: Which was asked for, if only the address tells it.
    """
    code, said = str(error.get("code")), describe(error)
    if code == "invalid_api_key" or error.get("type") == "authentication_error":
        return AuthenticationError(
            f"the server refused the API key: {said}", remedy=provider.how_to_get_in
        )
    if code in _ACCOUNT:
        return AuthenticationError(
            f"the account cannot be used: {said}",
            remedy="Look at the billing page of the provider, or use `voicechat talk --local`.",
        )
    if code == "unsupported_country_region_territory":
        return ProtocolError(
            f"nobody is served where we are, or seem to be: {said}",
            remedy="The key may be all right: ask the provider, or use `voicechat talk --local`.",
        )
    if code in _MODEL:
        kind = "deployment" if code == "DeploymentNotFound" else "model"
        which = f"the {kind} {model!r}" if model else f"this {kind}"
        return ModelError(
            f"the server does not offer {which}: {said}",
            remedy="Choose another with --model.",
        )
    if code == "beta_api_shape_disabled":
        return ProtocolError(
            f"the server takes us for an old client: {said}",
            remedy="Something between here and the server adds the OpenAI-Beta header; remove it.",
        )
    return None
