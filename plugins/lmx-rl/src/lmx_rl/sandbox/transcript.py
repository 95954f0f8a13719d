"""What a child has said so far, and what it means."""

from typing import Any

from lmx_rl.sandbox.child import values
from lmx_rl.sandbox.child.harness import TEXT
from lmx_rl.sandbox.protocol import Outcome, Returned, Status

ERROR = 10_000
"""Bytes of a frame that tells an error, at most."""


class Transcript:
    """Frames of one child in the order that `child.harness` writes them: `ready`, `loaded`, one of each call.

    What comes before `ready` was written before any of the program ran. From there on anything may come; what is not as it
    should be ends the transcript as the program's failure.
    """

    def __init__(self, calls: int, room: int) -> None:
        self.outcome: Outcome | None = None
        """What became of the program, once that is known."""
        self._calls = calls
        self._room = room
        self._next = "ready"
        self._returned: list[Returned] = []
        self._bytes = bytearray()

    @property
    def ready(self) -> bool:
        """Whether the program may have begun."""
        return self._next != "ready"

    def feed(self, data: bytes) -> None:
        """Take what the child has written. No more than the room there is, and this piece, is ever kept."""
        if self.outcome is None:
            self._bytes += data
        while self.outcome is None and len(self._bytes) >= values.HEADER.size:
            end = values.HEADER.size + values.HEADER.unpack_from(self._bytes)[0]
            if end > self._room + ERROR:
                self.end("output", "it returned more than it may")
            elif len(self._bytes) < end:
                return
            else:
                frame = self._bytes[values.HEADER.size : end]
                del self._bytes[:end]
                self._take(frame)

    def end(self, status: Status, detail: str) -> None:
        """It ended so, unless that is known already. Nothing that comes later counts."""
        if self.outcome is not None:
            return
        self.outcome = Outcome(status=status, returned=tuple(self._returned), detail=_plain(detail))
        self._bytes.clear()

    def _take(self, frame: bytearray) -> None:
        try:
            self._understand(values.read(frame), len(frame))
        except ValueError:
            self.end("failed" if self.ready else "broken", "what it sent cannot be read")
        if self.outcome is None and self._next == "result" and len(self._returned) == self._calls:
            self.end("done", "")

    def _understand(self, said: Any, size: int) -> None:
        match self._next, said:
            case "ready", ["ready"]:
                self._next = "loaded"
            case "loaded", ["loaded"]:
                self._next = "result"
            case "loaded", ["failed", str(text)] if size <= ERROR:
                self.end("failed", text)
            case "loaded" | "result", ["memory"]:
                self.end("memory", "it needs more memory than it may use")
            case "result", ["output"]:
                self.end("output", "it returned more than it may")
            case "result", ["error", str(text)] if size <= ERROR:
                self._returned.append(Returned(error=_plain(text)))
            case "result", ["value", data] if size <= self._room:
                self._room -= size
                self._returned.append(Returned(value=values.unpacked(data)))
            case "result", ["value", _]:
                self.end("output", "it returned more than it may")
            case _:
                raise ValueError("out of turn")


def _plain(text: str) -> str:
    """Text that can be written anywhere: no longer than it needs to be, no half of a surrogate pair."""
    return text[:TEXT].encode("utf-8", "replace").decode()
