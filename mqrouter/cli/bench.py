"""`mqrouter bench`: what strategies, thresholds and a cache do to latency, quality, tokens, cost and energy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqrouter.cli.common import CommandT, Exit, FiniteRange, config_option, echo_json
from mqrouter.cli.labelled import FileError, progress_bar, settings_or_starter
from mqrouter.cli.tables import format_table

if TYPE_CHECKING:
    from mqrouter.bench.questions import Asked
    from mqrouter.bench.rows import Total
    from mqrouter.bench.runner import Bench
    from mqrouter.settings import Settings

MANY = ("--strategies", "--thresholds", "--cache-modes")
SHOWN_FAILURES = 5
_NUMBER = re.compile(r"-[0-9.]+")


class ManyWords(click.Command):
    """The options of MANY take several words: `--cache-modes off on`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _spread(args))


def _spread(args: Sequence[str]) -> list[str]:
    """Returns the words with the option before each of its values, as click takes them."""
    spread: list[str] = []
    option, is_first = "", False
    for word in args:
        if word.startswith("-") and not _NUMBER.fullmatch(word):
            option, is_first = word if word in MANY else "", True
            spread.append(word)
        else:
            spread += [option, word] if option and not is_first else [word]
            is_first = False
    return spread


def _show_columns(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked:
        return
    from mqrouter.bench.rows import QUERY_COLUMNS, TOTAL_COLUMNS

    for option, columns in (("--per-query-csv", QUERY_COLUMNS), ("--csv", TOTAL_COLUMNS)):
        click.echo(f"{option}:\n{format_table(['COLUMN', 'MEANING'], list(columns.items()), max_width=None)}\n")
    context.exit()


def _known(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names unchanged. Raises BadParameter for one that no strategy has."""
    from mqrouter.routing.registry import strategy_names

    if unknown := set(names) - strategy_names():
        there_are = ", ".join(sorted(strategy_names()))
        raise click.BadParameter(f"no strategy is called {', '.join(sorted(unknown))}: there are {there_are}")
    return names


def _out(kind: str, help_text: str) -> Callable[[CommandT], CommandT]:
    return click.option(f"--{kind}", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT", help=help_text)


@click.command("bench", cls=ManyWords)
@config_option
@click.option(
    "--questions",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help='Lines of {"question": …, "route": … or null}, or plain lines of text.',
)
@click.option(
    "--strategies",
    multiple=True,
    callback=_known,
    metavar="NAME…",
    help="One or more; without it the configured one.",
)
@click.option(
    "--thresholds",
    multiple=True,
    type=FiniteRange(-1, 1),
    metavar="NUMBER…",
    help="One or more, each for all routes; without it the configured ones.",
)
@click.option(
    "--cache-modes",
    multiple=True,
    type=click.Choice(["off", "on"]),
    default=("off",),
    metavar="off|on…",
    help="One or both; without it off.",
)
@click.option("--answer", "is_answered", is_flag=True, help="Ask the configured tiers too, not only decide.")
@_out("csv", "A row per configuration.")
@_out("per-query-csv", "A row per query.")
@click.option("--plot", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="PNG charts, in DIR.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="Rounds over the questions.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of the questions, and of jitter.")
@click.option("--json", "is_json", is_flag=True, help="JSON on standard output.")
@click.option(
    "--columns", is_flag=True, is_eager=True, expose_value=False, callback=_show_columns, help="Explain the CSV files."
)
def command(
    config: Path | None,
    file: Path,
    strategies: tuple[str, ...],
    thresholds: tuple[float, ...],
    cache_modes: tuple[str, ...],
    is_answered: bool,
    csv: Path | None,
    per_query_csv: Path | None,
    plot: Path | None,
    repeat: int,
    seed: int,
    is_json: bool,
) -> None:
    """Run every question of FILE under every combination of strategy, threshold and cache mode, and measure.

    Decisions are those of the daemon: its judge, its embedder, one question after the other. With --answer the
    tiers are asked as the daemon would, the next one after a failure; nobody waits for one that is down, and the
    daemon and its database are left alone. That may cost money where a tier does: see its prices in the settings.

    The daemon has NO answer cache yet. `--cache-modes on` puts one in front of it, in this command's memory, for
    questions that are the same to the letter, from the same device; so it shows what a cache would save. It is
    empty at the start of every configuration: without repeated questions, or --repeat, it saves nothing.

    \b
    Examples:
      mqrouter bench --questions farm.jsonl --strategies semantic knn --thresholds 0.2 0.3 --csv totals.csv
      mqrouter bench --questions farm.jsonl --cache-modes off on --repeat 3 --answer --per-query-csv q.csv --plot .
    """
    from mqrouter.bench.rows import Variant
    from mqrouter.bench.runner import Bench

    _check_outputs(csv, per_query_csv, plot)
    settings = settings_or_starter(config)
    strategies = _once(strategies) or (settings.routing.strategy,)
    grid = product(strategies, _once(thresholds) or (None,), _once(cache_modes))
    variants = tuple(Variant(*combination) for combination in grid)
    bench = Bench(settings, variants, _read(file, settings), is_answered, repeat, seed)
    _measure(bench, csv, per_query_csv)
    if plot is not None:
        _plot(plot, bench)
    _report(bench, is_json)


def _check_outputs(csv: Path | None, per_query_csv: Path | None, plot: Path | None) -> None:
    """Ends the process where what will be measured could not be kept: before measuring."""
    if csv is not None and per_query_csv is not None and csv.absolute() == per_query_csv.absolute():
        raise click.UsageError("--csv and --per-query-csv are two files")
    if plot is not None:
        from mqrouter.bench.plot import PlotError, require_matplotlib

        try:
            require_matplotlib()
        except PlotError as error:
            _end(error, Exit.FAILED)


def _read(file: Path, settings: Settings) -> list[Asked]:
    from mqrouter.bench.questions import QuestionsError, read_questions, unknown_labels

    try:
        asked = read_questions(file)
    except QuestionsError as error:
        raise FileError(str(error)) from error
    if unknown := unknown_labels(asked, settings.routes):
        raise FileError(f"{file}: no configured route is called {', '.join(unknown)}")
    return asked


def _measure(bench: Bench, csv: Path | None, per_query_csv: Path | None) -> None:
    import structlog

    from mqrouter.bench.rows import QUERY_COLUMNS, TOTAL_COLUMNS, csv_writer
    from mqrouter.bench.runner import run
    from mqrouter.errors import MqrouterError

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # nothing but the answer is printed
    try:
        with csv_writer(csv, TOTAL_COLUMNS) as write_total, csv_writer(per_query_csv, QUERY_COLUMNS) as write_query:
            asyncio.run(run(bench, write_total, write_query, progress_bar))
    except MqrouterError as error:
        _end(error, Exit.CONFIG)
    except OSError as error:
        _end(error, Exit.FAILED)


def _plot(folder: Path, bench: Bench) -> None:
    from mqrouter.bench.plot import plot

    try:
        for path in plot(folder, bench.rows, bench.totals):
            click.echo(f"chart: {path}", err=True)
    except OSError as error:
        _end(error, Exit.FAILED)


def _report(bench: Bench, is_json: bool) -> None:
    if bench.meter is None:
        click.echo("energy: no meter that can be read here (RAPL, INA3221); its columns are empty", err=True)
    for failure, count in sorted(bench.failures.items(), key=lambda item: -item[1])[:SHOWN_FAILURES]:
        click.echo(f"failed {count} times: {failure}", err=True)
    if is_json:
        about = {"questions": len(bench.asked), "repeat": bench.repeat, "seed": bench.seed}
        meter = None if bench.meter is None else bench.meter.name
        totals = [asdict(total) for total in bench.totals.values()]
        echo_json(about | {"answered": bench.is_answered, "energy_meter": meter, "configurations": totals})
        return
    click.echo(format_table(_HEADERS, [_row(total) for total in bench.totals.values()]))


_HEADERS = [
    "STRATEGY", "THRESHOLD", "CACHE", "QUERIES", "ACCURACY", "COVERAGE", "PRECISION", "P50 MS", "P95 MS", "P99 MS",
    "TOKENS", "SUCCESS", "COST", "J/QUERY", "TIERS",
]  # fmt: skip


def _row(total: Total) -> list[object]:
    def shown(figure: float | None, form: str = ".3f") -> str | None:
        return None if figure is None else f"{figure:{form}}"

    return [
        total.strategy,
        shown(total.threshold, "g"),
        total.cache_mode,
        total.count,
        shown(total.accuracy),
        shown(total.coverage),
        shown(total.precision),
        *(f"{ms:.2f}" for ms in (total.latency_p50_ms, total.latency_p95_ms, total.latency_p99_ms)),
        total.prompt_tokens + total.completion_tokens,
        shown(total.success_share),
        shown(total.cost, ".6g"),
        shown(total.energy_per_query_j),
        " ".join(f"{tier} {100 * share:.0f}%" for tier, share in total.tier_mix.items()),
    ]


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _end(error: Exception, code: Exit) -> None:
    click.echo(f"mqrouter: {error}", err=True)
    raise SystemExit(code) from error
