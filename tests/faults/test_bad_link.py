"""The forwarder does what its names say; otherwise the faults it makes would be none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.bad_link import BadLink, Way


@pytest.fixture
def echo() -> Iterator[str]:
    """Address of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    end, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=_echo, args=(end,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def _echo(end: socket.socket) -> None:
    with end:
        try:
            while data := end.recv(1 << 16):
                end.sendall(data)
        except OSError:
            return


def connect(link: BadLink) -> socket.socket:
    host, _, port = link.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def exchanged(end: socket.socket, num_bytes: int = 4) -> float:
    """Send and receive; return the seconds it took."""
    started, got = time.monotonic(), 0
    sender = threading.Thread(target=end.sendall, args=(b"x" * num_bytes,), daemon=True)
    sender.start()
    while got < num_bytes:
        data = end.recv(1 << 16)
        assert data, "the connection ended"
        got += len(data)
    return time.monotonic() - started


def test_a_good_link_carries_and_counts(echo: str) -> None:
    with BadLink(echo) as link, connect(link) as end:
        exchanged(end, 300_000)
        assert link.carried == {Way.UP: 300_000, Way.DOWN: 300_000}


def test_delay_counts_once_each_way_however_much_is_sent(echo: str) -> None:
    with BadLink(echo) as link, connect(link) as end:
        link.slow(0.2)
        assert 0.4 <= exchanged(end, 200_000) < 2.0


def test_a_thin_link_carries_its_rate(echo: str) -> None:
    with BadLink(echo) as link, connect(link) as end:
        link.thin(800_000)
        assert exchanged(end, 50_000) >= 0.9, "100 kB/s, both ways together"


def test_a_reset_is_one_and_the_link_works_afterwards(echo: str) -> None:
    with BadLink(echo) as link:
        with connect(link) as end:
            link.reset_after(Way.UP, 100_000)
            with pytest.raises((ConnectionError, AssertionError)):
                exchanged(end, 300_000)
        assert link.resets == 1
        with connect(link) as end:
            exchanged(end)


def test_after_a_blackout_everything_arrives(echo: str) -> None:
    with BadLink(echo) as link, connect(link) as end:
        exchanged(end)
        link.black_out()
        end.settimeout(0.3)
        with pytest.raises(TimeoutError):
            exchanged(end)
        link.heal()
        end.settimeout(5)
        assert end.recv(4) == b"xxxx"


def test_a_half_open_connection_stays_dead_and_a_new_one_works_once_healed(echo: str) -> None:
    with BadLink(echo) as link, connect(link) as old:
        exchanged(old)
        link.half_open()
        with connect(link) as during:
            for end in (during, old, during):
                end.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    exchanged(end)
                link.heal()
        with connect(link) as new:
            exchanged(new)
