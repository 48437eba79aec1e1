"""From settings to what each part takes: translation only, nothing is started here."""

from __future__ import annotations

from collections.abc import Mapping

import paho.mqtt.client as paho
from pydantic import SecretStr

from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.decode import Limits
from mqrouter.core.policy import TierFacts
from mqrouter.core.topics import TopicMap, build_topic_map
from mqrouter.edge.chat import ChatOptions, ChatWorker
from mqrouter.edge.embedder import EmbeddingModel, LlamaEmbedder
from mqrouter.edge.example_vectors import ExampleVectors, Matrix
from mqrouter.edge.mqtt.options import LinkOptions, TlsFiles
from mqrouter.edge.upstream import OpenAiClient, UpstreamOptions
from mqrouter.errors import ConfigError, Problem
from mqrouter.flow.attempt import AttemptLimits
from mqrouter.flow.judge import Judge, RoutePlan
from mqrouter.models.catalogue import Purpose
from mqrouter.models.loading import LoadProfile, embedder_max_tokens, load_embedder
from mqrouter.models.store import ModelFile, quick_check, resolve
from mqrouter.models.survival import MEMORY_FILE, find_profile
from mqrouter.routing.registry import strategy_factory
from mqrouter.routing.strategy import RouteExamples
from mqrouter.settings import LocalTier, OpenAiTier, Protocol, Secret, Settings, Tier, default_threads

VERSIONS = {
    Protocol.AUTO: (paho.MQTTv5, paho.MQTTv311),
    Protocol.V5: (paho.MQTTv5,),
    Protocol.V311: (paho.MQTTv311,),
}


def request_limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(limits.max_payload_bytes, limits.max_json_depth, limits.default_ttl_s, limits.max_ttl_s)


def topic_map(settings: Settings) -> TopicMap:
    listeners = tuple((entry.filter, entry.device_level, entry.answer) for entry in settings.listeners)
    return build_topic_map(settings.prefix, listeners, tuple(settings.mqtt.response_topics))


def link_options(settings: Settings) -> LinkOptions:
    """Raises ConfigError where the password's reference leads nowhere."""
    mqtt = settings.mqtt
    password = _secret(mqtt.password, "mqtt.password")
    tls = TlsFiles(mqtt.tls.ca_file, mqtt.tls.cert_file, mqtt.tls.key_file) if mqtt.tls.enabled else None
    return LinkOptions(
        host=mqtt.host,
        port=mqtt.port,
        versions=VERSIONS[mqtt.protocol],
        client_id=settings.client_id,
        username=mqtt.username,
        password=None if password is None else password.get_secret_value(),
        tls=tls,
        keepalive_s=mqtt.keepalive_s,
        connect_timeout_s=mqtt.connect_timeout_s,
        session_expiry_s=mqtt.session_expiry_s,
        receive_maximum=mqtt.receive_maximum,
        reconnect=Backoff(mqtt.reconnect_min_s, mqtt.reconnect_max_s),
        filters=tuple(rule.filter for rule in topic_map(settings).rules),
        status_topic=f"{settings.prefix}/status",
    )


def breakers(settings: Settings) -> dict[str, Breaker]:
    retry = settings.retry
    probes = Backoff(retry.probe_min_s, retry.probe_max_s)
    return {name: Breaker(retry.breaker_failures, probes) for name in settings.tiers}


def round_backoff(settings: Settings) -> Backoff:
    """The wait once every tier of a request has failed."""
    return Backoff(settings.retry.backoff_min_s, settings.retry.backoff_max_s)


def attempt_limits(settings: Settings, tier: Tier) -> AttemptLimits:
    return AttemptLimits(
        total_timeout_s=tier.total_timeout_s,
        is_local=isinstance(tier, LocalTier),
        is_trusted=tier.trusted,
        logs_text=settings.log.include_text,
        max_attempts=settings.retry.max_attempts,
        backoff=round_backoff(settings),
        request=request_limits(settings),
    )


