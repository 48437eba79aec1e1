"""From settings to what each part takes: translation only, nothing is started here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import paho.mqtt.client as paho
import structlog
from pydantic import SecretStr

from mqrouter import __version__
from mqrouter.config.keys import dotted
from mqrouter.config.toml_positions import KeyPath
from mqrouter.core.backoff import Backoff
from mqrouter.core.breaker import Breaker
from mqrouter.core.commands import CommandTopics
from mqrouter.core.decode import Limits
from mqrouter.core.discovery import Gateway, birth_topic
from mqrouter.core.load import Capacity
from mqrouter.core.memory_guard import MemoryLimits, why_not_load
from mqrouter.core.policy import TierFacts
from mqrouter.core.privacy import Privacy
from mqrouter.core.spending import Meter, TierLimits
from mqrouter.core.topics import TopicMap, build_topic_map
from mqrouter.core.warmth import WarmRule, parse_hours
from mqrouter.edge import spans
from mqrouter.edge.chat import ChatOptions, ChatWorker, Launch
from mqrouter.edge.discovery_file import DiscoveryFile
from mqrouter.edge.embedder import EmbeddingModel, LlamaEmbedder
from mqrouter.edge.example_vectors import ExampleVectors, Matrix
from mqrouter.edge.memory import Memory
from mqrouter.edge.mqtt.options import LinkOptions, TlsFiles
from mqrouter.edge.spans import SpanExport, SpanOptions
from mqrouter.edge.upstream import OllamaOptions, OllamaWire, OpenAiWire, UpstreamClient, UpstreamOptions
from mqrouter.edge.web.options import TcpOptions, WebOptions
from mqrouter.errors import ConfigError, ModelFileError, Problem
from mqrouter.flow.attempt import AttemptLimits
from mqrouter.flow.auto_tune import Schedule
from mqrouter.flow.home_assistant import HomeAssistant
from mqrouter.flow.judge import Judge, RoutePlan
from mqrouter.flow.local_answer import LocalRules
from mqrouter.flow.local_model import Keeper, KeepLimits
from mqrouter.flow.ports import SpanSink
from mqrouter.flow.tracing import Tracing
from mqrouter.models.catalogue import Purpose
from mqrouter.models.loading import LoadProfile, embedder_max_tokens, load_embedder
from mqrouter.models.store import ModelFile, quick_check, resolve
from mqrouter.models.survival import MEMORY_FILE, find_profile
from mqrouter.routing import answer_confidence
from mqrouter.routing.answer_confidence import Calibrations
from mqrouter.routing.artefact import Artefact, ArtefactError
from mqrouter.routing.artefact import load as load_artefact
from mqrouter.routing.head import Head
from mqrouter.routing.registry import Strategies, strategy_factory, strategy_names
from mqrouter.routing.strategy import Options, RouteExamples, Rule, Strategy, Weights
from mqrouter.routing.tier_order import TierOrder
from mqrouter.settings import (
    LocalTier,
    OllamaTier,
    Protocol,
    Secret,
    Settings,
    Tier,
    UpstreamTier,
    default_threads,
    why_no_token,
)

log = structlog.get_logger("routing")

NEEDS_HEAD = frozenset({"learned", "cascade"})

VERSIONS = {
    Protocol.AUTO: (paho.MQTTv5, paho.MQTTv311),
    Protocol.V5: (paho.MQTTv5,),
    Protocol.V311: (paho.MQTTv311,),
}


def web_options(settings: Settings) -> WebOptions:
    """Raises ConfigError where a token's reference leads nowhere, or to something too easily guessed."""
    http = settings.http
    if not http.enabled:
        return WebOptions(settings.control_socket)
    viewer, operator = (
        _token(http.viewer_token, "http.viewer_token"),
        _token(http.operator_token, "http.operator_token"),
    )
    return WebOptions(settings.control_socket, TcpOptions(http.host, http.port, viewer, operator, tuple(http.hosts)))


def _token(reference: Secret | None, key: str) -> SecretStr | None:
    token = _secret(reference, key)
    if token is not None and (why := why_no_token(token)) is not None:
        raise ConfigError([Problem(key, why)])
    return token


def span_export(settings: Settings) -> SpanExport | None:
    """Returns what sends spans, not yet begun; None where that is off. Raises ConfigError without the extra."""
    if not settings.traces.enabled:
        return None
    if (why := spans.why_missing()) is not None:
        raise ConfigError([Problem("traces.enabled", why)])
    return SpanExport(SpanOptions(settings.traces.endpoint, settings.gateway.name, __version__))


def tracing(settings: Settings, sink: SpanSink) -> Tracing:
    rules = settings.traces
    return Tracing(sink, time.time_ns, ratio=rules.sample_ratio, tells_device=rules.device)


