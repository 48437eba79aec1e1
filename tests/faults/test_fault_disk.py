"""A disk that fills up, fails, or spoils what it holds: nothing is acknowledged on its word, and nothing ends there."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from harness import WAIT_S, Gateway, Site, poll, running_site
from oracle import Oracle, Sent
from tracing import give_up_without, inject_into

from mqrouter.edge.store.log_file import read_log

pytestmark = pytest.mark.real_model

DISK_BYTES = 48 << 20
CONFIG = "[limits]\ndevice_rate_per_minute = 1000000\n[mqtt]\nreceive_maximum = 20\n"
LONG = "will there be frost? " * 1500
PAGE = 4096


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, text=CONFIG, is_started=False) as site:
        yield site


@pytest.fixture
def disk(site: Site) -> Iterator[Path]:
    """The daemon's data_dir, a file system of DISK_BYTES."""
    folder = site.gateway.folder / "data"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)])
    if mount.returncode != 0:
        give_up_without("a small file system cannot be mounted: run this test as root")
    try:
        yield folder
        site.gateway.close()
    finally:
        if site.gateway.process is not None:
            site.gateway.kill()
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, *, but_for: int = 0) -> Path:
    """So many bytes are left, whatever the daemon has given back; deleting the file makes room again."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > but_for and file.write(bytes(PAGE)):
            pass
    return filler


def ask_long(oracle: Oracle, number: int) -> list[Sent]:
    """Large requests that end at once: their route is none."""
    return oracle.ask(number, form="json", text=LONG, route="nowhere", wait_for_puback=False)


def degraded(gateway: Gateway) -> list[str]:
    found: list[str] = gateway.status()["degraded"]
    return found


def wait_until_degraded(gateway: Gateway, why: str) -> None:
    poll(lambda: why in degraded(gateway) or None, lambda: f"{why} in {gateway.status()}")


def wait_until_well(gateway: Gateway) -> None:
    poll(lambda: not degraded(gateway) or None, lambda: f"not well: {gateway.status()}")


def acknowledged(oracle: Oracle, asked: list[Sent]) -> set[str]:
    return set(oracle.log().acknowledged) & {sent.topic for sent in asked}


def assert_looking_works(gateway: Gateway) -> None:
    status = gateway.cli("status")
    assert status.returncode == 0 and "DISK" in status.stdout, status
    assert gateway.cli("queue", "list", "--all").returncode == 0
    assert gateway.cli("db", "check").returncode == 0


def test_fault_24_disk_that_fills_up_refuses_then_falls_silent_and_heals(site: Site, disk: Path) -> None:
    gateway = site.gateway.start()
    thresholds = gateway.status()["disk"]
    with Oracle(site.broker, gateway) as oracle:
        oracle.ask(20)
        oracle.wait_for_answers()
        fill(disk, but_for=thresholds["soft_free_bytes"] - (1 << 20))
        wait_until_degraded(gateway, "disk_low")
        refused = oracle.ask(5)
        oracle.wait_for_answers(refused)
        assert {oracle.answers_to(sent)[0].error_code for sent in refused} == {"overloaded"}
        filler = fill(disk, but_for=thresholds["hard_free_bytes"] // 2)
        wait_until_degraded(gateway, "disk_full")
        kept = oracle.ask(10)
        assert_looking_works(gateway)
        assert acknowledged(oracle, kept) == set()
        filler.unlink()
        wait_until_well(gateway)
        oracle.wait_for_answers(kept)
        oracle.judge()
    assert gateway.stop() == 0


def test_fault_24_disk_full_to_the_last_byte_acknowledges_nothing_and_heals(site: Site, disk: Path) -> None:
    gateway = site.gateway.start()
    with Oracle(site.broker, gateway) as oracle:
        oracle.ask(20)
        oracle.wait_for_answers()
        fill(disk)
        asked = ask_long(oracle, 40)
        wait_until_degraded(gateway, "disk_full")
        for _ in range(3):  # the ballast is given back once, and maybe only after the disk was filled again
            filler = fill(disk)
            late = oracle.ask(5)
            assert_looking_works(gateway)
            if not acknowledged(oracle, late):
                break
        assert acknowledged(oracle, late) == set()
        oracle.extra["acknowledged before it was noticed"] = len(acknowledged(oracle, asked))
        filler.unlink()
        wait_until_well(gateway)
        oracle.wait_for_answers()
        oracle.judge()
    assert gateway.stop() == 0


def test_fault_24_disk_full_in_mid_commit_acknowledges_nothing(site: Site) -> None:
    gateway = site.gateway.start()
    with Oracle(site.broker, gateway) as oracle:
        oracle.ask(20)
        oracle.wait_for_answers()
        strace = inject_into(gateway.log.pid, "pwrite64", "error=ENOSPC", "2+")
        asked = oracle.ask(10)
        gateway.wait_for_event("intake.commit_failed")
        wait_until_degraded(gateway, "store_failing")
        assert acknowledged(oracle, asked) == set()
        assert_looking_works(gateway)
        strace.end()
        wait_until_well(gateway)
        oracle.wait_for_answers()
        oracle.judge()
    assert gateway.stop() == 0


def test_fault_25_operator_purges_a_full_disk(site: Site, disk: Path) -> None:
    gateway = site.gateway.start()
    with Oracle(site.broker, gateway) as oracle:
        ask_long(oracle, 300)
        oracle.wait_for_answers()
        poll(lambda: finished(disk) >= 300 or None, lambda: f"{finished(disk)} finished")
        fill(disk)
        asked = ask_long(oracle, 40)
        wait_until_degraded(gateway, "disk_full")
        taken = acknowledged(oracle, asked)
        purge = gateway.cli("queue", "purge", "--yes")
        assert purge.returncode == 0, purge
        assert "deleted" in purge.stdout and gateway.wait_for_event("queue.purged")["by"] == "operator"
        wait_until_well(gateway)  # with the filler still there
        oracle.wait_for_answers()
        oracle.extra |= {"purged": int(purge.stdout.split()[1]), "acknowledged while full": len(taken)}
        oracle.judge(rows_may_be_missing=True)
        assert not {sent.topic for sent in asked} - set(oracle.log().acknowledged)
    assert gateway.stop() == 0


def finished(data_dir: Path) -> int:
    return count(data_dir / "mqrouter.db", "finished_at_ms IS NOT NULL")


def count(database: Path, condition: str) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return int(db.execute(f"SELECT count(*) FROM requests WHERE {condition}").fetchone()[0])


@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_fault_26_failed_sync_ends_the_daemon_and_the_next_is_well(site: Site, call: str) -> None:
    gateway = site.gateway.start()
    with Oracle(site.broker, gateway) as oracle:
        oracle.ask(20)
        oracle.wait_for_answers()
        strace = inject_into(gateway.log.pid, call, "error=EIO", 1)
        asked = oracle.ask(10)
        assert gateway.log.wait(WAIT_S) == 1
        strace.wait()
        assert acknowledged(oracle, asked) == set()
        gateway.start()
        assert not gateway.events("store.quarantined")
        oracle.wait_for_answers()
        oracle.judge()
    assert gateway.stop() == 0


def overwrite_pages(database: Path) -> None:
    """Three pages at random."""
    write_log_back(database)
    chance = random.Random(27)
    with database.open("r+b") as file:
        for page in chance.sample(range(2, database.stat().st_size // PAGE), 3):
            file.seek(page * PAGE)
            file.write(chance.randbytes(PAGE))


def overwrite_all(database: Path) -> None:
    write_log_back(database)
    database.write_bytes(random.Random(27).randbytes(database.stat().st_size))


def write_log_back(database: Path) -> None:
    """The file alone is the database, as after an ordered stop."""
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def truncate_log(database: Path) -> None:
    """As a file system may leave it: half of the commits that were synced are gone."""
    log = database.with_name(database.name + "-wal")
    found = read_log(log)
    assert found is not None and found.readable > 10
    os.truncate(log, found.frames[found.readable // 2].at)


@pytest.mark.parametrize(
    ("damage", "answered", "waiting", "least"),
    [(overwrite_pages, 60, 120, 130), (overwrite_all, 10, 20, 0), (truncate_log, 5, 10, 5)],
    ids=["pages overwritten", "garbage", "log truncated"],
)
def test_fault_27_damaged_database_is_set_aside_and_salvaged(
    site: Site, damage: Callable[[Path], None], answered: int, waiting: int, least: int
) -> None:
    gateway, database = site.gateway.start(), site.gateway.folder / "data" / "mqrouter.db"
    with Oracle(site.broker, gateway) as oracle:
        oracle.ask(answered)
        oracle.wait_for_answers()
        site.tier.stop()
        asked = oracle.ask(waiting)
        with stopped(gateway, oracle, asked):
            damage(database)
            damaged = database.read_bytes()
        event = gateway.wait_for_event("store.quarantined")
        site.tier.start()
        kept = gateway.status()["salvage"]
        assert kept["requests"] == event["requests"] >= least and kept["answers"] == event["answers"]
        assert Path(kept["quarantined_to"], database.name).read_bytes() == damaged
        poll(lambda: open_rows(database) == 0 or None, lambda: f"{open_rows(database)} still open")
        fresh = oracle.ask(10)
        oracle.wait_for_answers(fresh)
        assert gateway.cli("db", "check").returncode == 0
        oracle.extra |= {"salvaged": kept["requests"], "answers salvaged": kept["answers"]}
        oracle.judge(rows_may_be_missing=True)
        gateway.stop()
        gateway.start()
        assert not gateway.events("store.quarantined")  # once is enough
    assert gateway.stop() == 0


@contextmanager
def stopped(gateway: Gateway, oracle: Oracle, asked: list[Sent]) -> Iterator[None]:
    """The daemon has acknowledged all of these, is killed, and starts again afterwards."""
    poll(lambda: len(acknowledged(oracle, asked)) == len(asked) or None, lambda: "not all acknowledged")
    gateway.kill()
    yield
    gateway.start()


def open_rows(database: Path) -> int:
    return count(database, "state IN ('received', 'pending', 'leased', 'answered')")
