"""The local model's process: whatever happens to it, the next question is answered by one that works."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from mqrouter import settings
from mqrouter.core.answer_check import why_unfit
from mqrouter.core.backoff import Backoff
from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.request import Message
from mqrouter.edge import chat
from mqrouter.edge.chat import ChatOptions, ChatWorker, Launch, WorkerState
from mqrouter.errors import ModelError, ModelFileError, TransientError, UnreachableError
from mqrouter.wiring import chat_worker

STAND_IN = str(Path(__file__).with_name("stand_in_worker.py"))
OPTIONS = ChatOptions("m", max_tokens=32, temperature=0.0, first_token_timeout_s=10.0)


def call(question: str, deadline_s: float = 10.0) -> TierCall:
    return TierCall("r1", (Message("user", question),), deadline_s)


def command(mode: str = "good") -> Callable[[], Launch]:
    return lambda: Launch([STAND_IN, mode], model_mb=98.0, fingerprint="m:1")


@asynccontextmanager
async def closing(worker: ChatWorker) -> AsyncIterator[ChatWorker]:
    try:
        yield worker
    finally:
        await worker.close()


@pytest.fixture
async def worker() -> AsyncIterator[ChatWorker]:
    async with closing(ChatWorker(OPTIONS, command())) as worker:
        yield worker


async def ask(worker: ChatWorker, question: str, deadline_s: float = 10.0) -> list[TierEvent]:
    return [event async for event in worker.stream(call(question, deadline_s))]


def text_of(events: Sequence[TierEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def works(worker: ChatWorker) -> None:
    assert text_of(await ask(worker, "again?")) == "You asked: again?"


async def test_worker_starts_on_first_use_and_streams(worker: ChatWorker) -> None:
    assert (worker.pid, worker.starts) == (None, 0)
    events = await ask(worker, "wet?")
    assert events == [Delta("You "), Delta("asked: "), Delta("wet?"), Done("stop", "m", 7, 3, fingerprint="m:1")]
    pid = worker.pid
    await works(worker)
    assert (worker.pid, worker.starts) == (pid, 1)


async def test_questions_take_turns(worker: ChatWorker) -> None:
    found = await asyncio.gather(*(ask(worker, str(number)) for number in range(5)))
    assert [text_of(events) for events in found] == [f"You asked: {number}" for number in range(5)]


async def test_crash_is_a_failed_attempt_and_the_next_question_works(worker: ChatWorker) -> None:
    with pytest.raises(TransientError, match="ended with code 3"):
        await ask(worker, "crash")
    await works(worker)
    assert worker.starts == 2


async def test_worker_that_was_killed_is_replaced(worker: ChatWorker) -> None:
    async with aclosing(worker.stream(call("endless"))) as stream:
        await anext(stream)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(TransientError, match="code -9"):
            async for _ in stream:
                pass
    await works(worker)


async def test_signals_to_the_daemons_group_are_not_for_the_worker(worker: ChatWorker) -> None:
    """Ctrl-C on a terminal, or `timeout`: the answer in hand is the daemon's to drain, not to lose."""
    await works(worker)
    assert worker.pid is not None
    assert os.getpgid(worker.pid) != os.getpgid(0)


async def test_worker_that_died_between_questions_is_replaced(worker: ChatWorker) -> None:
    await works(worker)
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    process.kill()
    async with asyncio.timeout(60):
        while worker.pid is not None:  # until the loop has heard of it
            await asyncio.sleep(0.001)
    await works(worker)


async def test_crash_loop_is_slowed_down(worker: ChatWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "RESTARTS", Backoff(30.0, 60.0))
    for _ in range(2):
        with pytest.raises(TransientError, match="code 3"):
            await ask(worker, "crash")
    with pytest.raises(UnreachableError, match="started again in"):
        await ask(worker, "wet?")
    assert not await worker.probe()
    assert worker.starts == 2


async def test_hang_is_cut_and_the_next_question_works() -> None:
    options = ChatOptions("m", 32, 0.0, first_token_timeout_s=0.5)
    async with closing(ChatWorker(options, command())) as worker:
        await works(worker)
        pid = worker.pid
        with pytest.raises(TransientError, match=r"said nothing for 0\.5 s"):
            await ask(worker, "hang")
        assert pid is not None and not psutil.pid_exists(pid)
        await works(worker)


async def test_error_of_the_model_leaves_the_worker_alive(worker: ChatWorker) -> None:
    with pytest.raises(ModelError, match="too long"):
        await ask(worker, "error")
    await works(worker)
    assert worker.starts == 1


async def test_leaving_early_cancels_and_leaves_nothing_for_the_next(worker: ChatWorker) -> None:
    async with aclosing(worker.stream(call("endless"))) as stream:
        for _ in range(3):
            await anext(stream)
    await works(worker)
    assert worker.starts == 1


async def test_cancelled_attempt_leaves_nothing_for_the_next(worker: ChatWorker) -> None:
    await works(worker)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ask(worker, "endless")
    await works(worker)
    assert worker.starts == 1


async def test_worker_that_ignores_a_cancel_is_replaced(worker: ChatWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "CANCEL_TIMEOUT_S", 0.2)
    async with aclosing(worker.stream(call("deaf"))) as stream:
        await anext(stream)
    await works(worker)
    assert worker.starts == 2


async def test_start_that_was_cut_off_is_made_good(worker: ChatWorker) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ask(worker, "wet?")
    await works(worker)