def request_limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        limits.max_payload_bytes,
        limits.max_json_depth,
        limits.default_ttl_s,
        settings.queue.max_age_s,
        strategy_names(),
    )


def topic_map(settings: Settings) -> TopicMap:
    listeners = tuple((entry.filter, entry.device_level, entry.answer) for entry in settings.listeners)
    strategies = {entry.filter: entry.strategy for entry in settings.listeners}
    house = settings.mqtt.home_assistant
    reserved = (f"{house.prefix}/#",) if house.enabled else ()
    return build_topic_map(settings.prefix, listeners, tuple(settings.mqtt.response_topics), strategies, reserved)


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
        optional_filters=(topic_map(settings).feedback.filter,),
        status_topic=f"{settings.prefix}/status",
        live_filters=_live_filters(settings, is_on=True),
        unwanted_filters=_live_filters(settings, is_on=False),
    )


def _live_filters(settings: Settings, *, is_on: bool) -> tuple[str, ...]:
    """Returns what is listened to beside the questions, or what is not and an earlier life may have."""
    house = settings.mqtt.home_assistant
    orders = CommandTopics(settings.prefix).filters if settings.mqtt.commands is is_on else ()
    return (*orders, *((birth_topic(house.prefix),) if house.enabled is is_on else ()))


def home_assistant(settings: Settings) -> HomeAssistant:
    house = settings.mqtt.home_assistant
    shown = Gateway(settings.gateway.name, __version__, settings.prefix, tuple(settings.tiers), settings.mqtt.commands)
    record = DiscoveryFile(settings.gateway.data_dir / "home_assistant.json")
    return HomeAssistant(record, house.prefix if house.enabled else None, lambda: shown)


def auto_tune(settings: Settings) -> Schedule | None:
    """Returns when to learn from feedback; None where that is off."""
    tune = settings.routing.auto_tune
    return Schedule(tune.every_s, tune.min_feedback) if tune.enabled else None


def breakers(settings: Settings) -> dict[str, Breaker]:
    retry = settings.retry
    probes = Backoff(retry.probe_min_s, retry.probe_max_s)
    return {name: Breaker(retry.breaker_failures, probes) for name in settings.tiers}


def round_backoff(settings: Settings) -> Backoff:
    """The wait once every tier of a request has failed."""
    return Backoff(settings.retry.backoff_min_s, settings.retry.backoff_max_s)


def share_window_ms(settings: Settings) -> int | None:
    share_s = settings.queue.share_answers_s
    return None if share_s is None else int(1000 * share_s)


def meters(settings: Settings) -> dict[str, Meter]:
    """Returns a meter for each tier that has a limit or a price: the use of the others is not counted."""
    found = {name: tier_limits(tier) for name, tier in settings.tiers.items()}
    return {name: Meter(limits) for name, limits in found.items() if limits != TierLimits(max_tokens=limits.max_tokens)}


def tier_limits(tier: Tier) -> TierLimits:
    return TierLimits(
        requests_per_minute=tier.requests_per_minute,
        tokens_per_minute=tier.tokens_per_minute,
        budget_per_day=tier.budget_per_day,
        budget_per_month=tier.budget_per_month,
        prompt_price=tier.prompt_price_per_million or 0.0,
        completion_price=tier.completion_price_per_million or 0.0,
        max_tokens=tier.max_tokens,
    )


def attempt_limits(settings: Settings, tier: Tier) -> AttemptLimits:
    return AttemptLimits(
        total_timeout_s=tier.total_timeout_s,
        is_local=isinstance(tier, LocalTier),
        logs_text=settings.log.include_text,
        max_attempts=settings.retry.max_attempts,
        backoff=round_backoff(settings),
        request=request_limits(settings),
        local=local_rules(tier) if isinstance(tier, LocalTier) else LocalRules(),
    )


def local_rules(tier: LocalTier) -> LocalRules:
    return LocalRules(tuple(tier.refusal_phrases), tier.min_confidence, tier.ttl_share)


def capacities(settings: Settings) -> dict[str, Capacity]:
    """Returns what the tiers take; only the wait for a local one has a limit of its own."""
    return {
        name: Capacity(tier.concurrency, tier.max_wait_s if isinstance(tier, LocalTier) else None)
        for name, tier in settings.tiers.items()
    }


def upstream_client(name: str, tier: UpstreamTier) -> UpstreamClient:
    """Raises ConfigError where the key's reference leads nowhere."""
    options = UpstreamOptions(
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
        ca_file=tier.ca_file,
    )
    if isinstance(tier, OllamaTier):
        own = OllamaOptions(tier.keep_alive_s, tier.context_tokens, tier.think)
        return UpstreamClient(options, OllamaWire(options, own))
    return UpstreamClient(options, OpenAiWire(options))


