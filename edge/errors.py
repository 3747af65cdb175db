"""The one exception family. Every text says what happened, why, and what to run next."""

from __future__ import annotations


class HaadError(Exception):
    """Something the user can act on. The CLI prints the text without a traceback and exits with `exit_code`."""

    exit_code = 2

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what + (f": {why}" if why else "") + (f" → {fix}" if fix else ""))


class ClipError(HaadError):
    """A clip file or a folder of clips cannot be used."""


class WireError(HaadError):
    """A message does not hold to the contract; `reason` is the short label it is counted under."""

    def __init__(self, reason: str, what: str, *, why: str = "", fix: str = "") -> None:
        self.reason = reason
        super().__init__(what, why=why, fix=fix)


class BundleError(HaadError):
    """A bundle is incomplete, altered, or of a version that this program does not read."""


class SettingsError(HaadError):
    """A setting is unknown or out of range; the text names the field and where its value came from."""


class SupportError(HaadError):
    """A support folder holds nothing that can describe normal movement."""


class EngineError(HaadError):
    """No inference engine can be opened here, or one failed while running; `lost`: its device is gone for good."""

    def __init__(self, what: str, *, why: str = "", fix: str = "", lost: bool = False) -> None:
        self.lost = lost
        super().__init__(what, why=why, fix=fix)


class NoPlan(EngineError):
    """None of a bundle's plans runs on this machine, on which one can be built."""


class OutputError(HaadError):
    """What a command is to write cannot be written where it was told to."""


class RecordingError(HaadError):
    """A recording cannot be written, or a file is none."""


class MissingExtra(HaadError):
    """A command needs packages that the device-side install leaves out."""
