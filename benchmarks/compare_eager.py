"""What a user would write instead: FastAPI and the network in torch, a PNG of the mask a frame.

    python -m benchmarks.compare_eager PORT

It does not measure, keep answers, drop late frames, or go on after a cut.
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from safetensors.torch import load_file
from starlette.concurrency import run_in_threadpool

from benchmarks.compare_frames import to_input, to_png
from model.network import LiveNetwork
from model.weights import load_info, parameters_of


def eager() -> FastAPI:
    """A websocket that takes JPEG and gives PNG; a network and a state for each connection."""
    info = load_info()
    parameters = load_file(parameters_of(info))
    app = FastAPI()

    @app.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        network = LiveNetwork(info.config)
        network.load_state_dict(parameters)
        network.eval()
        state = network.initial_state(1)

        def answer(jpeg: bytes) -> bytes:
            nonlocal state
            image_11HW, size = to_input(jpeg, info.network_size)
            with torch.inference_mode():
                output, state = network.step(torch.from_numpy(image_11HW), state)
                probabilities_NHW = output.probabilities_BNHW[0].numpy()
            return to_png(probabilities_NHW, size)

        try:
            while True:
                await socket.send_bytes(
                    await run_in_threadpool(answer, await socket.receive_bytes())
                )
        except WebSocketDisconnect:
            return

    return app


def main() -> None:
    """Serve until stopped."""
    uvicorn.run(eager(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
