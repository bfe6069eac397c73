"""``python -m model.training CONFIG.toml OUT``: run or resume one training run."""

import sys
from pathlib import Path

from model.training.config import TrainConfig
from model.training.loop import train


def main(arguments: list[str]) -> int:
    """Train as the configuration says; 2 on wrong usage."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m model.training CONFIG.toml OUT\n")
        return 2
    config = TrainConfig.read(Path(arguments[0]))
    train(config, config.shape(), Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
