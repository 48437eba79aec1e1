"""Every knob: its unit, its range, its default. A default lives here and nowhere else.

Values only; how they are read from TOML and the environment is in `config`.
"""

from __future__ import annotations

import os
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from mqrouter.core.admission import QueueLimits, WhenFull
from mqrouter.core.components import COMPONENTS
from mqrouter.core.disk_space import Thresholds
from mqrouter.core.personal_data import Kind

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


URL = r"^https?://[^\s]+$"
HOURS = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"
Hours = Annotated[str, Field(pattern=HOURS)]
REFUSALS = [
    "as an ai",
    "i'm an ai",
    "i am an ai",
    "as a language model",
    "i'm sorry, but i can't",
    "i'm sorry, but i cannot",
    "i'm sorry, but i'm unable",
    "i'm sorry, but i'm not able",
    "i can't assist with",
    "i cannot assist with",
    "i can't help with",
    "i cannot help with",
    "i can't provide",
    "i cannot provide",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i don't have access to",
    "i do not have access to",
]


class Section(BaseModel):
    # Built when first used, and most sections only as parts of the whole: every command reads the configuration.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Secret(Section):
    """A secret by reference: exactly one of a variable, a file, or a systemd credential."""

    env: str | None = Field(None, description="name of an environment variable")
    file: Path | None = Field(None, description="path of a file holding the secret and nothing else")
    credential: str | None = Field(None, description="name of a systemd credential (LoadCredential=)")

    @model_validator(mode="after")
    def _is_one_reference(self) -> Secret:
        if sum(value is not None for value in (self.env, self.file, self.credential)) != 1:
            raise ValueError('give exactly one of env, file, credential, as { env = "NAME" }')
        return self

    def resolve(self) -> SecretStr:
        """Returns the secret. Raises LookupError naming the reference that leads nowhere."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if value is None:
                raise LookupError(f"the environment variable {self.env} is not set")
            return SecretStr(value)
        path = self.file or Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials")) / str(self.credential)
        try:
            return SecretStr(path.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise LookupError(f"the secret file {path} cannot be read: {error}") from error


MIN_TOKEN_CHARS = 16


def why_no_token(token: SecretStr) -> str | None:
    """Returns why this is too easily guessed for a token of [http]; None where it is fit."""
    if len(token.get_secret_value()) >= MIN_TOKEN_CHARS:
        return None
    return f"a token has at least {MIN_TOKEN_CHARS} characters: make one by chance"


class Gateway(Section):
    name: Name = Field("farm", description="name of this gateway; part of every topic")
    data_dir: Path = Field(Path("data"), description="folder of the database; relative to the configuration file")
    models_dir: Path = Field(
        Path("~/.local/share/mqrouter/models"), description="folder of the model files (mqrouter models pull)"
    )

    @property
    def database(self) -> Path:
        return self.data_dir / "mqrouter.db"

    @property
    def control_socket(self) -> Path:
        return self.data_dir / "control.sock"


class Tls(Section):
    enabled: bool = Field(False, description="connect with TLS")
    ca_file: Path | None = Field(None, description="certificate authority; without it the system's are used")
    cert_file: Path | None = Field(None, description="client certificate, with key_file")
    key_file: Path | None = Field(None, description="private key of the client certificate")

    @model_validator(mode="after")
    def _has_both_halves(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or neither")
        return self


class Protocol(StrEnum):
    AUTO = "auto"
    V5 = "5"
    V311 = "3.1.1"


class HomeAssistant(Section):
    enabled: bool = Field(False, description="announce this gateway to Home Assistant as a device")
    prefix: str = Field("homeassistant", min_length=1, description="its discovery prefix")


class Mqtt(Section):
    host: str = Field("127.0.0.1", min_length=1, description="broker's host name or address")
    port: int = Field(1883, ge=1, le=65535, description="broker's port (8883 is usual for TLS)")
    protocol: Protocol = Field(Protocol.AUTO, description="5, 3.1.1, or auto: try 5, fall back to 3.1.1")
    client_id: str = Field("mqrouter-{gateway}", min_length=1, description="must be unique at the broker")
    username: str | None = Field(None, description="user name at the broker")
    password: Secret | None = Field(None, description="password at the broker, by reference")
    prefix: str = Field("mqrouter/{gateway}", min_length=1, description="first levels of all topics")
    keepalive_s: int = Field(30, ge=5, le=3600, description="a dead connection is noticed within twice this")
    connect_timeout_s: Seconds = Field(10.0, description="limit for TCP, TLS and CONNACK together")
    session_expiry_s: int = Field(604800, ge=0, description="how long the broker keeps the session (MQTT 5)")
    receive_maximum: int = Field(100, ge=1, le=65535, description="unacknowledged requests: the group-commit size")
    max_inflight_answers: int = Field(100, ge=1, le=65535, description="answers published and not yet acknowledged")
    reconnect_min_s: Seconds = Field(0.5, description="first reconnect delay; doubles, with full jitter")
    reconnect_max_s: Seconds = Field(60.0, description="largest reconnect delay")
    response_topics: list[str] = Field(
        ["#"], description="topic filters a Response Topic must match; wildcards, $ and request topics never pass"
    )
    progress_interval_s: Seconds = Field(0.25, description="between two messages of progress, for who asked for them")
    stats_interval_s: Seconds = Field(30.0, description="longest time between two retained stats")
    events: list[Literal["decision", "finished", "tier"]] = Field(
        default_factory=list, description="what is published as it happens, below PREFIX/event"
    )
    commands: bool = Field(False, description="take orders below PREFIX/cmd: pause and resume")
    home_assistant: HomeAssistant = Field(default_factory=HomeAssistant, description="device discovery")
    tls: Tls = Field(default_factory=Tls, description="transport security")

    @model_validator(mode="after")
    def _has_ordered_delays(self) -> Mqtt:
        if self.reconnect_min_s > self.reconnect_max_s:
            raise ValueError("reconnect_min_s must not exceed reconnect_max_s")
        return self


class Listener(Section):
    """Maps an existing topic tree onto requests."""

    filter: str = Field(min_length=1, description="topic filter to subscribe to")
    device_level: int = Field(ge=0, description="which level of the topic names the device, counted from 0")
    answer: str = Field(min_length=1, description="answer topic; {device} and {prefix} are replaced")
    strategy: Name | None = Field(None, description="strategy of the questions here; without it routing.strategy")


class Limits(Section):
    max_payload_bytes: Count = Field(65536, description="larger requests get too_large")
    max_json_depth: Count = Field(32, description="deeper JSON gets bad_request")
    device_rate_per_minute: Count = Field(600, description="per device, bursts up to the same number: rate_limited")
    default_ttl_s: Seconds = Field(86_400.0, description="time to live of a request that names none")
    dedupe_window_s: Seconds = Field(3_600.0, description="how long a finished request's id stands for it")
    retain_refused_s: Seconds = Field(3_600.0, description="how long refused requests stay in the database")
    retain_finished_s: Seconds = Field(604_800.0, description="how long finished requests stay in the database")
    retain_bytes: Count = Field(536_870_912, description="beyond this size the requests that finished first go")


class Disk(Section):
    """Free bytes below which the gateway protects itself; on a small file system, a share of it."""

    soft_free_bytes: int = Field(268_435_456, ge=0, description="with less free: overloaded; at most a fifth of it")
    hard_free_bytes: int = Field(
        67_108_864, ge=0, description="with less free nothing is acknowledged; at most a twentieth of it"
    )
    ballast_bytes: int = Field(8_388_608, ge=0, description="kept to be released on a full disk; at most a tenth")

    @model_validator(mode="after")
    def _has_ordered_thresholds(self) -> Disk:
        if self.hard_free_bytes > self.soft_free_bytes:
            raise ValueError("hard_free_bytes must not exceed soft_free_bytes")
        return self

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.soft_free_bytes, self.hard_free_bytes, self.ballast_bytes)


class Queue(Section):
    """Bounds of what is accepted and not yet answered, and what happens at them."""

    max_requests: Count = Field(100_000, description="requests accepted and not yet answered")
    max_bytes: Count = Field(268_435_456, description="bytes of their payloads together")
    max_age_s: Seconds = Field(604_800.0, description="longer times to live are cut to this; then: expired")
    when_full: WhenFull = Field(
        WhenFull.REJECT,
        description="who gets queue_full: reject the new one, drop_oldest, or drop_lowest priority, last in line",
    )
    max_share_per_device: float = Field(
        0.5, gt=0, le=1, allow_inf_nan=False, description="share of both bounds that one device may take"
    )
    share_answers_s: Seconds | None = Field(
        None, description="one answer for all that wait, ask the same, and came in within this; without it never"
    )
    undo_s: Seconds = Field(86_400.0, description="how long a dropped request can be brought back; then: cancelled")

    @property
    def limits(self) -> QueueLimits:
        return QueueLimits(self.max_requests, self.max_bytes, self.when_full, self.max_share_per_device)


class Embedder(Section):
    model: Name = Field("all-minilm-l6-v2", description="name in `mqrouter models list`, or a file in models_dir")
    threads: Count | None = Field(None, description="threads of one call; without it half of the cores")
    query_prefix: str | None = Field(None, description="put before a question; without it the model's own")


class WhenOffline(StrEnum):
    QUEUE = "queue"
    ANSWER_LOCALLY = "answer_locally"
    ANSWER_THEN_REFINE = "answer_then_refine"
    REJECT = "reject"


class Abstain(Section):
    """What happens to a question that no route claims."""

    to: list[Name] = Field(["hub", "edge"], description="tiers in order; an empty list answers no_route")
    when_offline: WhenOffline = Field(WhenOffline.ANSWER_LOCALLY, description="see [routes.*]")
    prompt: Name | None = Field("chat", description="system prompt, by its name in [prompts]")
    examples: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="questions that belong to no route; mqrouter train learns from them"
    )


class HybridWeights(Section):
    """Of S = tokens · C_tokens + centroid · Sim_centroid + latency · H_latency, the strategy hybrid's score."""

    tokens: Weight = Field(0.2, description="weight of how well the length fits the tier's strength")
    centroid: Weight = Field(0.7, description="weight of the similarity with the route's centroid")
    latency: Weight = Field(0.1, description="weight of how quick the tier is just now")


