"""Defines this project's exceptions. Every text says what happened, why, and what to do next."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """A command of this program as it is typed in a shell: a path with spaces is quoted."""
    return shlex.join(["haad-edge", *map(str, words)])


class HaadError(Exception):
    """An error that the user can act on. The CLI prints its text without a traceback and exits with `exit_code`."""

    exit_code = 2

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what + (f": {why}" if why else "") + (f" → {fix}" if fix else ""))


class ClipError(HaadError):
    """A clip file or a folder of clips cannot be used."""


class WireError(HaadError):
    """A message breaks the wire format; `reason` is the short label under which it is counted."""

    def __init__(self, reason: str, what: str, *, why: str = "", fix: str = "") -> None:
        self.reason = reason
        super().__init__(what, why=why, fix=fix)


class BundleError(HaadError):
    """A bundle is incomplete, was altered, or has a version that this program does not read."""


class SettingsError(HaadError):
    """A setting is unknown or out of range; the text names the field and where its value came from."""


class SupportError(HaadError):
    """A support folder cannot be used, or a change to it cannot be made."""


class EngineError(HaadError):
    """No inference engine can be opened here, or one failed while running. `lost`: its device is gone for good."""

    def __init__(self, what: str, *, why: str = "", fix: str = "", lost: bool = False) -> None:
        self.lost = lost
        super().__init__(what, why=why, fix=fix)


class NoPlan(EngineError):
    """None of a bundle's plans runs on this machine, but one can be built here."""


class OutputError(HaadError):
    """A command cannot write its output where it was told to."""


class RecordingError(HaadError):
    """A recording cannot be read or written, or a file is not a recording."""


class MissingExtra(HaadError):
    """A command needs packages that the plain install leaves out."""
