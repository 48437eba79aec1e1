"""What every command shares: exit codes, the configuration option, and how problems are shown."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from mqrouter.errors import ConfigError, Problem

if TYPE_CHECKING:
    from mqrouter.config import Loaded
    from mqrouter.settings import Gateway, Settings

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Exit(IntEnum):
    """Exit codes; those from 64 on are sysexits.h's."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOTHING_FOUND = 3
    UNAVAILABLE = 69
    TEMPFAIL = 75
    NOPERM = 77
    CONFIG = 78


def config_option(command: CommandT) -> CommandT:
    """Gives the command `-c/--config FILE` as its argument `config`, a Path or None."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Configuration; without it $MQROUTER_CONFIG, ./mqrouter.toml, /etc/mqrouter/mqrouter.toml.",
    )(command)


def load_or_exit(config: Path | None) -> Loaded:
    """Returns the configuration, or ends the process with every problem on stderr."""
    from mqrouter.config import find_config, load  # pydantic: too slow for --help

    try:
        return load(find_config(config, os.environ), os.environ)
    except ConfigError as error:
        fail(error.problems)


def gateway_or_exit(config: Path | None) -> tuple[Gateway, Sequence[Problem]]:
    """Returns [gateway] and what is wrong elsewhere in the configuration: a daemon may run on with an earlier one.

    Ends the process with every problem on stderr where not even that can be read.
    """
    gateway, _, problems = _what_can_be_read(config)
    return gateway, problems


def gateway_for_orders(config: Path | None) -> tuple[Gateway, Settings | None]:
    """Returns [gateway], which is enough to see and steer a queue, and the settings where they are accepted.

    That they are not is said on stderr: a mistake in the file is no reason to be blind. Where the gateway never ran
    there is nothing to see, and the mistakes end the process.
    """
    gateway, settings, problems = _what_can_be_read(config)
    if settings is None:
        if not gateway.database.exists():
            fail(problems)
        click.echo("mqrouter: the configuration on disk is refused: see `mqrouter check`", err=True)
    return gateway, settings


def _what_can_be_read(config: Path | None) -> tuple[Gateway, Settings | None, Sequence[Problem]]:
    from mqrouter.config import find_config, load, load_gateway

    try:
        path = find_config(config, os.environ)
    except ConfigError as error:
        fail(error.problems)
    try:
        settings = load(path, os.environ).settings
    except ConfigError as error:
        gateway = load_gateway(path, os.environ)
        if gateway is None:
            fail(error.problems)
        return gateway, None, error.problems
    return settings.gateway, settings, ()


def fail(problems: Iterable[Problem], code: Exit = Exit.CONFIG) -> NoReturn:
    """Ends the process with each problem on a line of stderr."""
    for problem in problems:
        click.echo(str(problem), err=True)
    raise SystemExit(code)


class FiniteRange(click.FloatRange):
    """A number of the range, and never nan, which no comparison keeps out."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


def confirm(question: str) -> None:
    """Ends the process where the answer is no, or nobody is there to answer: then it names `--yes`."""
    try:
        click.confirm(question, abort=True)
    except click.Abort:
        if not sys.stdin.isatty():
            click.echo("\nnobody to ask, this is no terminal: --yes does it without asking", err=True)
        raise


def echo_json(value: object) -> None:
    """Prints the value; a figure that does not exist, not finite in Python, is null."""
    click.echo(json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False))


def _without_nan(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_nan(item) for item in value]
    return value
