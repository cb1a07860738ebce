"""A process that opens a state file, prints "held", and holds it until its input ends."""

import asyncio
import sys
from pathlib import Path

from exporter.store.database import Database


async def hold(path: Path) -> None:
    async with Database(path):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    asyncio.run(hold(Path(sys.argv[1])))
