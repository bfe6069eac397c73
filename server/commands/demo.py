"""The demonstration: a server, the sample clip streamed to it, and its overlay."""

from pathlib import Path

from gdkvm_client import Clips
from server.commands.local import local_server
from server.commands.streaming import StreamRequest, client_errors, stream_clip
from server.commands.terminal import Terminal
from server.ingest import sample_path

OVERLAY = "overlay.mp4"


def run_demo(out: Path, terminal: Terminal) -> None:
    """Serve, stream the sample clip, say its beats and EF, write the overlay, stop.

    Raises:
        EchoError: the server did not start, or refused.
    """
    terminal.say("Starting a server on this machine ...")
    with local_server() as address:
        clip = sample_path()
        terminal.say(f"Streaming {clip.name} (apical four chambers) to {address} ...")
        stream_clip(StreamRequest(clip, address, view="A4C"), terminal)
        out.mkdir(parents=True, exist_ok=True)
        with client_errors(), Clips(address) as clips:
            finished = clips.wait(clips.upload(clip, view="A4C"))
            clips.download(finished.id, OVERLAY, out / OVERLAY)
    terminal.say(f"Wrote {out / OVERLAY}. Research use only.")
