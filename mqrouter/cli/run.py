"""mqrouter run."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import click

from mqrouter.cli.common import Exit, config_option, load_or_exit


@click.command("run")
@config_option
def command(config: Path | None) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.

    \b
    Example:
      mqrouter run -c /etc/mqrouter/mqrouter.toml
    """
    loaded = load_or_exit(config)
    from mqrouter.app import Daemon, configure_logs
    from mqrouter.config import Loaded, load
    from mqrouter.errors import ConfigError, ModelFileError, StoreLockedError

    configure_logs(loaded.settings.log)

    def reload() -> Loaded:
        return load(loaded.files[0], os.environ)

    async def serve() -> None:
        daemon = Daemon(loaded)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.request_stop)
        reloads: set[asyncio.Task[bool]] = set()

        def start_reload() -> None:
            task = asyncio.create_task(daemon.reload(reload), name="reload")
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, start_reload)
        await daemon.run()

    try:
        asyncio.run(serve())
    except* StoreLockedError as group:
        _end(group, Exit.TEMPFAIL)
    except* (ConfigError, ModelFileError) as group:
        _end(group, Exit.CONFIG)


def _end(group: BaseExceptionGroup[Exception], code: Exit) -> None:
    for error in _leaves(group):
        click.echo(f"mqrouter: {error}", err=True)
    raise SystemExit(code)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for child in error.exceptions for leaf in _leaves(child)]
    return [error]
