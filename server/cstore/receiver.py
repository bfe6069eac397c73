"""A storage SCP: answers C-ECHO and C-STORE on threads of its own.

Source:
    DICOM PS3.4 annex B (storage service class), PS3.7 sections 9.1.1 and 9.1.5, PS3.8 section 7.
"""

import asyncio
import logging
import shutil
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from socket import SHUT_RDWR, socket
from socketserver import TCPServer
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.fsm import InvalidEventError
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AssociationServer

from model import EchoError
from model.pictures import READ_SYNTAXES
from server.audit import note_instance
from server.clips import ClipStore
from server.cstore.arrival import UNREADABLE, Arrival, Messages, read_bounded
from server.cstore.peers import Peers
from server.dicomweb import MISMATCH, PROCESSING_FAILURE, SUCCESS, reason_of
from server.errors import SettingsError, storage_errors
from server.ingest.instance import STORED_CLASSES, read_instance
from server.metrics import Metrics
from server.settings import Settings

logger = logging.getLogger(__name__)

OFFERED_PDU_BYTES = 256 << 10
SILENCE_S = 30.0
"""How long a peer may be silent in the midst of a unit, or before it says who it is."""

IDLE_S = 60.0
POLL_S = 0.1
LAST_S = 0.5
"""What associations get to end once they are told to."""

_STRANGER = (0x01, 0x01, 0x03)
_FULL = (0x02, 0x03, 0x02)
"""Rejections: for good, since the calling title is not recognised; for now, by a local limit.

Source:
    DICOM PS3.8 table 9-21.
"""


class Listener(AssociationServer):
    """Accepts connections from whoever may be there, and as many as there may be."""

    def __init__(self, *args: Any, peers: Peers, most: int, **kwargs: Any) -> None:
        """Listen.

        Args:
            *args: of pynetdicom's own.
            peers: who may send.
            most: connections at once, those counted in that have not said who they are.
            **kwargs: of pynetdicom's own.
        """
        self._peers = peers
        self._most = most
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[socket, Any]:
        """Accept a connection; TLS begins on its own thread, so that it holds up no other."""
        client, address = self.socket.accept()
        client.settimeout(SILENCE_S)
        if self.ssl_context is not None:
            client = self.ssl_context.wrap_socket(
                client, server_side=True, do_handshake_on_connect=False
            )
        return client, address

    def verify_request(self, _: Any, client_address: Any) -> bool:
        """Whether to talk to somebody there at all."""
        is_welcome = self._peers.reach_from(client_address[0])
        has_room = len(self.active_associations) < self._most
        if not (is_welcome and has_room):
            logger.warning("DICOM connection refused", extra={"is_known": is_welcome})
        return is_welcome and has_room

    def service_actions(self) -> None:
        """Do nothing: collecting garbage here would hold up every stream."""

    def handle_error(self, _: Any, client_address: Any) -> None:
        """Log what went wrong with a connection before it became an association."""
        logger.exception("DICOM connection failed")

    def stop(self) -> None:
        """Accept no more."""
        TCPServer.shutdown(self)
        self.server_close()


