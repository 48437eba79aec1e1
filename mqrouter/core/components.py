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
        "disk",
        "embedder",
        "feedback",
        "forward",
        "intake",
        "keep_warm",
        "mqtt",
        "queue",
        "request",
        "routing",
        "store",
        "tier",
        "upkeep",
        "upstream",
    }
)
