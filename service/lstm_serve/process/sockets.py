"""Sockets that listen: one, or several at one address among which Linux spreads who connects (SO_REUSEPORT)."""

import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; `::` is every address there is: asyncio would leave out those of IPv4. Raises OSError."""
    both = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with host_names():
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)


def url(host: str, port: int, *, tls: bool) -> str:
    """Return the address of a service that listens there, as its clients write it."""
    return f"http{'s' * tls}://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def or_end(log: logging.Logger, host: str, port: int, others: str) -> Iterator[None]:
    """End the process with status 3 where no socket can be had, and log why, and by what flags `others` can be."""
    try:
        yield
    except OSError as error:
        log.error("cannot listen on %s:%d: %s; %s", host, port, why_not(error), others)  # noqa: TRY400 - it says it all
        sys.exit(3)


def why_not(error: OSError) -> str:
    """Why no socket can be had: that of a name is the resolver's own, and asyncio adds the address to the system's."""
    return str(error.strerror) if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)


def bind(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """Return `count` times a socket for each address of a host, bound to one port; none listens yet. Raises OSError."""
    with host_names():
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    both = host == "::" and socket.has_dualstack_ipv6()
    bound: list[list[socket.socket]] = []
    for _ in range(count):
        bound.append([])
        for family, (name, own, *more) in addresses:
            taken = bound[0][0].getsockname()[1] if bound[0] else own
            bound[-1].append(_bound(family, (name, taken, *more), both=both, shared=True))
    expect_free(bound[0])
    return bound


def expect_free(bound: list[socket.socket]) -> None:
    """Raise OSError where another service listens at these addresses.

    Where its sockets are shared too, ours would be let in, and each service would take a part of the other's clients.
    """
    for one in bound:
        _bound(one.family, one.getsockname(), both=_is_of_both(one)).close()


def renew(one: socket.socket) -> socket.socket:
    """Return a socket in place of one that is shared: at the same address, but it does not listen. Raises OSError."""
    made = _bound(one.family, one.getsockname(), both=_is_of_both(one), shared=True)
    one.close()
    return made


def _is_of_both(one: socket.socket) -> bool:
    return one.family == socket.AF_INET6 and not one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _bound(family: int, address: tuple[object, ...], *, both: bool, shared: bool = False) -> socket.socket:
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def host_names() -> Iterator[None]:
    """Make an OSError, as of any host that is none, of what Python says where IDNA has no form of a name."""
    try:
        yield
    except UnicodeError:
        raise OSError(errno.EINVAL, "no host has such a name: a part of it is empty or over 63 characters") from None