class AutoTune(Section):
    """Learning anew from feedback on a schedule; the head is only replaced where held-out quality does not fall."""

    enabled: bool = Field(False, description="run mqrouter train --from-feedback by itself")
    every_s: Seconds = Field(604_800.0, description="time between two runs")
    min_feedback: Count = Field(50, description="least verdicts, good or with the right route, for a run")


class Routing(Section):
    strategy: Name = Field("semantic", description="strategy by name; see `mqrouter route explain`")
    threshold: Share = Field(0.30, description="least similarity of a route that sets no threshold of its own")
    min_margin: Share = Field(0.01, description="least lead of the best route over the second")
    nearest_examples: int = Field(3, ge=0, description="examples named in the explanation of a decision")
    min_gain: Share | None = Field(
        None, description="expected gain of the stronger tier below which the weak one goes first; without it never"
    )
    min_answer_confidence: Probability = Field(
        0.5, description="least confidence of a local answer that the strategy cascade keeps"
    )
    session_switch_margin: Probability = Field(
        0.1, description="lead that another route, or tier, needs within a session"
    )
    session_max_age_s: Seconds = Field(1_800.0, description="a session ends so long after its latest routed question")
    session_max_turns: int = Field(6, ge=0, description="earlier questions, with answers, that a tier is sent as well")
    session_max_chars: int = Field(4_000, ge=0, description="characters of those together; the oldest go first")
    weights: HybridWeights = Field(default_factory=HybridWeights, description="of the strategy hybrid")
    abstain: Abstain = Field(default_factory=Abstain, description="questions no route claims")
    auto_tune: AutoTune = Field(default_factory=AutoTune, description="learning from feedback by itself")