def upstream_client(name: str, tier: OpenAiTier) -> OpenAiClient:
    """Raises ConfigError where the key's reference leads nowhere."""
    return OpenAiClient(
        UpstreamOptions(
            name=name,
            url=tier.url,
            model=tier.model,
            api_key=_secret(tier.api_key, f"tiers.{name}.api_key"),
            max_tokens=tier.max_tokens,
            temperature=tier.temperature,
            concurrency=tier.concurrency,
            connect_timeout_s=tier.connect_timeout_s,
            first_token_timeout_s=tier.first_token_timeout_s,
            idle_timeout_s=tier.idle_timeout_s,
        )
    )


def chat_worker(settings: Settings, tier: LocalTier) -> ChatWorker:
    models_dir = settings.gateway.models_dir

    def command() -> list[str]:
        model = resolve(tier.model, models_dir)
        quick_check(model.path)
        profile = find_profile(model.path, Purpose.CHAT, models_dir / MEMORY_FILE).profile
        threads = tier.threads or default_threads()
        module = "mqrouter.edge.chat_worker"
        return ["-m", module, str(model.path), str(tier.context_tokens), str(threads), profile]

    return ChatWorker(ChatOptions(tier.model, tier.max_tokens, tier.temperature, tier.first_token_timeout_s), command)


def embedder(settings: Settings) -> tuple[LlamaEmbedder, str]:
    """Returns the embedder, not yet started, and the fingerprint of its vectors. Raises ModelFileError."""
    models_dir = settings.gateway.models_dir
    model = resolve(settings.embedder.model, models_dir)
    quick_check(model.path)
    prefix = model.classification_prefix if settings.embedder.query_prefix is None else settings.embedder.query_prefix
    threads = settings.embedder.threads or default_threads()

    def load() -> EmbeddingModel:
        profile: LoadProfile = find_profile(model.path, Purpose.EMBED, models_dir / MEMORY_FILE).profile
        return load_embedder(model.path, threads=threads, profile=profile)

    ready = LlamaEmbedder(load, query_prefix=prefix, max_tokens=embedder_max_tokens(model.path))
    return ready, _fingerprint(model, prefix)


def _fingerprint(model: ModelFile, prefix: str) -> str:
    """Names "this model with this prefix": vectors made under another name are of no use."""
    stat = model.path.stat()
    identity = model.record.sha256 if model.record else f"{stat.st_size}-{stat.st_mtime_ns}"
    return f"{model.path.name}:{identity}:{prefix}"


async def build_judge(settings: Settings, embedder: LlamaEmbedder, vectors: ExampleVectors) -> Judge:
    """Returns the judge over the configured routes, their examples embedded."""
    routing = settings.routing

    async def embed(text: str) -> Matrix:
        return (await embedder.embed(text)).vector

    texts = [text for route in settings.routes.values() for text in route.examples]
    matrix = await vectors.embed_all(texts, embed)
    examples: dict[str, RouteExamples] = {}
    start = 0
    for name, route in settings.routes.items():
        end = start + len(route.examples)
        threshold = routing.threshold if route.threshold is None else route.threshold
        examples[name] = RouteExamples(tuple(route.examples), matrix[start:end], threshold)
        start = end
    return Judge(
        strategy_name=routing.strategy,
        strategy=strategy_factory(routing.strategy)(examples, nearest=routing.nearest_examples),
        min_margin=routing.min_margin,
        routes={
            name: RoutePlan(tuple(route.to), route.when_offline, route.prompt)
            for name, route in settings.routes.items()
        },
        abstain=RoutePlan(tuple(routing.abstain.to), routing.abstain.when_offline, routing.abstain.prompt),
        tiers=tier_facts(settings.tiers),
        prompts=settings.prompts,
    )


def tier_facts(tiers: Mapping[str, Tier]) -> dict[str, TierFacts]:
    return {
        name: TierFacts(name, isinstance(tier, LocalTier), tier.trusted, tier.context_chars)
        for name, tier in tiers.items()
    }


def example_vectors(settings: Settings, fingerprint: str, *, is_read_only: bool = False) -> ExampleVectors:
    return ExampleVectors(settings.gateway.data_dir / "examples.npz", fingerprint, is_read_only=is_read_only)


def _secret(reference: Secret | None, key: str) -> SecretStr | None:
    if reference is None:
        return None
    try:
        return reference.resolve()
    except LookupError as error:
        raise ConfigError([Problem(key, str(error))]) from error
