"""Uploaded clips: their queue, their results and the folder that keeps both through restarts."""

from server.clips.editing import Wanted
from server.clips.job import Job, JobState
from server.clips.making import MAKERS, Maker, Source
from server.clips.room import Room
from server.clips.store import ClipStore

__all__ = ["MAKERS", "ClipStore", "Job", "JobState", "Maker", "Room", "Source", "Wanted"]
