"""Both stores keep one promise: the last one to claim a session is the only one to write it."""

import shutil
import socket
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.errors import StoreError
from server.snapshots import Lease, open_store
from server.snapshots.sqlite import SqliteStore
from server.snapshots.store import Held, SnapshotStore

LONG_S = 600.0
SOON_S = 0.05
Open = Callable[[], SnapshotStore]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A real server on a free port, which writes nothing to disk."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on the path")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--daemonize"]
    with subprocess.Popen([*command, "no"], stdout=subprocess.DEVNULL) as process:
        url = f"redis://127.0.0.1:{port}/0"
        deadline = time.monotonic() + 20
        while True:
            try:
                open_store(url).close()
                break
            except StoreError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield url
        process.terminate()


@pytest.fixture(params=["sqlite", "redis"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open one store as another process would; all are closed at the end."""
    place = (
        str(tmp_path / "kept" / "sessions.sqlite")
        if request.param == "sqlite"
        else request.getfixturevalue("redis_url")
    )
    opened: list[SnapshotStore] = []

    def another() -> SnapshotStore:
        opened.append(open_store(place))
        return opened[-1]

    yield another
    for store in opened:
        store.close()


@pytest.fixture
def lease(request: pytest.FixtureRequest) -> Lease:
    """The first lease of a session that only this test knows."""
    return Lease(request.node.name, 1)


def test_what_one_process_stored_another_takes_up(open_one: Open, lease: Lease) -> None:
    blob = bytes(range(256)) * 1000
    assert open_one().put(lease, blob, LONG_S)
    held = open_one().claim(lease.name, LONG_S)
    assert held is not None
    assert (held.stored, held.lease) == (blob, Lease(lease.name, 2))


def test_after_a_claim_the_old_lease_writes_nothing(open_one: Open, lease: Lease) -> None:
    old, new = open_one(), open_one()
    old.put(lease, b"old", LONG_S)
    held = new.claim(lease.name, LONG_S)
    assert held is not None
    assert not old.put(lease, b"stale", LONG_S)
    assert not old.put(lease, None, LONG_S)
    assert new.put(held.lease, b"new", LONG_S)
    again = old.claim(lease.name, LONG_S)
    assert again is not None
    assert again.stored == b"new"
    assert not new.put(held.lease, b"stale", LONG_S)


def test_who_only_looks_takes_nothing_over(open_one: Open, lease: Lease) -> None:
    old, other = open_one(), open_one()
    assert other.look(lease.name) is None
    old.put(lease, b"first", LONG_S)
    assert other.look(lease.name) == Held(lease, b"first")
    assert old.put(lease, b"second", LONG_S)
    assert other.look(lease.name) == Held(lease, b"second")
    old.put(lease, None, LONG_S)
    assert other.look(lease.name) == Held(lease, None)
    old.put(lease, b"third", SOON_S)
    time.sleep(2 * SOON_S)
    assert other.look(lease.name) is None


def test_a_lease_has_moved_once_somebody_claimed_its_session(open_one: Open, lease: Lease) -> None:
    old, new = open_one(), open_one()
    stays, unknown = Lease(f"{lease.name} stays", 1), Lease(f"{lease.name} was never stored", 1)
    for each in (lease, stays):
        old.put(each, b"blob", LONG_S)
    asked = [stays, lease, unknown]
    assert old.find_moved(asked) == []
    held = new.claim(lease.name, LONG_S)
    assert held is not None
    assert old.find_moved(asked) == [lease]
    assert new.find_moved([held.lease]) == []
    new.put(held.lease, None, LONG_S)
    assert old.find_moved(asked) == [lease], "what has ended there does not come back here"


def test_of_many_that_claim_at_once_exactly_one_may_write(open_one: Open, lease: Lease) -> None:
    open_one().put(lease, b"first", LONG_S)
    found: list[Lease] = []
    written: list[bool] = []
    gate = threading.Barrier(4)

    def race(store: SnapshotStore) -> None:
        gate.wait()
        held = store.claim(lease.name, LONG_S)
        assert held is not None
        found.append(held.lease)
        gate.wait()
        written.append(store.put(held.lease, b"mine", LONG_S))

    threads = [threading.Thread(target=race, args=(open_one(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.epoch for each in found) == [2, 3, 4, 5]
    assert sorted(written) == [False, False, False, True]


def test_an_end_is_known_to_all_and_nobody_writes_after_it(open_one: Open, lease: Lease) -> None:
    one, other = open_one(), open_one()
    one.put(lease, b"blob", LONG_S)
    held = other.claim(lease.name, LONG_S)
    assert held is not None
    other.put(held.lease, None, LONG_S)
    assert not one.put(lease, b"stale", LONG_S)
    after = one.claim(lease.name, LONG_S)
    assert after is not None
    assert after.stored is None


def test_nothing_is_found_under_a_name_that_nobody_gave(open_one: Open) -> None:
    assert open_one().claim("nobody", LONG_S) is None


def test_what_is_old_is_gone_and_its_name_is_free(open_one: Open, lease: Lease) -> None:
    store = open_one()
    store.put(lease, b"blob", SOON_S)
    time.sleep(2 * SOON_S)
    assert store.claim(lease.name, LONG_S) is None
    assert store.put(lease, b"again", LONG_S)


def test_a_claim_prolongs_what_it_finds(open_one: Open, lease: Lease) -> None:
    store = open_one()
    store.put(lease, b"blob", 4 * SOON_S)
    assert store.claim(lease.name, LONG_S) is not None
    time.sleep(5 * SOON_S)
    assert store.claim(lease.name, LONG_S) is not None


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "sessions.sqlite"
    SqliteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_is_no_store_stops_the_start_and_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    path.write_bytes(b"a letter" * 1000)
    with pytest.raises(StoreError, match=r"sessions\.sqlite cannot be read .*: move it away"):
        SqliteStore(path)
    assert path.read_bytes() == b"a letter" * 1000


def test_a_file_that_was_removed_as_temporary_is_made_anew(tmp_path: Path, lease: Lease) -> None:
    path = tmp_path / "sessions" / "sessions.sqlite"
    stores = [SqliteStore(path), SqliteStore(path)]
    assert stores[0].put(lease, b"before", LONG_S)
    shutil.rmtree(path.parent)
    assert stores[0].put(lease, b"after", LONG_S)
    for store in (stores[1], SqliteStore(path)):
        assert store.look(lease.name) == Held(lease, b"after")
        store.close()
    stores[0].close()


def test_the_file_does_not_grow_with_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    store = SqliteStore(path)
    for number in range(200):
        store.put(Lease(f"{number}", 1), bytes(50_000), 0.0)
    store.close()
    with sqlite3.connect(path) as rows:
        assert rows.execute("SELECT count(*) FROM snapshots").fetchone()[0] <= 64
    rows.close()
    assert path.stat().st_size < 64 * 2 * 50_000


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://secret@127.0.0.1:1/0"])
def test_a_redis_that_is_not_there_stops_the_start_and_no_password_is_told(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert "secret" not in caught.value.message
