"""One step of the network, behind one protocol, by whatever runs it here."""

import sys

# OpenVINO's import would tell Google Analytics of it, under a number that it keeps in the user's
# home folder. Where this is not installed, its own stand-in says nothing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