def warm_rule(tier: Tier) -> WarmRule | None:
    """Returns when the tier's model is kept loaded; None where that is off."""
    if not isinstance(tier, UpstreamTier) or tier.keep_warm_s is None:
        return None
    return WarmRule(tier.keep_warm_s, None if tier.keep_warm_hours is None else parse_hours(tier.keep_warm_hours))


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


async def route_examples(
    settings: Settings, embedder: LlamaEmbedder, vectors: ExampleVectors
) -> dict[str, RouteExamples]:
    """Returns the configured routes, their examples embedded."""

    async def embed(text: str) -> Matrix:
        return (await embedder.embed(text)).vector

    texts = [text for route in settings.routes.values() for text in route.examples]
    matrix = await vectors.embed_all(texts, embed)
    examples: dict[str, RouteExamples] = {}
    start = 0
    for name, route in settings.routes.items():
        end = start + len(route.examples)
        threshold = settings.routing.threshold if route.threshold is None else route.threshold
        rule = Rule(tuple(route.words), tuple(route.patterns))
        examples[name] = RouteExamples(tuple(route.examples), matrix[start:end], threshold, tuple(route.to), rule)
        start = end
    return examples


def head_path(settings: Settings) -> Path:
    """Where `mqrouter train` writes what it learnt, and the strategy learned reads it."""
    return settings.gateway.data_dir / "head.npz"


def load_learnt(settings: Settings, fingerprint: str) -> Artefact | None:
    """Returns what was trained; None where nothing was. Raises ArtefactError for what does not fit."""
    try:
        content = head_path(settings).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtefactError(f"{head_path(settings)} cannot be read: {error}") from error
    return load_artefact(content, embedder=fingerprint, routes=tuple(settings.routes))


def load_head(settings: Settings, fingerprint: str) -> Head | None:
    """Returns the trained head; None where there is none. Raises ArtefactError for one that does not fit."""
    learnt = load_learnt(settings, fingerprint)
    return None if learnt is None else learnt.head


def configured_strategies(settings: Settings) -> dict[KeyPath, str]:
    """Returns the strategies that the configuration names, by their keys."""
    found: dict[KeyPath, str] = {("routing", "strategy"): settings.routing.strategy}
    listeners = enumerate(settings.listeners)
    return found | {("listeners", i, "strategy"): entry.strategy for i, entry in listeners if entry.strategy}


def why_no_head(settings: Settings, strategy: str, fingerprint: str) -> str | None:
    """Returns why a strategy cannot be used for want of a trained head that fits, or None."""
    if strategy not in NEEDS_HEAD:
        return None
    try:
        head = load_head(settings, fingerprint)
    except ArtefactError as error:
        return f"{error} with `mqrouter train`"
    is_missing = head is None and strategy == "learned"
    return f"there is no {head_path(settings)} yet: run `mqrouter train`" if is_missing else None


def why_head_is_unusable(settings: Settings, fingerprint: str) -> str | None:
    """Returns what is wrong with a head that is there, needed or not; None where it fits, or there is none."""
    try:
        load_learnt(settings, fingerprint)
    except ArtefactError as error:
        return f"{head_path(settings)}: {error} with `mqrouter train`"
    return None


def strategy_options(settings: Settings, head: Head | None) -> Options:
    weights = settings.routing.weights
    return Options(
        head=head,
        weights=Weights(weights.tokens, weights.centroid, weights.latency),
        tiers=tuple(settings.tiers),
        first="semantic" if head is None else "learned",
        min_answer_confidence=settings.routing.min_answer_confidence,
    )


def tier_order(settings: Settings, learnt: Artefact | None) -> TierOrder | None:
    """Returns how a route's tiers are put in order by expected gain; None where that is off, or was not learnt."""
    routing = settings.routing
    if routing.min_gain is None or learnt is None or learnt.gain is None:
        return None
    return TierOrder(learnt.gain, routing.min_gain, tuple(settings.tiers), routing.session_switch_margin)


async def build_strategies(settings: Settings, embedder: LlamaEmbedder, vectors: ExampleVectors) -> dict[str, Strategy]:
    """Returns every strategy by name, for comparing them; `learned` only where a head that fits has been trained."""
    examples = await route_examples(settings, embedder, vectors)
    try:
        head = load_head(settings, vectors.fingerprint)
    except ArtefactError:
        head = None
    options = strategy_options(settings, head)
    names = sorted(strategy_names() - (set() if head else {"learned"}))
    return {name: strategy_factory(name)(examples, nearest=0, options=options) for name in names}


