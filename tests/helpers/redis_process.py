"""A Redis of a test's own: a real one, on a free port, which fsyncs what it has taken before it says so."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
import redis
from serving import PATIENCE, Process

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis = pytest.mark.skipif(SERVER is None, reason="there is no redis-server")
STORES = ["memory", pytest.param("redis", marks=needs_redis)]


class RedisProcess:
    """`redis-server` on files in a folder; it may be killed and started again."""

    def __init__(self, folder: Path, password: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.folder, self.password = folder, password
        self.client = redis.Redis(port=self.port, password=password or None)

    @property
    def url(self) -> str:
        return f"redis://{self.password and f':{self.password}@'}127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        assert SERVER is not None
        given = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--requirepass", self.password)
        self.popen = subprocess.Popen(
            [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *given],
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.client.ping()
            except redis.ConnectionError:
                assert self.popen.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(PATIENCE)


@contextmanager
def served_from(store: str, model: Path, folder: Path) -> Iterator[Process]:
    """The service, whose series are in its memory or in a Redis of their own, as one of STORES says."""
    if store == "memory":
        with Process(model) as process:
            yield process
    else:
        with RedisProcess(folder) as redis, Process(model, LSTMSERVE_SERIES_STORE=redis.url) as process:
            yield process
