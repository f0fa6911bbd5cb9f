"""The command line: its verbs, what holds for all of them, and how it ends."""

from __future__ import annotations

from multistep.cli.began import BEGAN  # isort: skip - before anything slow

import os
import signal
import sys
from itertools import pairwise
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from multistep.cli import models, plans, runs, training

__all__ = ["BEGAN", "app", "main"]

# There are no plugins of pydantic here; looking for some through all that is installed takes 60 ms of `check`.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


class Verbs(TyperGroup):
    """The verbs, which may have --debug behind them too; and options of other trainers, told what they are here."""

    _words: list[str]  # of the command line

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        behind = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:behind]:
            args = ["--debug", *(word for word in args[:behind] if word != "--debug"), *args[behind:]]
        self._words = args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Typer would end without a word. A run that has begun says itself where it stands.
            from multistep.errors import Stopped

            raise Stopped("stopped by SIGINT", signal.SIGINT) from None
        except Exception as error:
            if told := _known_elsewhere(error, self._words):
                raise told from None
            raise


def _known_elsewhere(error: Exception, words: list[str]) -> Exception | None:
    """What to say of an option that other trainers have; None for every other error."""
    if type(error).__name__ != "NoSuchOption":  # typer brings its own, older ones take click's
        return None
    from multistep.engine.elsewhere import known_elsewhere
    from multistep.errors import PlanError

    option = str(getattr(error, "option_name", ""))
    verb = next((word for word in words if not word.startswith("-")), "")
    if verb not in ("train", "check", "simulate"):  # which take plans
        return None
    if option.replace("_", "-") in (getattr(error, "possibilities", None) or ()):
        return None  # typer names it
    given = next((w.partition("=")[2] or after for w, after in pairwise([*words, ""]) if w.split("=")[0] == option), "")
    found = known_elsewhere(option, None if given.startswith("--") else given, typed=True)
    return PlanError(f"{option}: no such option; {found}") if found else None


app = typer.Typer(
    name="multistep",
    cls=Verbs,
    help="Train a model within a time budget: measure, try changes, keep what helps, and say what of it is proven.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        from multistep import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    _state["debug"] = debug


_state = {"debug": False}


for verb in (*training.VERBS, *plans.VERBS, *runs.VERBS, *models.VERBS):
    app.command()(verb)


def _told_elsewhere(error: Exception) -> bool:
    """Whether this is one of several processes of which another tells people; the first one has the exit code."""
    from multistep.engine.launched import follows

    if not follows() or not {"train", "resume", "demo"} & set(sys.argv[1:]):
        return False
    from multistep.errors import ProcessLost
    from multistep.interface.fleet import absent

    return getattr(error, "told", False) or (not isinstance(error, ProcessLost) and absent(error))


def main() -> NoReturn:
    """The entry point: exit code 2 for the user's mistakes, 1 for failures, 130 or 143 for signals."""
    import traceback

    from multistep.errors import MultistepError, ProcessLost

    code = 0
    try:
        app()
    except (MultistepError, OSError) as error:
        if _told_elsewhere(error):
            sys.exit(1 if isinstance(error, ProcessLost) else 0)
        code = error.exit_code if isinstance(error, MultistepError) else 1
        more = "; --debug shows where" if isinstance(error, OSError) else ""
        if _state["debug"]:
            traceback.print_exc()
        print(f"multistep: {error}{more}", file=sys.stderr)
    sys.exit(code)
