"""Prometheus' text format, read back by the client library's own parser."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Samples:
    rows: list[tuple[str, dict[str, str], float]]
    kinds: dict[str, str]
    """By family."""

    def value(self, name: str, **labels: str) -> float:
        """Returns the sample's value; 0 for one that is not there, as Prometheus' `increase` takes it."""
        return next((value for found, has, value in self.rows if found == name and has == labels), 0.0)

    @property
    def names(self) -> set[str]:
        return {name for name, _, _ in self.rows}


def samples_of(text: str) -> Samples:
    """Raises ValueError for what Prometheus would not read."""
    families = list(text_string_to_metric_families(text))
    rows = [(sample.name, dict(sample.labels), sample.value) for family in families for sample in family.samples]
    return Samples(rows, {family.name: family.type for family in families})
