"""The pause between two turns of a part."""

import asyncio


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Wait until ``event`` is set, ``seconds`` at the most."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
