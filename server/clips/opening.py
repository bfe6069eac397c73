"""Where a server keeps its clips, by its settings."""

from server.clips.ledger import Ledger
from server.clips.sqlite import SqliteLedger
from server.errors import SettingsError
from server.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """Open what several servers share where that is set, else this server's own folder.

    Raises:
        SettingsError: it cannot be used, or the libraries for it are not installed.
        StoreError: no Redis answers.
    """
    if settings.clip_share is None:
        return SqliteLedger(settings)
    try:
        from server.clips.shared import SharedLedger
    except ModuleNotFoundError as error:
        raise SettingsError("GDKVM_CLIP_SHARE needs: pip install 'gdkvm-live[redis]'") from error
    return SharedLedger(settings, settings.clip_share)