class Privacy(Section):
    """What stays on this device and on trusted tiers, beyond what its sender marks with `private`."""

    topics: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="topic filters; whatever is asked there is private"
    )
    devices: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="names, or patterns with *; whatever such a device asks is private"
    )
    detect: list[Kind] = Field(
        [Kind.EMAIL, Kind.PHONE, Kind.SECRET, Kind.IBAN, Kind.CARD, Kind.ID, Kind.LOCATION],
        description="kinds of data that make a question private",
    )
    region: str | None = Field(
        None, pattern=r"^[A-Z]{2}$", description="country of phone numbers that are written without its code"
    )


class Route(Section):
    description: str = Field("", description="one line for people")
    examples: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, description="questions that belong to this route"
    )
    threshold: Share | None = Field(None, description="least similarity; without it routing.threshold")
    words: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="words, or beginnings written with a final *, for the strategy heuristic"
    )
    patterns: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, description="texts for the strategy heuristic: * is anything without a space, # a number"
    )
    to: list[Name] = Field(min_length=1, description="tiers in order of preference")
    when_offline: WhenOffline = Field(
        WhenOffline.QUEUE, description="no tier reachable: queue, answer_locally, answer_then_refine, or reject"
    )
    prompt: Name | None = Field(None, description="system prompt, by its name in [prompts]")


