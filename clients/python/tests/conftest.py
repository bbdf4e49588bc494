"""The cluster of a test. Hypothesis prints how to reproduce a failure, and stores no examples."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from cluster import Cluster
from hypothesis import settings
from talking import NewParley

from parley_chat import Parley

TEST_SECONDS = 90.0
"""Time limit for everything that a test does with its cluster."""

settings.register_profile("parley", print_blob=True, database=None)
settings.load_profile("parley")


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Runs Redis and two gateways."""
    async with asyncio.timeout(TEST_SECONDS), Cluster() as cluster:
        yield cluster


@pytest.fixture(params=["json", "msgpack"])
def parley(request: pytest.FixtureRequest) -> NewParley:
    """Makes clients of each format."""
    return partial(Parley, format=request.param)
