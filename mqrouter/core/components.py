"""The parts of the daemon that log: the first word of every event, as `forward` in `forward.attempt_failed`."""

COMPONENTS = frozenset(
    {
        "auto_tune",
        "bulletin",
        "chat",
        "command",
        "daemon",
        "decide",
        "deliver",
        "desk",
        "disk",
        "embedder",
        "feedback",
        "forward",
        "http",
        "intake",
        "keep_warm",
        "metrics",
        "mqtt",
        "queue",
        "request",
        "routing",
        "store",
        "tier",
        "traces",
        "trends",
        "upkeep",
        "upstream",
    }
)
