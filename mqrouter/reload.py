"""Another configuration takes the place of the one in force, as far as that goes while everything runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from mqrouter import logs, wiring
from mqrouter.config import Loaded
from mqrouter.edge.embedder import LlamaEmbedder
from mqrouter.edge.example_vectors import ExampleVectors
from mqrouter.errors import ConfigError, MqrouterError, Problem
from mqrouter.flow.decide import Decide
from mqrouter.log_file import LogLimits
from mqrouter.settings import LogSettings, Route, Settings

log = structlog.get_logger("daemon")

RELOADABLE = frozenset({"routes", "prompts", "routing", "privacy", "log", "include"})


@dataclass(slots=True)
class InForce:
    """The configuration now, and the one the daemon was started with: what is not reloadable goes by that."""

    loaded: Loaded
    started: Settings

    def routes(self) -> Mapping[str, Route]:
        return self.loaded.settings.routes

    def restart_needed(self) -> list[str]:
        """Returns the sections in which the two differ and a reload does not help."""
        return sorted(changed_sections(self.started, self.loaded.settings) - RELOADABLE)

    def judged_by(self, settings: Settings) -> Settings:
        """The tiers and listeners stay as they run; what may be seen by a tier is taken from it at once."""
        tiers = wiring.trusted_by_both(self.started.tiers, settings.tiers)
        return settings.model_copy(update={"tiers": tiers, "listeners": self.started.listeners})


class Reload:
    """`log_texts` says whether the lanes log questions and answers. One reload at a time; the others wait."""

    def __init__(
        self,
        in_force: InForce,
        decide: Decide,
        embedder: LlamaEmbedder,
        vectors: ExampleVectors,
        log_texts: Callable[[bool], None],
    ) -> None:
        self._in_force = in_force
        self._decide = decide
        self._embedder = embedder
        self._vectors = vectors
        self._log_texts = log_texts
        self._lock = asyncio.Lock()

    async def take(self, load: Callable[[], Loaded]) -> bool:
        """A valid configuration replaces routes, prompts, routing and log; a bad one changes nothing: False."""
        async with self._lock:
            try:
                await self._take(load())
            except ConfigError as error:
                log.error("daemon.reload_refused", problems=[str(problem) for problem in error.problems])
                return False
            except MqrouterError as error:
                log.error("daemon.reload_refused", problems=[str(error)])
                return False
        return True

    async def take_head(self) -> None:
        """The judge decides by the head that is on disk now. Raises MqrouterError, and the old one goes on."""
        async with self._lock:
            settings = self._in_force.judged_by(self._in_force.loaded.settings)
            self._decide.judge = await wiring.build_judge(settings, self._embedder, self._vectors)

    async def _take(self, loaded: Loaded) -> None:
        """Raises ConfigError, or another MqrouterError, before anything has changed."""
        in_force, settings = self._in_force, loaded.settings
        if new_tiers := settings.tiers.keys() - in_force.started.tiers.keys():
            raise ConfigError([Problem("tiers", f"{', '.join(sorted(new_tiers))} added: restart the daemon")])
        judge = await wiring.build_judge(in_force.judged_by(settings), self._embedder, self._vectors)
        configure_logs(settings.log)
        in_force.loaded = loaded
        self._decide.judge = judge
        self._log_texts(settings.log.include_text)
        if waiting := in_force.restart_needed():
            log.warning("daemon.restart_needed", sections=waiting)


def changed_sections(old: Settings, new: Settings) -> set[str]:
    return {name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)}


def configure_logs(settings: LogSettings) -> None:
    """The log is as configured, its file opened anew. Raises ConfigError, and nothing changes."""
    limits = LogLimits(settings.max_bytes, settings.keep_days, settings.keep_files)
    try:
        file = logs.open_file(settings.file, limits)
    except OSError as error:
        raise ConfigError([Problem("log.file", f"{settings.file} cannot be written: {error.strerror}")]) from error
    logs.configure(
        level=settings.level,
        fmt=settings.format,
        include_text=settings.include_text,
        levels=settings.levels,
        stream=file,
    )
    logs.take_file(file)
