"""A bar for work that takes longer than anyone expects."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if that is a terminal, from the first time something is done.

    Yields what is to be called with how much is done, and how much there is.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True),
        transient=True,
    )  # fmt: skip

    def show(done: int, total: int) -> None:
        if not bar.tasks:
            bar.add_task("")
            bar.start()
        bar.update(bar.task_ids[0], completed=done, total=total)

    try:
        yield show
    finally:
        if bar.tasks:
            bar.stop()
