"""The configured services of an agent: which of them run here, and their replacement."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

import structlog

from exporter.agent.build import ServiceSpec
from exporter.core.ownership import AGENT, Claim, Item
from exporter.store.errors import StoreError
from exporter.supervisor import Service, Supervisor

_PREPARE_SECONDS: Final = 20.0
"""How long the start of one service may wait for its state: others must be started, too."""

log = structlog.get_logger()


class BuiltService(NamedTuple):
    """A service that is not started yet, what it holds open, and the claim that it writes under."""

    service: Service
    resources: AsyncExitStack
    claim: Claim | None


class _Running(NamedTuple):
    service: Service
    spec: ServiceSpec
    claim: Claim | None


class Services:
    """Runs those of the configured services whose items this agent owns.

    ``claims`` returns the claims of this replica; None if the agent owns everything. ``delays``
    returns the delay of the first poll of new services, in seconds, by name.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        claims: Callable[[], Mapping[Item, Claim] | None],
        delays: Callable[[Collection[str]], Mapping[str, float]],
    ) -> None:
        self._supervisor = supervisor
        self._claims = claims
        self._delays = delays
        self._specs: Mapping[str, ServiceSpec] = {}
        self._prepared: dict[str, BuiltService] = {}
        self._running: dict[str, _Running] = {}
        # A reload and a takeover must not start the same service twice.
        self._changing = asyncio.Lock()

    @property
    def items(self) -> frozenset[Item]:
        """What one agent must own of the configuration."""
        return frozenset(spec.item for spec in self._specs.values()) | {AGENT}

    @property
    def running(self) -> Iterable[Service]:
        """The services that run here."""
        return [each.service for each in self._running.values()]

    def configure(self, specs: Mapping[str, ServiceSpec]) -> None:
        """Use these specs from the next update on."""
        self._specs = specs

    async def prepare(self) -> None:
        """Build the services and load the state of those that this agent owns.

        Raises OSError when a certificate file cannot be used, StoreError when the store cannot.
        """
        self._prepared = await self._of_this_agent(await self.build(self._specs))
        for built in self._prepared.values():
            await built.service.prepare(None)

    def start(self) -> None:
        """Start the prepared services."""
        delays = self._delays(self._prepared)
        for name, built in self._prepared.items():
            self._start(name, built, delays.get(name, 0.0))
        self._prepared = {}

    async def build(self, specs: Mapping[str, ServiceSpec]) -> dict[str, BuiltService]:
        """Build the services of changed specs; if one fails, raise OSError and close the others.

        Those of other replicas too: a file that cannot be used must not be found at a takeover.
        """
        changed = {
            name: spec
            for name, spec in specs.items()
            if name not in self._running or self._running[name].spec != spec
        }
        return await build_services(changed, self._claims())

    async def replace(self, built: Mapping[str, BuiltService]) -> tuple[list[str], list[str]]:
        """Stop what must not run any more, and start what is missing, from ``built`` if it fits.

        Returns the names of those that were started, and of those that were stopped.
        """
        async with self._changing:
            wanted = {name: spec for name, spec in self._specs.items() if self._is_owned(spec.item)}
            stopped = [
                name
                for name, each in self._running.items()
                if wanted.get(name) != each.spec or self._claim(each.spec.item) != each.claim
            ]
            missing = {n: s for n, s in wanted.items() if n not in self._running or n in stopped}
            new = await self._of_this_agent(built)
            absent = {name: spec for name, spec in missing.items() if name not in new}
            new |= await build_services(absent, self._claims())
            delays = self._delays(new)
            # Concurrently: a poll that takes long to end must not delay other accounts.
            await asyncio.gather(
                *(
                    self._replace(name, new.get(name), delays.get(name, 0.0))
                    for name in dict.fromkeys([*stopped, *new])
                )
            )
            return list(new), stopped

    def withdraw(self) -> None:
        """Remove the series of services that must not run any more; `replace` stops them."""
        for each in self._running.values():
            if not self._is_owned(each.spec.item):
                each.service.forget()

    def _is_owned(self, item: Item) -> bool:
        claims = self._claims()
        return claims is None or item in claims

    def _claim(self, item: Item) -> Claim | None:
        return (self._claims() or {}).get(item)

    async def _of_this_agent(self, built: Mapping[str, BuiltService]) -> dict[str, BuiltService]:
        """Return the services with a valid claim; close the others."""
        mine: dict[str, BuiltService] = {}
        for name, each in built.items():
            item = self._specs[name].item
            if self._is_owned(item) and self._claim(item) == each.claim:
                mine[name] = each
            else:
                await each.resources.aclose()
                if name not in self._running:
                    each.service.forget()
        return mine

    def _start(self, name: str, built: BuiltService, delay: float) -> None:
        self._running[name] = _Running(built.service, self._specs[name], built.claim)
        self._supervisor.start(name, built.service, built.resources, delay=delay)

    async def _replace(self, name: str, new: BuiltService | None, delay: float) -> None:
        """Stop the service of this name, if it runs, and start ``new`` in its place, if given."""
        await self._supervisor.stop([name])
        running = self._running.pop(name, None)
        previous = None if running is None else running.service
        if new is not None:
            try:
                async with asyncio.timeout(_PREPARE_SECONDS):
                    await new.service.prepare(previous)
            except (StoreError, TimeoutError) as error:  # the first poll tries again
                reason = str(error) or f"no answer for {_PREPARE_SECONDS:.0f} s"
                log.error("cannot load the state yet", service=name, error=reason)  # noqa: TRY400
            self._start(name, new, delay)
        elif previous is not None:
            previous.forget()


async def build_services(
    specs: Mapping[str, ServiceSpec], claims: Mapping[Item, Claim] | None
) -> dict[str, BuiltService]:
    """Build the services of all specs; if one fails, raise OSError and close the others."""
    built: dict[str, BuiltService] = {}
    async with AsyncExitStack() as opened:
        for name, spec in specs.items():
            resources = await opened.enter_async_context(AsyncExitStack())
            claim = (claims or {}).get(spec.item)
            built[name] = BuiltService(await spec.build(resources, claim), resources, claim)
        opened.pop_all()
    return built