@pytest.mark.parametrize(("mode", "reason"), [("bad", "code 5"), ("mute", "said nothing")])
async def test_worker_that_cannot_start_is_unreachable(mode: str, reason: str) -> None:
    options = ChatOptions("m", 32, 0.0, first_token_timeout_s=10.0 if mode == "bad" else 0.2)
    async with closing(ChatWorker(options, command(mode))) as worker:
        with pytest.raises(UnreachableError, match=reason):
            await ask(worker, "wet?")
        assert worker.pid is None
        assert not await worker.probe()


# --- memory -----------------------------------------------------------------------------------------


async def test_unloaded_model_is_loaded_again_on_demand(worker: ChatWorker) -> None:
    assert worker.state is WorkerState.UNLOADED
    await works(worker)
    pid = worker.pid
    assert (worker.state, worker.model_mb) == (WorkerState.READY, 98.0)
    await worker.unload("idle")
    assert pid is not None and not psutil.pid_exists(pid)
    assert (worker.state, worker.pid, worker.unloaded_because) == (WorkerState.UNLOADED, None, "idle")
    await works(worker)
    assert (worker.starts, worker.unloaded_because) == (2, None)


async def test_model_that_was_used_meanwhile_stays(worker: ChatWorker) -> None:
    await works(worker)
    await worker.unload("idle", if_idle_s=600.0)
    assert worker.state is WorkerState.READY
    assert worker.idle_s < 600.0


async def test_unloading_waits_for_the_answer_under_way(worker: ChatWorker) -> None:
    async with aclosing(worker.stream(call("endless"))) as stream:
        await anext(stream)
        assert (worker.state, worker.idle_s) == (WorkerState.BUSY, 0.0)
        await worker.unload("too large")
        await anext(stream)
        pid = worker.pid
        assert pid is not None
    assert not psutil.pid_exists(pid) and worker.unloaded_because == "too large"
    await works(worker)
    assert worker.state is WorkerState.READY


async def test_model_ended_for_memory_is_no_crash(worker: ChatWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "RESTARTS", Backoff(30.0, 60.0))
    for _ in range(3):
        async with aclosing(worker.stream(call("endless"))) as stream:
            await anext(stream)
            await worker.end_now("no memory left")
            with pytest.raises(UnreachableError, match="no memory left"):
                async for _ in stream:
                    pass
        assert (worker.pid, worker.unloaded_because) == (None, "no memory left")
    await works(worker)


async def test_model_that_does_not_fit_is_not_loaded() -> None:
    room_mb = 97.0
    fits = ChatWorker(OPTIONS, command(), why_not_load=lambda mb: None if mb <= room_mb else f"{mb:.0f} MB needed")
    async with closing(fits) as worker:
        with pytest.raises(UnreachableError, match="98 MB needed"):
            await ask(worker, "wet?")
        assert (worker.starts, worker.unloaded_because, await worker.probe()) == (0, "98 MB needed", False)
        room_mb = 98.0
        assert await worker.probe()
        await works(worker)


async def test_missing_model_file_is_unreachable() -> None:
    def missing() -> Launch:
        raise ModelFileError("there is no such model: mqrouter models pull")

    worker = ChatWorker(OPTIONS, missing)
    with pytest.raises(UnreachableError, match="models pull"):
        await ask(worker, "wet?")
    assert not await worker.probe()
    await worker.close()


async def test_close_ends_the_process_and_may_be_repeated(worker: ChatWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    await worker.close()
    await works(worker)
    pid = worker.pid
    await worker.close()
    await worker.close()
    assert pid is not None and not psutil.pid_exists(pid)


async def test_end_of_standard_input_ends_a_worker_that_generates(worker: ChatWorker) -> None:
    """However the daemon dies, its end of the pipe closes."""
    async with aclosing(worker.stream(call("endless"))) as stream:
        await anext(stream)
        process = worker._process
        assert process is not None and process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(60):
            await process.wait()
        with pytest.raises(TransientError):
            async for _ in stream:
                pass


@pytest.mark.real_model
async def test_real_model_streams_cancels_and_survives_a_kill() -> None:
    tier = settings.LocalTier(kind="local", temperature=0.0, max_tokens=192)
    configured = settings.Settings(
        gateway=settings.Gateway(models_dir=Path("~/.local/share/mqrouter/models").expanduser())
    )
    async with closing(chat_worker(configured, tier)) as worker:
        events = await ask(worker, "Say hello to the farmer.", 60.0)
        assert len(events) > 2
        assert isinstance(events[-1], Done)
        assert events[-1].prompt_tokens > 0
        evidence = events[-1].evidence
        assert evidence is not None and evidence.least_logprob <= evidence.mean_logprob < 0
        assert events[-1].fingerprint is not None and "smollm2" in events[-1].fingerprint
        assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text().strip() >= "500"
        assert text_of(events).strip()

        async with aclosing(worker.stream(call("Count to one thousand.", 60.0))) as stream:
            await anext(stream)
        assert worker.starts == 1  # the generation ended when told to

        events = await ask(worker, "What is the capital of France?", 60.0)
        last = events[-1]
        assert isinstance(last, Done)
        assert why_unfit(text_of(events), last.finish_reason) == "repetitive"

        async with aclosing(worker.stream(call("Count to one thousand.", 60.0))) as stream:
            await anext(stream)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(TransientError):
                async for _ in stream:
                    pass
        assert text_of(await ask(worker, "Hello?", 60.0)).strip()
        process = worker._process
        assert process is not None and process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(60):
            assert await process.wait() == 0