class Receiver:
    """Listens from when it is built; answers once it is started."""

    def __init__(self, settings: Settings, store: ClipStore, metrics: Metrics) -> None:
        """Bind the port.

        Args:
            settings: where to listen, as whom, and to whom.
            store: takes the clips.
            metrics: counts refusals.

        Raises:
            SettingsError: the port cannot be bound, or a setting is wrong.
        """
        self._store = store
        self._metrics = metrics
        self._limit = settings.upload_max_bytes
        self._drain_s = settings.drain_s
        self._peers = Peers(settings.dicom_peers)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_leaving = False
        self._most = settings.dicom_associations
        self._messages: dict[Any, Messages] = {}
        self._lock = threading.Lock()
        _config.STORE_RECV_CHUNKED_DATASET = True
        _config.LOG_HANDLER_LEVEL = "none"
        self._listener = self._listen(settings)
        self._thread = threading.Thread(
            target=partial(self._listener.serve_forever, POLL_S), name="dicom", daemon=True
        )

    def _listen(self, settings: Settings) -> Listener:
        entity = AE(settings.dicom_ae_title)
        entity.require_called_aet = True
        entity.maximum_associations = 2 * settings.dicom_associations
        entity.maximum_pdu_size = OFFERED_PDU_BYTES
        entity.acse_timeout, entity.network_timeout = SILENCE_S, IDLE_S
        entity.add_supported_context(Verification)
        for kind in sorted(STORED_CLASSES):
            entity.add_supported_context(kind, list(READ_SYNTAXES))
        handlers = [
            (evt.EVT_CONN_OPEN, self._open),
            (evt.EVT_CONN_CLOSE, self._close),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_DIMSE_RECV, _divert),
            (evt.EVT_C_STORE, self._store_instance),
        ]
        address = (settings.host, settings.dicom_port)
        try:
            return entity.make_server(
                address,
                ssl_context=_tls(settings),
                evt_handlers=handlers,
                server_class=partial(
                    Listener, peers=self._peers, most=2 * settings.dicom_associations
                ),
            )
        except OSError as error:
            raise SettingsError(
                f"GDKVM_DICOM_PORT: cannot listen on {settings.host}:{settings.dicom_port}: "
                f"{error.strerror}"
            ) from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.server_address[1])

    def start(self) -> None:
        """Answer, from now on; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        logger.info("DICOM receiver listens", extra={"port": self.port})

    def close(self) -> None:
        """Accept no more, let what is under way end, and abort what does not; once is enough.

        Not called on the event loop, which must go on meanwhile.
        """
        if self._is_leaving:
            return
        self._is_leaving = True
        if self._thread.is_alive():
            self._listener.stop()
        else:
            self._listener.server_close()
        _wait(self._established, self._drain_s)
        for each in self._established():
            each.abort(block=False)
        _wait(self._established, LAST_S)
        for each in self._listener.active_associations:
            each.dul.kill_dul()
        for each in list(self._messages):
            self._forget(each)

    def _established(self) -> list[Any]:
        return [each for each in self._listener.active_associations if each.is_established]

    def _open(self, event: Any) -> None:
        """Give a connection bounds."""
        for each in list(self._messages):
            if not each.is_alive():
                self._forget(each)
        assoc, line, machine = event.assoc, event.assoc.dul.socket, event.assoc.dul.state_machine
        line.recv = partial(read_bounded, line)
        line._shutdown_socket = partial(_hang_up, line)
        machine.do_action = partial(_act, assoc.dul, machine.do_action)
        assoc.dimse = Messages(assoc, self._store.room, self._limit)

    def _close(self, event: Any) -> None:
        """Leave nothing behind."""
        self._forget(event.assoc)
        if event.assoc.requestor.primitive is None:
            # Who left before a word is waited for no longer.
            event.assoc.dul.to_user_queue.put(None)

    def _forget(self, assoc: Any) -> None:
        with self._lock:
            messages = self._messages.pop(assoc, None)
        if messages is not None:
            messages.clear()

    def _admit(self, event: Any) -> None:
        """Turn away who is not known, or comes when there is no room."""
        assoc, code, reason = event.assoc, None, _FULL
        caller = assoc.requestor.primitive.calling_ae_title
        with self._lock:
            if not self._peers.know(caller, assoc.requestor.address):
                code, reason = "unauthorized", _STRANGER
            elif self._is_leaving or sum(each.is_alive() for each in self._messages) >= self._most:
                code = "full"
            else:
                self._messages[assoc] = assoc.dimse
        if code is not None:
            logger.warning("DICOM association refused", extra={"code": code})
            self._metrics.errors.labels(code).inc()
            assoc.acse.send_reject(*reason)
            assoc.kill()

    def _store_instance(self, event: Any) -> int:
        """Answer one C-STORE; returns its status."""
        assert self._loop is not None
        arrival, request = event.request._dataset_file, event.request
        arrival.close()
        refusal = arrival.error if isinstance(arrival, Arrival) else None
        if refusal is not None:
            return self._refuse(refusal)
        taking = self._take(Path(event.dataset_path), str(request.AffectedSOPInstanceUID))
        return asyncio.run_coroutine_threadsafe(taking, self._loop).result()

    async def _take(self, path: Path, uid: str) -> int:
        try:
            job = await self._store.open(None)
        except EchoError as error:
            return self._refuse(error)
        try:
            with storage_errors():
                await asyncio.to_thread(shutil.move, path, job.upload)
            instance = await asyncio.to_thread(read_instance, job.upload)
            if instance.refusal is not None:
                raise instance.refusal
            if instance.sop_instance != uid:
                self._store.discard(job)
                return MISMATCH
            kept = await self._store.submit_once(job, "cstore")
        except EchoError as error:
            self._store.discard(job)
            return self._refuse(error)
        except OSError:
            self._store.discard(job)
            logger.exception("an instance could not be kept")
            return PROCESSING_FAILURE
        except BaseException:
            self._store.discard(job)
            raise
        note_instance(kept.id, kept.size_bytes)
        return SUCCESS

    def _refuse(self, error: EchoError) -> int:
        self._metrics.errors.labels(error.code).inc()
        logger.warning("DICOM instance refused", extra={"code": error.code})
        return reason_of(error)


def _divert(event: Any) -> None:
    """Keep what came whole in one unit where the longer ones are."""
    event.assoc.dimse.divert()


def _hang_up(line: Any) -> None:
    """Close an association's socket; pynetdicom leaves it open where the peer hung up first."""
    held = line.socket
    if held is not None:
        with suppress(OSError):
            held.shutdown(SHUT_RDWR)
        held.close()


def _act(dul: Any, act: Callable[[str], None], event: str) -> None:
    """Take a step of an association's state machine.

    pynetdicom lets its thread die of a unit that cannot be read, and of an answer to who is gone.
    """
    try:
        act(event)
    except (InvalidEventError, *UNREADABLE) as error:
        logger.warning("DICOM association broken off", extra={"kind": type(error).__name__})
        dul.socket.close()
        dul.kill_dul()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """What TLS is spoken with, None where it is not.

    Raises:
        SettingsError: a certificate that cannot be used.
    """
    if not settings.dicom_tls:
        return None
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        raise SettingsError("GDKVM_DICOM_TLS needs GDKVM_TLS_CERT_FILE and GDKVM_TLS_KEY_FILE")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        if settings.dicom_client_ca_file is not None:
            context.load_verify_locations(settings.dicom_client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise SettingsError("a certificate for GDKVM_DICOM_TLS cannot be used") from error
    return context


def _wait(busy: Any, most_s: float) -> None:
    until_s = time.monotonic() + most_s
    while busy() and time.monotonic() < until_s:
        time.sleep(POLL_S)
