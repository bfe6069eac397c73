"""What DCMTK's storescu is answered, and what no honest sender sends."""

import errno
import gc
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from server.clips import Room
from server.cstore.arrival import Arrival
from server.errors import StorageError
from tests.server.cstore.conftest import Start
from tests.server.cstore.sending import LIMIT, Cutter, Pacs, answer, associate, values
from tests.server.routes.asking import COUNT, wait_until

ULTRASOUND = "1.2.840.10008.5.1.4.1.1.3.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def changed(path: Path, name: str, *, pad: int = 0, **elements: Any) -> Path:
    """The same clip otherwise, under a name of its own."""
    made = dcmread(path)
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    if pad:
        made.add_new(0x00091001, "OB", bytes(pad))
        made.add_new(0x00090010, "LO", "TEST")
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(path.with_name(name))
    return path.with_name(name)


def test_an_echo_is_answered_to_who_calls_by_name(pacs: Pacs) -> None:
    assert pacs.echo()
    assert "Called AE Title Not Recognized" in pacs.send(Path("none"), title="OTHER")


def test_an_instance_is_stored_and_measured_once(pacs: Pacs, clip: Path) -> None:
    assert pacs.send(clip, clip).count("Received Store Response (Success)") == 2
    (job,) = pacs.jobs()
    place = f"/v1/clips/{job['id']}"
    wait_until(lambda: pacs.served.http.get(place).json()["state"] == "done")
    assert pacs.served.http.get(f"{place}/result").json()["clip"]["frames"] == COUNT
    metrics = pacs.served.http.get("/metrics").text
    assert 'gdkvm_clips_received_total{door="cstore"} 1.0' in metrics
    wait_until(lambda: [path.name for path in pacs.folders()] == [job["id"]])


def test_each_instance_has_its_own_status(pacs: Pacs, clip: Path) -> None:
    said = pacs.send(
        changed(clip, "ct", SOPClassUID=CAPTURE, Modality="CT", SOPInstanceUID="1.2.3"),
        changed(clip, "long", pad=LIMIT),
        clip,
    )
    answers = [line for line in said.splitlines() if "Store Response" in line]
    wanted = ("SOPClassNotSupported", "OutOfResources", "Success")
    assert [want in line for want, line in zip(wanted, answers, strict=True)] == [True] * 3
    assert len(pacs.jobs()) == 1
    wait_until(lambda: len(pacs.folders()) == 1)


def test_what_is_no_instance_or_not_the_one_announced_is_refused(pacs: Pacs, clip: Path) -> None:
    content, instance = implicit(clip), str(dcmread(clip).SOPInstanceUID)
    sent = [("1.2.3", content, 0xA900), ("1.2.3", b"\x08\xff" * 99, 0xC000), (instance, content, 0)]
    with pacs.connect() as line:
        associate(line, ULTRASOUND)
        assert answer(line) == 2
        for name, data, wanted in sent:
            line.sendall(values(3, store_command(name)))
            line.sendall(values(0, data[:50]) + values(2, data[50:]))
            assert status(line) == wanted
    assert len(pacs.jobs()) == 1


def implicit(clip: Path) -> bytes:
    """A clip's data set in Implicit VR Little Endian, cut to what fits one unit."""
    made = dcmread(clip)
    made.PixelData = bytes(100)
    made.NumberOfFrames, made.Rows, made.Columns = 1, 10, 10
    target = clip.with_name("implicit")
    made.remove_private_tags()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.save_as(target, implicit_vr=True, little_endian=True, enforce_file_format=True)
    content = target.read_bytes()
    length: int = struct.unpack("<L", content[140:144])[0]
    return content[144 + length :]


def store_command(instance: str) -> bytes:
    """A C-STORE-RQ (PS3.7 section 9.3.1.1)."""

    def element(number: int, content: bytes) -> bytes:
        content += b"\0" * (len(content) % 2)
        return struct.pack("<HHL", 0, number, len(content)) + content

    rest = (
        element(0x0002, ULTRASOUND.encode())
        + element(0x0100, b"\x01\x00")
        + element(0x0110, b"\x01\x00")
        + element(0x0700, b"\x00\x00")
        + element(0x0800, b"\x00\x00")
        + element(0x1000, instance.encode())
    )
    return element(0x0000, struct.pack("<L", len(rest))) + rest


def status(line: socket.socket) -> int:
    """The status of the next response (0000,0900)."""
    head = line.recv(6, socket.MSG_WAITALL)
    body = line.recv(struct.unpack(">L", head[2:])[0], socket.MSG_WAITALL)
    place = body.index(struct.pack("<HHL", 0, 0x0900, 2))
    return int(struct.unpack_from("<H", body, place + 8)[0])


@pytest.mark.parametrize("after", [2_000, 20_000, 100_000])
def test_what_breaks_off_leaves_nothing(pacs: Pacs, clip: Path, after: int) -> None:
    cutter = Cutter(pacs.port, after)
    assert "Success" not in Pacs(pacs.served, cutter.port).send(clip)
    cutter.join()
    wait_until(lambda: pacs.folders() == [])
    assert pacs.jobs() == []
    assert pacs.echo()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF),
        values(3, b"\0" * 8),
        bytes(100),
    ],
)
def test_a_stranger_to_the_protocol_is_cut_off(pacs: Pacs, sent: bytes) -> None:
    with pacs.connect() as line:
        line.sendall(sent)
        assert answer(line) in (0, 7)
    assert pacs.echo()


