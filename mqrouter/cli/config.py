"""`mqrouter config`: what is in force, where each value comes from, and what could be set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mqrouter.cli.common import config_option, echo_json, load_or_exit

if TYPE_CHECKING:
    from mqrouter.config import Loaded


@click.group("config")
def command() -> None:
    """Show the configuration in force, or the schema of it.

    \b
    Example:
      mqrouter config show --origins
    """


@command.command("show")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--origins", is_flag=True, help="Say where each value comes from.")
def show(config: Path | None, *, as_json: bool, origins: bool) -> None:
    """Show every setting in force, as TOML; secrets only as references.

    \b
    Example:
      mqrouter config show --origins | grep mqtt
    """
    loaded = load_or_exit(config)
    if as_json:
        echo_json(_document(loaded, origins=origins))
        return
    for line in _lines(loaded, origins=origins):
        click.echo(line)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors.

    \b
    Example:
      mqrouter config schema > mqrouter.schema.json
    """
    from mqrouter.settings import Settings

    echo_json(Settings.model_json_schema())


def _document(loaded: Loaded, *, origins: bool) -> object:
    from mqrouter.config.keys import dotted

    settings = loaded.settings.model_dump(mode="json")
    if not origins:
        return settings
    return {
        "settings": settings,
        "origins": {dotted(path): str(origin) for path, origin in loaded.origins.items()},
    }


def _lines(loaded: Loaded, *, origins: bool) -> Iterator[str]:
    """Yields one `key = value` per setting; a comment for one that is not set, as TOML has no null."""
    from mqrouter.config.listing import entries

    for entry in entries(loaded):
        comment = f"  # {entry.origin}" if origins else ""
        yield f"# {entry.key} is not set" if entry.value is None else f"{entry.key} = {entry.value}{comment}"
