"""``python -m model.training CONFIG.toml OUT``: run or resume one run, by torchrun too."""

import sys
from pathlib import Path

from model.errors import EchoError
from model.training.config import TrainConfig
from model.training.loop import train
from model.training.watch import PRINTING


def main(arguments: list[str]) -> int:
    """Train as the configuration says; 1 where that cannot be done, 2 on wrong usage."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m model.training CONFIG.toml OUT\n")
        return 2
    try:
        config = TrainConfig.read(Path(arguments[0]))
        train(config, config.shape(), Path(arguments[1]), PRINTING)
    except EchoError as error:
        sys.stderr.write(f"Not done: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
