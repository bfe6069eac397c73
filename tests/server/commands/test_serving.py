"""What a serving process does so that nobody is held up."""

import subprocess
import sys

PROGRAM = """
import gc, sys, cv2
from server.commands.serving import SWITCH_S, hold_up_nobody
hold_up_nobody()
assert gc.get_freeze_count() > 10_000
assert not gc.collect()
assert sys.getswitchinterval() == SWITCH_S
assert cv2.getNumThreads() == 1
"""


def test_the_collector_passes_by_what_was_loaded_and_pictures_stay_on_their_thread() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
