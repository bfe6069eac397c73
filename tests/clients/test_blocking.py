import asyncio
import sys

from tests.clients.conftest import ScriptedServer

INTERRUPTED = """
import signal, sys, threading
import numpy as np
from gdkvm_client import Frame, Hello, stream_blocking

# A shell starts its background jobs deaf to Ctrl+C.
signal.signal(signal.SIGINT, signal.default_int_handler)

def frames():
    # Nothing was answered: the program waits.
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    yield Frame.of_pixels(0, 0, np.zeros((16, 24), np.uint8))

try:
    for _ in stream_blocking(sys.argv[1], frames(), Hello((16, 24))):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


async def test_ctrl_c_ends_a_stream_as_it_ends_any_loop(scripted: ScriptedServer) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", INTERRUPTED, scripted.url),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await program.communicate()
    assert told == b"interrupted\n"
