"""The log of a run for TensorBoard, an extra of its own."""

from pathlib import Path


class Board:
    """Writes lines of the log as TensorBoard's events."""

    def __init__(self, folder: Path) -> None:
        """Begin a file of events in the folder.

        Raises:
            ModuleNotFoundError: tensorboard is not installed.
        """
        # Late, since torch imports tensorboard there, which most installations lack.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def add(self, row: dict[str, float]) -> None:
        """Add one line: the loss, and the Dice of each structure at each phase."""
        for name, value in row.items():
            if name not in ("step", "s"):
                tag = name if name == "loss" else f"dice/{name}"
                self._writer.add_scalar(tag, value, int(row["step"]))
        self._writer.flush()