class TierBase(Section):
    model: str = Field(min_length=1, description="model name as the tier knows it")
    concurrency: Count = Field(4, description="requests at this tier at once")
    max_tokens: Count = Field(512, description="longest answer")
    temperature: float = Field(0.2, ge=0, le=2, description="0 is deterministic")
    context_chars: Count = Field(16_000, description="context window in characters; a question takes 30 % more")
    total_timeout_s: Seconds = Field(120.0, description="limit for one whole attempt")
    trusted: bool = Field(False, description="may see private requests")
    requests_per_minute: Count | None = Field(None, description="within any 60 s; at the limit the next tier is asked")
    tokens_per_minute: Count | None = Field(None, description="read and written, within any 60 s; likewise")
    budget_per_day: Weight | None = Field(None, description="money per day (UTC), by the prices; then struck out")
    budget_per_month: Weight | None = Field(None, description="money per month (UTC), likewise")
    prompt_price_per_million: Weight | None = Field(None, description="of tokens read, in any currency")
    completion_price_per_million: Weight | None = Field(None, description="of tokens written, likewise")

    @model_validator(mode="after")
    def _has_prices_for_its_budget(self) -> Self:
        has_budget = self.budget_per_day is not None or self.budget_per_month is not None
        if has_budget and (self.prompt_price_per_million is None or self.completion_price_per_million is None):
            raise ValueError("a budget needs prompt_price_per_million and completion_price_per_million: set both")
        return self


class LocalTier(TierBase):
    """The chat model on this device, in a process of its own."""

    kind: Literal["local"] = Field(description="local, openai, or ollama")
    model: Name = Field("smollm2-135m-instruct", description="name in `mqrouter models list`, or a file in models_dir")
    concurrency: Literal[1] = Field(1, description="the worker answers one question at a time")
    max_tokens: Count = Field(192, description="longest answer")
    context_chars: Count = Field(6_000, description="context window in characters; a question takes 30 % more")
    trusted: Literal[True] = Field(True, description="this device sees private requests anyway")
    context_tokens: Count = Field(2048, description="context window the model is loaded with")
    threads: Count | None = Field(None, description="without it half of the cores")
    start: Literal["on_first_use", "at_start"] = Field("on_first_use", description="when the worker is started")
    first_token_timeout_s: Seconds = Field(30.0, description="limit to the first token, model load included")
    max_wait_s: Seconds = Field(30.0, description="with a longer queue another tier that is up takes the question")
    ttl_share: float = Field(
        0.5, gt=0, le=1, allow_inf_nan=False, description="of the time to live left, used here while others are up"
    )
    idle_unload_s: Seconds | Literal["never"] = Field(1_800.0, description="memory is given back so long after use")
    min_free_mb: Weight = Field(150.0, description="with less memory available the model is unloaded, or not loaded")
    max_pressure: float = Field(
        20.0, ge=0, le=100, allow_inf_nan=False, description="the same above this percentage of full memory stalls"
    )
    max_worker_mb: Seconds | None = Field(
        None, description="above it the worker is restarted; without it twice the model's file and 512 MB"
    )
    min_confidence: Probability | None = Field(
        None, description="least confidence of an answer, whatever the strategy; without it only cascade asks"
    )
    refusal_phrases: list[Annotated[str, Field(min_length=1)]] = Field(
        REFUSALS, description="an answer that begins with one of these is a refusal"
    )


