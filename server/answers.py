"""What answers one frame, and a record of the last answers, for clients that ask again."""

import json
import struct
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.protocol import DropReason, StagesMs

ANSWERS_KEPT = 64
"""Answers that a resuming client can ask for again; docs/protocol.md promises them."""

SNAPSHOT_BYTES = 512 << 10
"""The oldest answers are left out of a snapshot where all would be longer, deflated."""

_FAST = 1
_SEQ = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Stages:
    """Where a frame's time went, in seconds; see StagesMs."""

    queue: float
    decode: float
    infer: float
    measure: float
    total: float

    def to_message(self) -> StagesMs:
        """In milliseconds, to the microsecond."""
        return StagesMs.model_construct(
            queue=round(1000 * self.queue, 3),
            decode=round(1000 * self.decode, 3),
            infer=round(1000 * self.infer, 3),
            measure=round(1000 * self.measure, 3),
            total=round(1000 * self.total, 3),
        )


AnswerKind = Literal["result", "dropped", "repeated"]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The messages that answer one frame.

    Attributes:
        stages: None where the frame was not segmented.
        reason: why it was dropped, None where it was not.
        labels_HW: the mask on the source grid, None where the frame was not segmented.
    """

    messages: tuple[str, ...]
    stages: Stages | None
    reason: DropReason | None = None
    labels_HW: NDArray[np.uint8] | None = None

    @property
    def kind(self) -> AnswerKind:
        """What the client is given: the answer that it had before is "repeated"."""
        if self.stages is not None:
            return "result"
        return "repeated" if self.reason is None else "dropped"


class AnswerRecord:
    """The last ANSWERS_KEPT answers by seq, each the messages that it was made of."""

    def __init__(self) -> None:
        self._messages: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._deflated: dict[int, bytes] = {}

    def add(self, seq: int, messages: tuple[str, ...]) -> None:
        """Keep an answer, and forget the oldest where there are too many."""
        self._messages[seq] = messages
        if len(self._messages) > ANSWERS_KEPT:
            oldest, _ = self._messages.popitem(last=False)
            self._deflated.pop(oldest, None)

    def get(self, seq: int) -> tuple[str, ...] | None:
        """The answer to a frame, None where it is not kept."""
        return self._messages.get(seq)

    def to_parts(self) -> list[bytes]:
        """As bytes, one part an answer, oldest first; each answer is deflated once in its life."""
        parts: list[bytes] = []
        left = SNAPSHOT_BYTES
        for seq, messages in reversed(self._messages.items()):
            if seq not in self._deflated:
                self._deflated[seq] = zlib.compress(json.dumps(messages).encode(), _FAST)
            left -= len(self._deflated[seq])
            if left < 0:
                break
            parts.append(_SEQ.pack(seq) + self._deflated[seq])
        return parts[::-1]

    @classmethod
    def from_parts(cls, parts: Sequence[bytes]) -> "AnswerRecord":
        """Read what ``to_parts`` wrote."""
        record = cls()
        for part in parts:
            (seq,) = _SEQ.unpack_from(part)
            record._deflated[seq] = part[_SEQ.size :]
            record._messages[seq] = tuple(json.loads(zlib.decompress(part[_SEQ.size :])))
        return record
