"""The one interface of what keeps clips, their queue and their files beyond a process."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from model import EchoError
from server.clips.job import Job
from server.clips.room import Room

Take = Callable[[Job], None]
"""Told of a clip; called from any thread."""


class OvertakenError(EchoError):
    """Another server has written this clip since; what this one found does not count."""

    code = "overtaken"


class Ledger(Protocol):
    """Keeps what clients were told; safe to call from several threads.

    Every method that writes raises StorageError where the disk is full, and StoreError where what
    several servers share cannot be reached.

    Attributes:
        room: the folder that this server works in.
        jobs: all clips by name, as they were when last looked at.
        is_remote: whether its methods wait for a network, and so are not for the event loop.
    """

    room: Room
    jobs: dict[str, Job]
    is_remote: bool

    def start(self, take: Take, ended: Take) -> None:
        """Begin to hand out clips that wait.

        Args:
            take: called with each that this server is to work on, in the order of arrival;
                `release` says that it has.
            ended: called with each that is over, where this server did not work on it.
        """

    def refresh(self) -> None:
        """Bring `jobs` up to date with what other servers wrote."""

    def reserve(self, job: Job, declared_bytes: int) -> None:
        """Take up a clip that begins to come.

        Raises:
            AdmissionError: as many clips as are kept are still being worked on.
            StorageError: those that wait fill the store.
        """

    def add(self, job: Job) -> None:
        """Write down a clip whose upload is complete; nobody works on it yet."""

    def queue(self, job: Job) -> None:
        """Let somebody work on it."""

    def save(self, job: Job) -> None:
        """Write down how a clip is now, and keep its result; one that was removed stays so.

        Raises:
            OvertakenError: somebody else wrote it since; nothing is changed.
        """

    def keep(self, job: Job, name: str) -> None:
        """Keep a file that was made in its folder, unless another server's is kept already."""

    def fetch(self, job: Job, name: str) -> bool:
        """See that one of its files is in its folder; returns whether it is."""

    def is_ours(self, job: Job) -> bool:
        """Whether another server has not taken it over."""

    def changing(self, job: Job) -> AbstractContextManager[None]:
        """Leave a clip in memory as it is while it is being changed here."""

    def release(self, job: Job) -> None:
        """Let a clip go that was taken, or that began to come."""

    def abandon(self, job: Job) -> None:
        """See it as others left it, whatever was found here."""

    def remove(self, job: Job) -> None:
        """Forget a clip and its files; whoever is at work on it will notice."""

    def sweeping(self) -> AbstractContextManager[bool]:
        """Be the only server that makes room; yields whether this one is."""

    def leave(self) -> None:
        """Take nothing more."""

    def close(self) -> None:
        """Let go of files and sockets; what this server works on is there for others."""
