"""A worker's place: when its process counts as ended."""

import os
import socket

import pytest
from serving import in_loop

from lstm_serve.process import place

# Ends at once, and leaves a child with its end of the channel, until the socket is closed that it was given.
LEAVES_A_CHILD = """
import json, os, socket, sys
_, (given,), *_ = json.loads(sys.argv[1])
if os.fork():
    os._exit(7)
socket.socket(fileno=given).recv(1)
"""


@in_loop
async def test_a_process_has_ended_whoever_keeps_its_end_of_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "WORKER", LEAVES_A_CHILD)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        how = await place.WorkerPlace(1, [theirs]).live({}, os.environ, theirs.fileno(), greets=False)
    assert how == "with status 7"