async def build_judge(settings: Settings, embedder: LlamaEmbedder, vectors: ExampleVectors) -> Judge:
    """Returns the judge over the configured routes. Raises ConfigError where the strategy lacks what it needs."""
    routing = settings.routing
    named = configured_strategies(settings)
    examples = await route_examples(settings, embedder, vectors)
    learnt = _learnt_or_raise(settings, vectors.fingerprint, named)
    options = strategy_options(settings, None if learnt is None else learnt.head)
    strategies = Strategies(examples, nearest=routing.nearest_examples, options=options)
    for path, name in named.items():
        try:
            strategies.build(name)
        except ValueError as error:
            raise ConfigError([Problem(dotted(path), str(error))]) from error
    return Judge(
        strategy_name=routing.strategy,
        strategy=strategies[routing.strategy],
        others=strategies,
        min_margin=routing.min_margin,
        routes={
            name: RoutePlan(tuple(route.to), route.when_offline, route.prompt)
            for name, route in settings.routes.items()
        },
        abstain=RoutePlan(tuple(routing.abstain.to), routing.abstain.when_offline, routing.abstain.prompt),
        tiers=tier_facts(settings.tiers),
        prompts=settings.prompts,
        tier_order=tier_order(settings, learnt),
        switch_margin=routing.session_switch_margin,
        session_max_age_s=routing.session_max_age_s,
        session_max_turns=routing.session_max_turns,
        session_max_chars=routing.session_max_chars,
        privacy=privacy(settings),
        calibrations=load_calibrations(settings),
    )


def privacy(settings: Settings) -> Privacy:
    rules = settings.privacy
    return Privacy(tuple(rules.topics), tuple(rules.devices), frozenset(rules.detect), rules.region)


def _learnt_or_raise(settings: Settings, fingerprint: str, named: Mapping[KeyPath, str]) -> Artefact | None:
    """Returns what was trained and fits. Raises ConfigError where what does not fit is needed by name."""
    try:
        return load_learnt(settings, fingerprint)
    except ArtefactError as error:
        path = next((path for path, name in named.items() if name in NEEDS_HEAD), None)
        if path is not None:
            raise ConfigError([Problem(dotted(path), str(error))]) from error
        log.warning("routing.head_unusable", error=str(error))
        return None


def calibrations_path(settings: Settings) -> Path:
    """Where `mqrouter tune --answers --write` puts what verdicts on local answers taught."""
    return settings.gateway.data_dir / "answers.json"


def read_calibrations(settings: Settings) -> Calibrations:
    """Returns the calibrations of local answers by model; none where nothing was calibrated. Raises ArtefactError."""
    path = calibrations_path(settings)
    try:
        return answer_confidence.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error


def load_calibrations(settings: Settings) -> Calibrations:
    """Returns what `read_calibrations` does; what cannot be read, or fits no local tier's model, is logged."""
    try:
        found = read_calibrations(settings)
    except ArtefactError as error:
        log.warning("routing.answer_calibration_unusable", error=str(error))
        return {}
    for name, tier in settings.tiers.items():
        if found and isinstance(tier, LocalTier):
            with suppress(ModelFileError):  # the tier itself says what is wrong with it
                if (model := chat_fingerprint(settings, tier)) not in found:
                    log.warning("routing.answers_not_calibrated", tier=name, model=model, calibrated=sorted(found))
    return found


def tier_facts(tiers: Mapping[str, Tier]) -> dict[str, TierFacts]:
    return {
        name: TierFacts(
            name,
            is_local=isinstance(tier, LocalTier),
            is_trusted=tier.trusted,
            context_chars=tier.context_chars,
            redacts=not isinstance(tier, LocalTier) and tier.redact,
        )
        for name, tier in tiers.items()
    }


def trusted_by_both(running: Mapping[str, Tier], wanted: Mapping[str, Tier]) -> dict[str, Tier]:
    """Returns the running tiers, of which one is only trusted, or sent what is redacted, where both say so."""
    found: dict[str, Tier] = {}
    for name, tier in running.items():
        other = wanted.get(name)
        if isinstance(tier, LocalTier):
            found[name] = tier
        else:
            is_trusted = tier.trusted and other is not None and other.trusted
            is_redacting = tier.redact and other is not None and not isinstance(other, LocalTier) and other.redact
            found[name] = tier.model_copy(update={"trusted": is_trusted, "redact": is_redacting})
    return found


def example_vectors(settings: Settings, fingerprint: str, *, is_read_only: bool = False) -> ExampleVectors:
    return ExampleVectors(settings.gateway.data_dir / "examples.npz", fingerprint, is_read_only=is_read_only)


def _secret(reference: Secret | None, key: str) -> SecretStr | None:
    if reference is None:
        return None
    try:
        return reference.resolve()
    except LookupError as error:
        raise ConfigError([Problem(key, str(error))]) from error
