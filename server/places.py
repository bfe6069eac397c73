"""How many sessions may be held at once: by number, by rate, and by key."""

from collections.abc import Collection, Mapping

from model import counted
from server.engine import Engine
from server.errors import AdmissionError
from server.keys import ApiKey
from server.session import Session
from server.settings import Settings

USUAL_FPS = 30.0
"""Frames a second of a session, where one speaks of sessions in general."""


class Places:
    """Says whether one session more may come; looks at the roster's tables and changes none."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        sessions: Mapping[str, Session],
        claimed: Collection[str],
    ) -> None:
        """Begin.

        Args:
            settings: limits.
            engine: how fast it is.
            sessions: all of this server by token, those parked in the order in which they were.
            claimed: tokens that somebody is resuming now, of sessions here or elsewhere.
        """
        self._settings = settings
        self._engine = engine
        self._sessions = sessions
        self._claimed = claimed

    @property
    def count(self) -> int:
        """Sessions at USUAL_FPS that would be admitted together, at least one."""
        by_rate = self._engine.pace.promised_fps / USUAL_FPS
        return max(1, int(min(self._settings.max_sessions, by_rate)))

    def check_quota(self, key: ApiKey | None, elsewhere: int) -> None:
        """Refuse one session more than a key may hold, live and parked.

        Args:
            key: of whoever asks.
            elsewhere: sessions of the key on other replicas.

        Raises:
            AdmissionError: it holds as many.
        """
        if key is None or key.max_sessions is None:
            return
        held = sum(each.holder == key.name for each in self._staying())
        if held + elsewhere >= key.max_sessions:
            may = counted(key.max_sessions, "session")
            raise AdmissionError(f"this key may hold {may} and holds as many")

    def check_rate(self, fps: float | None) -> None:
        """Refuse a session whose rate cannot be held beside those that are live.

        Raises:
            AdmissionError: the machine is too slow for one more.
        """
        live = [each for each in self._staying() if each.phase == "live"]
        self._engine.check_rate(fps, sum(each.hello.fps or 0.0 for each in live))

    def in_the_way(self, token: str) -> Session | None:
        """The session parked longest, where it must go so that another one has its place.

        Args:
            token: of the one that wants to come; others that are being resumed have their places.

        Raises:
            AdmissionError: no place can be freed.
        """
        coming = {each for each in self._claimed if each != token}
        if len({each.token for each in self._staying()} | coming) < self._settings.max_sessions:
            return None
        for each in self._sessions.values():
            if each.phase == "parked" and each.token not in coming:
                return each
        most = counted(self._settings.max_sessions, "session")
        raise AdmissionError(f"this server takes {most} and has as many")

    def _staying(self) -> list[Session]:
        """All but those that another server has, and those summed up that are only being stored.

        Who has read a summary may open the next session at once.
        """
        return [
            each
            for each in self._sessions.values()
            if not each.has_moved and (each.phase != "live" or not each.is_over)
        ]
