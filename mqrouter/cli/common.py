"""What every command shares: exit codes, the configuration option, and how problems are shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from mqrouter.errors import ConfigError, Problem

if TYPE_CHECKING:
    from mqrouter.config import Loaded

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


def fail(problems: Iterable[Problem], code: Exit = Exit.CONFIG) -> NoReturn:
    """Ends the process with each problem on a line of stderr."""
    for problem in problems:
        click.echo(str(problem), err=True)
    raise SystemExit(code)


def echo_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