class UpstreamTier(TierBase):
    """A model server somewhere else: its address, its limits, and how it is kept warm."""

    url: str = Field(pattern=URL, description="base address of the server")
    api_key: Secret | None = Field(None, description="bearer token, by reference")
    redact: bool = Field(
        False, description="may see questions that are private for data found in them, once that is replaced"
    )
    ca_file: Path | None = Field(None, description="certificate authority; without it the system's are used")
    connect_timeout_s: Seconds = Field(5.0, description="limit for name look-up, TCP and TLS")
    first_token_timeout_s: Seconds = Field(60.0, description="limit to the first token; a cold load takes long")
    idle_timeout_s: Seconds = Field(20.0, description="limit between two tokens")
    keep_warm_s: Seconds | None = Field(None, description="an unused model is kept loaded by a call this often")
    keep_warm_hours: Hours | None = Field(None, description="the hours of the day for that, without it all of them")

    @model_validator(mode="after")
    def _has_warmth_for_its_hours(self) -> Self:
        if self.keep_warm_hours is not None and self.keep_warm_s is None:
            raise ValueError("keep_warm_hours needs keep_warm_s")
        return self


class OpenAiTier(UpstreamTier):
    """Any OpenAI-compatible server: LM Studio, vLLM, llama-server, LiteLLM, hosted APIs."""

    kind: Literal["openai"] = Field(description="local, openai, or ollama")
    url: str = Field(pattern=URL, description="base address, with /v1 where the server has it")


class OllamaTier(UpstreamTier):
    """Ollama by its own API, which knows how long a model stays in memory."""

    kind: Literal["ollama"] = Field(description="local, openai, or ollama")
    url: str = Field(pattern=URL, description="base address, without /api")
    keep_alive_s: float | None = Field(
        None,
        ge=-1,
        allow_inf_nan=False,
        description="how long the model stays loaded after a question; -1 for ever; without it the server's choice",
    )
    context_tokens: Count | None = Field(None, description="context window to load with; without it the server's")
    think: bool | None = Field(None, description="of thinking models; without it the model's own way")

    @model_validator(mode="after")
    def _is_fit_for_ollama(self) -> Self:
        if self.url.rstrip("/").endswith(("/api", "/v1")):
            raise ValueError('url is the address before /api; for /v1 there is kind = "openai"')
        is_short = self.keep_alive_s is not None and self.keep_alive_s >= 0
        if self.keep_warm_s is not None and is_short and self.keep_warm_s >= (self.keep_alive_s or 0):
            raise ValueError("keep_warm_s must be below keep_alive_s: the model would be gone in between")
        return self


Tier = Annotated[LocalTier | OpenAiTier | OllamaTier, Field(discriminator="kind")]


class Retry(Section):
    """The persisted schedule between attempts, and the breaker in front of a tier."""

    max_attempts: Count = Field(8, description="counted attempts per request, over all tiers; then upstream_failed")
    backoff_min_s: Seconds = Field(2.0, description="first wait once every tier has failed; doubles, with full jitter")
    backoff_max_s: Seconds = Field(300.0, description="largest wait")
    breaker_failures: Count = Field(
        5, description="failures in a row that open a tier's breaker; unreachable opens at once"
    )
    probe_min_s: Seconds = Field(1.0, description="first pause before an open breaker is probed; doubles, with jitter")
    probe_max_s: Seconds = Field(60.0, description="largest pause between two probes")

    @model_validator(mode="after")
    def _has_ordered_pauses(self) -> Retry:
        if self.backoff_min_s > self.backoff_max_s:
            raise ValueError("backoff_min_s must not exceed backoff_max_s")
        if self.probe_min_s > self.probe_max_s:
            raise ValueError("probe_min_s must not exceed probe_max_s")
        return self


Level = Literal["debug", "info", "warning", "error"]


class LogSettings(Section):
    level: Level = Field("info", description="least level written")
    levels: dict[str, Level] = Field(default_factory=dict, description="of single components, by an event's first word")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")
    include_text: bool = Field(False, description="write questions and answers to the log")
    file: Path | None = Field(None, description="written instead of stderr; relative to the configuration file")
    max_bytes: Count = Field(10_485_760, description="a longer file is set aside, as is one of an earlier day")
    keep_days: Count = Field(14, description="files set aside are deleted after this")
    keep_files: Count = Field(10, description="files set aside that are kept at most")

    @model_validator(mode="after")
    def _has_levels_of_what_there_is(self) -> LogSettings:
        if unknown := self.levels.keys() - COMPONENTS:
            names = ", ".join(sorted(COMPONENTS))
            raise ValueError(f"nothing logs under {', '.join(sorted(unknown))}; log.levels may name {names}")
        return self


