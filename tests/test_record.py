"""tools/record writes down what a server says, and playing that back says it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
from exchanges import Exchange, Replay, read, read_file

ROOT = Path(__file__).parents[1]
SECRET = "sk-never-written-down"


def said(exchanges: list[Exchange]) -> list[tuple[object, ...]]:
    """What matters of them: where the pieces of a body were cut does not."""
    return [(one.method, one.path, one.request, one.status, one.headers, one.body) for one in exchanges]


async def test_recording_of_a_recording_is_the_same(tmp_path: Path) -> None:
    known = read("litellm")
    file = tmp_path / "again.jsonl"
    async with Replay(known).running() as replay:
        command = [sys.executable, "tools/record.py", replay.url, str(file), "--port", "0"]
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as recorder:
            try:
                assert recorder.stderr is not None
                address = recorder.stderr.readline().split()[1]
                async with aiohttp.ClientSession(address, headers={"Authorization": f"Bearer {SECRET}"}) as session:
                    for one in known:
                        async with session.request(one.method, one.path, json=one.request) as response:
                            assert (response.status, await response.read()) == (one.status, one.body)
            finally:
                recorder.send_signal(signal.SIGINT)
        assert recorder.returncode == 0
    assert said(read_file(file)) == said(known)
    assert SECRET not in file.read_text(encoding="utf-8")
    assert "127.0.0.1" not in file.read_text(encoding="utf-8")
