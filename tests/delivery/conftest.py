"""A deliverer with one receiver, and Alertmanagers of one and two members."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.delivery.alertmanager_fixture import AlertmanagerFixture, FakeMember, open_alertmanager
from tests.delivery.delivery_fixture import DeliveryFixture, open_delivery


@pytest.fixture
async def delivery(tmp_path: Path) -> AsyncIterator[DeliveryFixture]:
    async with open_delivery(tmp_path) as fixture:
        yield fixture


@pytest.fixture
async def single(tmp_path: Path) -> AsyncIterator[AlertmanagerFixture]:
    async with open_alertmanager(tmp_path, [FakeMember()]) as fixture:
        yield fixture


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[AlertmanagerFixture]:
    async with open_alertmanager(tmp_path, [FakeMember(), FakeMember()]) as fixture:
        yield fixture