class TraceSettings(Section):
    """Spans of each question's life, for an OpenTelemetry collector; needs the extra `otel`."""

    enabled: bool = Field(False, description="send spans to a collector")
    endpoint: str = Field("http://127.0.0.1:4318/v1/traces", pattern=URL, description="its address for OTLP over HTTP")
    sample_ratio: Probability = Field(
        1.0, description="share of the questions whose senders have no trace of their own"
    )
    device: bool = Field(False, description="name the device in spans, but for private questions")


class Http(Section):
    """The API over TCP; on this machine it is always there, on the socket in data_dir."""

    enabled: bool = Field(True, description="listen on TCP as well")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen at; beyond loopback a token is needed")
    port: int = Field(8087, ge=0, le=65535, description="port to listen at; 0 takes any that is free")
    hosts: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="further names this gateway is called by; others are refused"
    )
    viewer_token: Secret | None = Field(None, description="whoever has it may look; by reference")
    operator_token: Secret | None = Field(None, description="whoever has it may also change things; by reference")

    @model_validator(mode="after")
    def _is_not_open_to_everybody(self) -> Http:
        has_token = self.viewer_token is not None or self.operator_token is not None
        if self.enabled and not has_token and not is_loopback(self.host):
            raise ValueError(
                f"anybody could look at the queue at {self.host}: set viewer_token or operator_token, or leave host"
                " at 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Service(Section):
    drain_timeout_s: Seconds = Field(8.0, description="limit for an ordered stop")


def _default_tiers() -> dict[str, Tier]:
    return {
        "edge": LocalTier(kind="local"),
        "hub": OpenAiTier(kind="openai", url="http://127.0.0.1:8080/v1", model="default"),
    }


class Settings(Section):
    """The whole configuration: frozen, validated, without secrets in it."""

    include: list[str] = Field(
        ["routes/*.toml", "out_of_scope.toml", "prompts.toml"], description="further files, relative to this one"
    )
    gateway: Gateway = Field(default_factory=Gateway)
    mqtt: Mqtt = Field(default_factory=Mqtt)
    listeners: list[Listener] = Field(default_factory=list)
    limits: Limits = Field(default_factory=Limits)
    queue: Queue = Field(default_factory=Queue)
    disk: Disk = Field(default_factory=Disk)
    embedder: Embedder = Field(default_factory=Embedder)
    routing: Routing = Field(default_factory=Routing)
    tiers: dict[Name, Tier] = Field(default_factory=_default_tiers)
    privacy: Privacy = Field(default_factory=Privacy)
    retry: Retry = Field(default_factory=Retry)
    log: LogSettings = Field(default_factory=LogSettings)
    traces: TraceSettings = Field(default_factory=TraceSettings)
    http: Http = Field(default_factory=Http)
    service: Service = Field(default_factory=Service)
    prompts: dict[Name, str] = Field(default_factory=dict)
    routes: dict[Name, Route] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _takes_the_largest_question(self) -> Settings:
        room = int(self.queue.max_bytes * self.queue.max_share_per_device)
        if self.limits.max_payload_bytes > room:
            raise ValueError(
                f"limits.max_payload_bytes must not exceed what one device may hold: queue.max_bytes"
                f" times queue.max_share_per_device, {room} bytes"
            )
        return self

    @property
    def database(self) -> Path:
        return self.gateway.database

    @property
    def control_socket(self) -> Path:
        return self.gateway.control_socket

    @property
    def prefix(self) -> str:
        return self.mqtt.prefix.replace("{gateway}", self.gateway.name)

    @property
    def client_id(self) -> str:
        return self.mqtt.client_id.replace("{gateway}", self.gateway.name)


def default_threads() -> int:
    """Half of the cores: the other half carries the router and its neighbours."""
    return max(1, (os.cpu_count() or 1) // 2)
