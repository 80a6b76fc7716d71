"""Meeting of processes: each waits for all others as long as they live, however slow they are.

Every process has a connection to the first one. The system closes it when a process ends, also by
SIGKILL, so that is noticed at once, and no clock decides whether one still works.
"""

from __future__ import annotations

import os
import secrets
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

import torch.distributed as dist

HERE, GO, LOST = b".", b"g", b"!"  # what processes tell each other, a byte each
GREETING = 5.0  # seconds that a connection may take to say who it is
# Seconds without an answer, between questions, and questions, until a machine counts as gone.
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class LostProcessError(RuntimeError):
    """Another process has ended.

    Attributes:
        told: whether the first process tells the user so.
    """

    def __init__(self, text: str, told: bool = False) -> None:
        super().__init__(text)
        self.told = told


class Meeting:
    """Connections over which processes wait for each other.

    Attributes:
        store: where processes find each other.
        peers: connections by rank: to all others from the first process, to the first from others.
        count: how often the processes have met; the same in all of them in between.
    """

    def __init__(self, store: dist.Store, peers: dict[int, socket.socket]) -> None:
        self.store, self.peers, self.count = store, peers, 0
        for peer in peers.values():
            _keep_alive(peer)

    @classmethod
    def of(cls, store: dist.Store, rank: int, size: int, seconds: float) -> Self:
        """Connect all processes; each has to call it.

        Raises:
            OSError: when some cannot be reached within so many seconds.
        """
        if rank == 0:
            return cls(store, _accepted(store, size - 1, time.monotonic() + seconds))
        return cls(store, {0: _connected(store, rank)})

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises:
            LostProcessError: when one has ended instead.
        """
        self.count += 1
        if 0 not in self.peers:
            self._wait_for_all()
            return
        with _ending_is_loss(0):
            self.peers[0].sendall(HERE)
            answer = self.peers[0].recv(1)
            if answer == LOST:
                raise LostProcessError("a process has ended", told=True)
            if answer != GO:
                raise ConnectionResetError

    def close(self) -> None:
        """Close the connections."""
        for peer in self.peers.values():
            peer.close()

    def _wait_for_all(self) -> None:
        missing = set(self.peers)
        with selectors.DefaultSelector() as selector:
            for rank, peer in self.peers.items():
                selector.register(peer, selectors.EVENT_READ, rank)
            while missing:
                for key, _ in selector.select():
                    self._require_answer(key.data)
                    missing.discard(key.data)
        for rank, peer in self.peers.items():
            with _ending_is_loss(rank):
                peer.sendall(GO)

    def _require_answer(self, rank: int) -> None:
        """Read what a process says; tell the others if it has ended."""
        try:
            with _ending_is_loss(rank):
                if self.peers[rank].recv(1) != HERE:
                    raise ConnectionResetError
        except LostProcessError:
            for peer in self.peers.values():
                with suppress(OSError):
                    peer.sendall(LOST)
            raise


class _Now:
    """The meeting of the processes of the process group, once they have met."""

    meeting: Meeting | None = None


def current_meeting() -> Meeting:
    """Return the meeting of the processes of the process group; at first, all have to call it.

    Raises:
        OSError: when they cannot meet.
    """
    store = dist.distributed_c10d._get_default_store()
    if _Now.meeting is None or _Now.meeting.store is not store:
        seconds = store.timeout.total_seconds()  # type: ignore[attr-defined]  # stubs lack it
        _Now.meeting = Meeting.of(store, dist.get_rank(), dist.get_world_size(), seconds)
    return _Now.meeting


def close_meeting() -> None:
    """Close the connections of the processes."""
    if _Now.meeting is not None:
        _Now.meeting.close()
        _Now.meeting = None


@contextmanager
def _ending_is_loss(rank: int) -> Iterator[None]:
    """Turn a closed connection into the error that names its process."""
    try:
        yield
    except OSError as error:
        raise LostProcessError(f"process {rank} has ended") from error


def _accepted(store: dist.Store, count: int, deadline: float) -> dict[int, socket.socket]:
    """Return the connections of so many other processes, by rank."""
    token = secrets.token_hex(8)
    found: dict[int, socket.socket] = {}
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as server:
        port = server.getsockname()[1]
        store.set("meeting", f"{port} {token} {' '.join(_addresses())}")
        while len(found) < count:
            server.settimeout(max(0.001, deadline - time.monotonic()))
            peer, _ = server.accept()
            with suppress(OSError, ValueError):  # strangers are not listened to
                name, rank = _line(peer).split()
                if name == token:
                    peer.sendall(f"{token}\n".encode())
                    found[int(rank)] = peer
                    continue
            peer.close()
    return found


def _connected(store: dist.Store, rank: int) -> socket.socket:
    """Return a connection to the first process, at the first of its addresses that it answers."""
    port, token, *addresses = store.get("meeting").decode().split()
    failure: OSError = ConnectionError("no address")
    for address in dict.fromkeys([os.environ.get("MASTER_ADDR", ""), *addresses]):
        try:
            peer = socket.create_connection((address, int(port)), GREETING)
            peer.sendall(f"{token} {rank}\n".encode())
            if _line(peer) == token:
                return peer
            peer.close()
        except OSError as error:
            failure = error
    raise failure


def _addresses() -> Iterator[str]:
    """Yield where other machines may reach this one."""
    yield socket.gethostname()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((os.environ.get("MASTER_ADDR", "192.0.2.1"), 9))  # nothing is sent
        yield probe.getsockname()[0]


def _line(peer: socket.socket) -> str:
    """Return the line that a process says, within a while."""
    text, end = b"", time.monotonic() + GREETING
    while not text.endswith(b"\n") and len(text) < 64:
        peer.settimeout(max(0.001, end - time.monotonic()))
        if not (byte := peer.recv(1)):
            break
        text += byte
    peer.settimeout(None)
    return text.decode().strip()


def _keep_alive(peer: socket.socket) -> None:
    """Notice within half a minute when the other machine is gone, as the system can."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            peer.setsockopt(socket.IPPROTO_TCP, option, value)
