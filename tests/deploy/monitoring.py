"""A Prometheus with the configuration that we ship, which scrapes what a test serves."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
SCRAPE_S = 1


@contextmanager
def prometheus(folder: Path, *targets: str) -> Iterator[str]:
    """Run until the block ends, with the key in ``folder / "key"``; its address."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    text = (DEPLOY / "prometheus.yml").read_text()
    text = text.replace('"gdkvm:8000"', ", ".join(f'"{target}"' for target in targets))
    text = text.replace("/etc/prometheus/gdkvm-key", str(folder / "key"))
    (folder / "prometheus.yml").write_text(text.replace("5s", f"{SCRAPE_S}s"))
    # The shipped rule waits longer than a test should; promtool tests its times.
    rules = (DEPLOY / "rules.yml").read_text()
    quick = rules.replace("_seconds > 5\n        for: 10s", "_seconds > 1\n        for: 1s")
    assert quick != rules
    (folder / "rules.yml").write_text(quick)
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={place}",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://{place}"
        finally:
            process.terminate()
