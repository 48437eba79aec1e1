"""The client against real servers: llama-cpp-python's, and a LiteLLM proxy in front of it.

LiteLLM is heavy and wants other versions of what mqrouter uses, so it gets an environment of its own:

    python3 -m venv /tmp/litellm && /tmp/litellm/bin/pip install 'litellm[proxy]'
    MQROUTER_LITELLM=/tmp/litellm/bin/litellm tools/test tests/edge/test_upstream_real_servers.py

Without the variable those tests are skipped. Versions tried: llama-cpp-python 0.3.36, LiteLLM 1.106.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from real_servers import KEY, MODEL, litellm_proxy, llama_cpp_server

from mqrouter.core.events import Delta, Done, TierCall, TierEvent
from mqrouter.core.request import Message
from mqrouter.edge.upstream import OpenAiWire, UpstreamClient, UpstreamOptions
from mqrouter.errors import PermanentError, TransientError, UnreachableError

pytestmark = pytest.mark.real_model

OPTIONS = UpstreamOptions(
    name="hub",
    url="",
    model=MODEL,
    api_key=None,
    max_tokens=48,
    temperature=0.0,
    concurrency=2,
    connect_timeout_s=5.0,
    first_token_timeout_s=60.0,
    idle_timeout_s=30.0,
)
CALL = TierCall("r1", (Message("system", "Be brief."), Message("user", "Name one animal of a farm.")), 120.0)


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[str]:
    with llama_cpp_server() as url:
        yield url


@pytest.fixture(scope="module")
def litellm(llama_cpp: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with litellm_proxy(tmp_path_factory.mktemp("litellm"), llama_cpp) as url:
        yield url


@pytest.fixture(params=["llama_cpp", "litellm"])
def server(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


def client(url: str, **options: Any) -> UpstreamClient:
    chosen = replace(OPTIONS, **{"url": f"{url}/v1", "api_key": SecretStr(KEY), **options})
    return UpstreamClient(chosen, OpenAiWire(chosen))


async def ask(url: str, **options: Any) -> list[TierEvent]:
    async with client(url, **options) as tier:
        return [event async for event in tier.stream(CALL)]


async def test_real_server_streams_its_answer_to_its_end(server: str) -> None:
    *deltas, done = await ask(server)
    assert len(deltas) > 1
    assert all(isinstance(event, Delta) and event.text for event in deltas)
    assert isinstance(done, Done)
    assert done.model


async def test_real_server_says_that_the_answer_was_cut(server: str) -> None:
    done = (await ask(server, max_tokens=3))[-1]
    assert isinstance(done, Done)
    assert done.finish_reason == "length"


async def test_real_server_is_probed_and_warmed(server: str) -> None:
    async with client(server) as tier:
        assert await tier.probe() is True
        await tier.warm()


async def test_real_servers_connection_is_used_again(server: str) -> None:
    async with client(server) as tier:
        for _ in range(3):
            assert isinstance([event async for event in tier.stream(CALL)][-1], Done)
        pool = tier._session.connector
        assert pool is not None
        assert sum(map(len, pool._conns.values())) == 1


async def test_stream_that_the_server_gives_up_without_a_word_is_no_answer(llama_cpp: str) -> None:
    too_long = replace(CALL, messages=(Message("user", "cow " * 4000),))
    async with client(llama_cpp) as tier:
        with pytest.raises(TransientError, match="cut before its end"):
            _ = [event async for event in tier.stream(too_long)]


async def test_proxy_that_refuses_the_key(litellm: str) -> None:
    with pytest.raises(PermanentError) as caught:  # without a database of keys it answers 400, not 401
        await ask(litellm, api_key=SecretStr("sk-wrong"))
    assert "sk-wrong" not in f"{caught.value} {caught.value.detail}"


async def test_proxy_without_the_model(litellm: str) -> None:
    with pytest.raises(PermanentError):
        await ask(litellm, model="nobody")


async def test_proxy_whose_own_upstream_is_down(litellm: str) -> None:
    with pytest.raises(TransientError) as caught:
        await ask(litellm, model="down")
    assert not isinstance(caught.value, UnreachableError)
