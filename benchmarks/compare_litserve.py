"""What a user would write instead: LitServe and the exported step in OpenVINO.

    python -m benchmarks.compare_litserve PORT

LitServe is no dependency; see `benchmarks/compare.py`. One worker keeps every session's state by
its name. It does not measure, keep answers, drop late frames, or go on after a cut.
"""

import base64
import sys
from typing import Any

import litserve
import numpy as np
import openvino as ov

from benchmarks.compare_frames import Planes, to_input, to_png
from model.weights import load_info


class Segment(litserve.LitAPI):  # type: ignore[misc]
    """A JPEG and the name of its session in, a PNG out."""

    def setup(self, device: str) -> None:
        """Compile the step."""
        del device
        self.info = load_info()
        compiled = ov.Core().compile_model(str(self.info.path), "CPU")
        self.step = compiled.create_infer_request()
        self.empty = {
            port.get_any_name(): np.zeros(tuple(port.shape), np.float32) for port in compiled.inputs
        }
        self.states: dict[str, dict[str, Planes]] = {}

    def decode_request(self, request: dict[str, str]) -> tuple[str, bytes]:
        """Take the session's name and the JPEG out of the JSON."""
        return request["session"], base64.b64decode(request["image"])

    def predict(self, asked: tuple[str, bytes]) -> bytes:
        """Step."""
        session, jpeg = asked
        image_11HW, size = to_input(jpeg, self.info.network_size)
        state = self.states.setdefault(session, self.empty)
        result: Any = self.step.infer(state | {"image": image_11HW})
        self.states[session] = {
            name: np.array(result["next_" + name]) for name in state if name != "image"
        }
        return to_png(result["probabilities"][0], size)

    def encode_response(self, png: bytes) -> dict[str, str]:
        """Put the PNG into JSON."""
        return {"mask": base64.b64encode(png).decode()}


def main() -> None:
    """Serve until stopped."""
    server = litserve.LitServer(Segment(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )


if __name__ == "__main__":
    main()
