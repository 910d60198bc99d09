"""Pauses of work on the event loop, in which it does everything else."""

import asyncio

# Iterations of the loop until a request that has come is queued, if it is small; until it is answered, or one of 100 KB
# is queued.
UNTIL_QUEUED = 2
UNTIL_ANSWERED = 4


async def pause(iterations: int) -> None:
    """Let the event loop go around so many times."""
    for _ in range(iterations):
        await asyncio.sleep(0)
