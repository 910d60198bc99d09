"""A client of server-sent events that keeps to the standard, as far as the service's go."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
from serving import PATIENCE


class Event(NamedTuple):
    name: str
    id: str  # as a browser has it: the last one that was told
    data: Any


class Listener:
    """The events of a stream, as they come; `raw` is every line."""

    def __init__(self, response: httpx.Response) -> None:
        self.response, self.raw, self._id = response, list[str](), ""
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self._lines:
            self.raw.append(line)
            name, _, value = line.partition(":")
            if line and name:
                fields[name] = value.removeprefix(" ")
            if line:
                continue
            self._id = fields.get("id", self._id)
            if "data" in fields:
                yield Event(fields.get("event", "message"), self._id, json.loads(fields["data"]))
            fields = {}

    def take(self, count: int) -> list[Event]:
        """The next ones."""
        found = iter(self)
        return [next(found) for _ in range(count)]

    def rest(self) -> list[Event]:
        """All up to the end of the stream."""
        return list(self)


@contextmanager
def listening(url: str, after: str | None = None, headers: Mapping[str, str] = {}) -> Iterator[Listener]:
    given = {**headers, **({} if after is None else {"last-event-id": after})}
    with httpx.stream("GET", url, headers=given, timeout=PATIENCE) as response:
        yield Listener(response)