def test_the_line_of_who_hung_up_first_is_closed(
    pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_gone(line: socket.socket, how: int) -> None:
        """What shutdown(2) says where the other end is gone, which is a matter of chance."""
        shut(line, how)
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    shut = socket.socket.shutdown
    monkeypatch.setattr(socket.socket, "shutdown", find_gone)
    with pacs.connect() as line:
        line.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert answer(line) in (0, 7)
    assert pacs.echo()
    # A socket that nobody closed warns when it is collected, and the warning is an error here.
    wait_until(lambda: not any("Acceptor" in each.name for each in threading.enumerate()))
    gc.collect()


@pytest.mark.parametrize(
    "sent",
    [
        [values(3, b"rubbish")],
        [values(3, struct.pack("<HHLH", 0, 0x0100, 2, 0x7777))],
        [values(1, bytes(16_000))] * 6,
        [values(3, store_command("1.2.3"))[:40]],
        [struct.pack(">BBL", 4, 0, 5) + struct.pack(">L", 1) + b"\x01"],
        [struct.pack(">BBL", 4, 0, 0x7FFFFFFF)],
        [values(3, store_command(str(n))) + values(2, bytes(10)) for n in range(200)],
    ],
)
def test_what_is_no_message_ends_its_association_alone(pacs: Pacs, sent: list[bytes]) -> None:
    with pacs.connect() as line:
        associate(line, ULTRASOUND)
        assert answer(line) == 2
        try:
            for each in sent:
                line.sendall(each)
            line.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        while answer(line) not in (0, 7):
            continue
    assert pacs.echo()
    wait_until(lambda: pacs.folders() == [])


def test_no_more_associations_than_allowed(start: Start, clip: Path) -> None:
    pacs = start(dicom_associations=1)
    with pacs.connect() as line:
        associate(line, ULTRASOUND)
        assert answer(line) == 2
        assert not pacs.echo()
    wait_until(pacs.echo)


def test_only_peers_may_send(start: Start) -> None:
    pacs = start(dicom_peers="CART@127.0.0.1, PACS@10.0.0.7")
    assert pacs.echo("-aet", "CART")
    assert not pacs.echo("-aet", "PACS")
    assert not pacs.echo("-aet", "OTHER")


def test_who_is_nowhere_near_a_peer_is_not_listened_to(start: Start) -> None:
    pacs = start(dicom_peers="*@10.0.0.0/8")
    with pacs.connect() as line:
        assert answer(line) == 0


def test_a_stopping_server_lets_an_idle_association_go(start: Start) -> None:
    pacs = start(drain_s=0.3)
    receiver = pacs.served.parts.receiver
    assert receiver is not None
    with pacs.connect() as line:
        associate(line, ULTRASOUND)
        assert answer(line) == 2
        receiver.close()
        assert answer(line) in (0, 7)
    with pytest.raises(ConnectionRefusedError):
        pacs.connect()


def test_a_stopping_server_lets_end_what_is_on_its_way(start: Start, clip: Path) -> None:
    pacs = start()
    receiver, content = pacs.served.parts.receiver, implicit(clip)
    assert receiver is not None
    with pacs.connect() as line:
        associate(line, ULTRASOUND)
        assert answer(line) == 2
        line.sendall(values(3, store_command(str(dcmread(clip).SOPInstanceUID))))
        line.sendall(values(0, content[:50]))
        stopping = threading.Thread(target=receiver.close)
        stopping.start()
        wait_until(lambda: refuses(pacs))
        line.sendall(values(2, content[50:]))
        assert status(line) == 0
    stopping.join()
    assert len(pacs.jobs()) == 1


def refuses(pacs: Pacs) -> bool:
    try:
        pacs.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stopping_server_takes_no_more(start: Start, clip: Path) -> None:
    pacs = start()
    store = pacs.served.parts.store
    assert store is not None
    store.leave()
    assert "OutOfResources" in pacs.send(clip)


def test_tls_is_spoken_and_nobody_waits_for_who_does_not(
    start: Start, clip: Path, certificate: tuple[Path, Path]
) -> None:
    pacs = start(dicom_tls=True, tls_cert_file=certificate[0], tls_key_file=certificate[1])
    with pacs.connect():
        assert "Success" in pacs.send("+tla", "-ic", clip)
    assert not pacs.echo()


def test_only_who_has_a_certificate_may_send(
    start: Start, clip: Path, certificate: tuple[Path, Path]
) -> None:
    chain, key = certificate
    pacs = start(dicom_tls=True, tls_cert_file=chain, tls_key_file=key, dicom_client_ca_file=chain)
    assert "Success" not in pacs.send("+tla", "-ic", clip)
    assert "Success" in pacs.send("+tls", str(key), str(chain), "-ic", clip)
    context = ssl.create_default_context(cafile=chain)
    context.check_hostname = False
    assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full is Linux's")
def test_an_instance_that_a_full_disk_does_not_take_is_answered_and_not_there(
    tmp_path: Path,
) -> None:
    room, own = Room(tmp_path / "room", reserve_bytes=0), tmp_path / "own"
    own.mkdir()
    (own / "begun").symlink_to("/dev/full")

    def refuse() -> Path:
        raise OSError(errno.ENOSPC, "full")

    for folder in (lambda: own, refuse):
        (begun := tmp_path / "begun").write_bytes(b"DICM")
        arrival = Arrival(folder, begun, room, LIMIT)
        arrival.write(bytes(10))
        arrival.close()
        assert isinstance(arrival.error, StorageError)
        assert not begun.exists()
    room.close()
    assert list(own.iterdir()) == []
