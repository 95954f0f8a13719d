"""Programs on their way in."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lmx_core.errors import LmxError
from lmx_rl.sandbox.child import values
from lmx_rl.sandbox.protocol import Outcome, Program


def several(
    run: Callable[[Program], Outcome], programs: Sequence[Program], workers: int, stop: Callable[[], None]
) -> list[Outcome]:
    """What becomes of each, in order, so many at once. When this is interrupted, `stop` is to end those that run."""
    if len(programs) < 2:
        return [run(program) for program in programs]
    with ThreadPoolExecutor(min(workers, len(programs))) as threads:
        futures = [threads.submit(run, program) for program in programs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):  # some may only be about to run
                stop()
                time.sleep(0.05)
            raise


def packed(program: Program) -> list[list[Any]]:
    """Its calls as `child.values` packs them. LmxError where an argument is of a type that no call may have."""
    try:
        return [[values.packed(list(call.args)), values.packed(dict(call.kwargs))] for call in program.calls]
    except TypeError as error:
        raise LmxError(
            f"an argument for {program.function!r} cannot be handed to a sandbox: {error}. Calls take None, bool, int, "
            f"float, str, bytes, and lists, tuples, sets and dicts of these, {values.DEPTH} deep at most."
        ) from None
