"""A state file, and the commands that read and repair it."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from exporter.cli.commands import main
from exporter.store.database import Database
from tests.process.agent_process import API_KEY

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e]")
HOSTILE = "\x1b[31mred \u202egpj.exe\nsecond line [bold]markup[/]"


class StoredState:
    """A configuration with the receivers ops and chat, and its state file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.db"
        self.config = folder / "config.yaml"
        url = "https://example.com/s3cret"
        receivers = [{"name": name, "type": "webhook", "url": url} for name in ("ops", "chat")]
        content = {"storage": {"path": str(self.path)}, "receivers": receivers}
        self.config.write_text(json.dumps(content), encoding="utf-8")

    def run(self, work: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` on the open state."""

        async def open_and_run() -> None:
            async with Database(self.path) as database:
                await work(database)

        asyncio.run(open_and_run())

    def invoke(self, *arguments: str) -> Result:
        """Run a command, and check that it ended without an exception."""
        runner = CliRunner(env={"CARTESIA_API_KEY": API_KEY})
        done = runner.invoke(main, [*arguments, f"--config.file={self.config}"])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def output(self, *arguments: str) -> str:
        done = self.invoke(*arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout

    def rows(self, group: str, *arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            self.output(group, "list", "--output=json", *arguments)
        )
        return rows

    def states(self) -> dict[tuple[str, str], str]:
        """Return the state of each delivery by receiver and id."""
        rows = self.rows("deliveries", "--state=all")
        return {(row["receiver"], row["id"]): row["state"] for row in rows}
