"""The models of this device: the embedder, the chat worker, and what tells one model from another."""

from __future__ import annotations

from collections.abc import Callable

from mqrouter.core.memory_guard import MemoryLimits, why_not_load
from mqrouter.edge.chat import ChatOptions, ChatWorker, Launch
from mqrouter.edge.embedder import EmbeddingModel, LlamaEmbedder
from mqrouter.edge.example_vectors import ExampleVectors
from mqrouter.edge.memory import Memory
from mqrouter.flow.local_model import Keeper, KeepLimits
from mqrouter.models.catalogue import Purpose
from mqrouter.models.loading import LoadProfile, embedder_max_tokens, load_embedder
from mqrouter.models.store import ModelFile, quick_check, resolve
from mqrouter.models.survival import MEMORY_FILE, find_profile
from mqrouter.settings import LocalTier, Settings, default_threads


def chat_worker(settings: Settings, tier: LocalTier) -> ChatWorker:
    models_dir = settings.gateway.models_dir

    def launch() -> Launch:
        model = resolve(tier.model, models_dir)
        quick_check(model.path)
        profile = find_profile(model.path, Purpose.CHAT, models_dir / MEMORY_FILE).profile
        threads = tier.threads or default_threads()
        arguments = [
            "-m",
            "mqrouter.edge.chat_worker",
            str(model.path),
            str(tier.context_tokens),
            str(threads),
            profile,
        ]
        return Launch(arguments, model.path.stat().st_size / 1e6, _fingerprint(model))

    memory, limits = Memory(), memory_limits(tier)
    return ChatWorker(
        ChatOptions(tier.model, tier.max_tokens, tier.temperature, tier.first_token_timeout_s),
        launch,
        why_not_load=lambda model_mb: why_not_load(memory.read(), limits, model_mb),
    )


def memory_limits(tier: LocalTier) -> MemoryLimits:
    return MemoryLimits(tier.min_free_mb, tier.max_worker_mb, tier.max_pressure)


def keeper(tier: LocalTier, worker: ChatWorker, monotonic_s: Callable[[], float]) -> Keeper:
    idle_unload_s = None if tier.idle_unload_s == "never" else tier.idle_unload_s
    return Keeper(worker, Memory(), KeepLimits(memory_limits(tier), idle_unload_s), monotonic_s)


def chat_fingerprint(settings: Settings, tier: LocalTier) -> str:
    """Returns the fingerprint of a local tier's model file. Raises ModelFileError."""
    return _fingerprint(resolve(tier.model, settings.gateway.models_dir))


def embedder(settings: Settings) -> tuple[LlamaEmbedder, str]:
    """Returns the embedder, not yet started, and the fingerprint of its vectors. Raises ModelFileError."""
    models_dir = settings.gateway.models_dir
    model = resolve(settings.embedder.model, models_dir)
    quick_check(model.path)
    prefix = _query_prefix(settings, model)
    threads = settings.embedder.threads or default_threads()

    def load() -> EmbeddingModel:
        profile: LoadProfile = find_profile(model.path, Purpose.EMBED, models_dir / MEMORY_FILE).profile
        return load_embedder(model.path, threads=threads, profile=profile)

    ready = LlamaEmbedder(load, query_prefix=prefix, max_tokens=embedder_max_tokens(model.path))
    return ready, _fingerprint(model, prefix)


def embedder_fingerprint(settings: Settings) -> str:
    """Returns the fingerprint of the vectors of the configured embedder, not loading it. Raises ModelFileError."""
    model = resolve(settings.embedder.model, settings.gateway.models_dir)
    return _fingerprint(model, _query_prefix(settings, model))


def _query_prefix(settings: Settings, model: ModelFile) -> str:
    configured = settings.embedder.query_prefix
    return model.classification_prefix if configured is None else configured


def _fingerprint(model: ModelFile, prefix: str = "") -> str:
    """Names "this model with this prefix": what was made or learnt under another name is of no use."""
    stat = model.path.stat()
    identity = model.record.sha256 if model.record else f"{stat.st_size}-{stat.st_mtime_ns}"
    return f"{model.path.name}:{identity}:{prefix}"


def example_vectors(settings: Settings, fingerprint: str, *, is_read_only: bool = False) -> ExampleVectors:
    return ExampleVectors(settings.gateway.data_dir / "examples.npz", fingerprint, is_read_only=is_read_only)
