"""mqrouter run."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import click

from mqrouter.cli.common import Exit, config_option, load_or_exit
from mqrouter.edge.store.lock import hold_lock
from mqrouter.errors import ConfigError, ModelFileError, MqrouterError, StoreError, StoreLockedError


@click.command("run")
@config_option
def command(config: Path | None) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.

    \b
    Example:
      mqrouter run -c /etc/mqrouter/mqrouter.toml
    """
    # Before numpy loads: a decision is small, and a pool of threads would only take the embedder's cores from it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    loaded = load_or_exit(config)
    os.umask(0o027)  # questions may be private: the database is for the owner, and for the group to read
    _give_way(loaded.settings.database)
    from mqrouter.app import Daemon, configure_logs
    from mqrouter.config import Loaded, load

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
        configure_logs(loaded.settings.log)
        asyncio.run(serve())
    except Exception as error:
        causes = _leaves(error)
        code = next((code for kind, code in _EXITS.items() if any(isinstance(cause, kind) for cause in causes)), None)
        if code is None or not all(isinstance(cause, (MqrouterError, OSError)) for cause in causes):
            raise  # a fault of ours: the traceback is what we need to see
        for cause in causes:
            hint = f" (gateway.data_dir is {loaded.settings.gateway.data_dir})" if isinstance(cause, OSError) else ""
            click.echo(f"mqrouter: {cause}{hint}", err=True)
        raise SystemExit(code) from None


def _give_way(database: Path) -> None:
    """Ends the process where another daemon has the database: before the half second that loading all of ours takes."""
    with suppress(OSError):  # no folder yet, or not ours: the daemon says what to do
        try:
            hold_lock(database).close()
        except StoreLockedError as error:
            click.echo(f"mqrouter: {error}", err=True)
            raise SystemExit(Exit.TEMPFAIL) from None


_EXITS: dict[type[Exception], Exit] = {  # the first that applies
    StoreLockedError: Exit.TEMPFAIL,
    ConfigError: Exit.CONFIG,
    ModelFileError: Exit.CONFIG,
    PermissionError: Exit.NOPERM,
    StoreError: Exit.FAILED,
    OSError: Exit.FAILED,
}


def _leaves(error: BaseException) -> list[BaseException]:
    """Returns the errors of a group of groups, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for child in error.exceptions for leaf in _leaves(child)]
    return [error]
