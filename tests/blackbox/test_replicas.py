"""A short run of what `replicas.py` runs long."""

from pathlib import Path

import pytest
from chaos import HAPROXY
from devices import TOLERANCE
from redis_process import needs_redis
from replicas import killed
from serving import in_loop

pytestmark = pytest.mark.long


@needs_redis
@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed (Debian: haproxy)")
def test_no_row_is_lost_or_doubled_when_a_replica_and_the_store_are_killed(tmp_path: Path) -> None:
    @in_loop
    async def run() -> None:
        found = await killed(tmp_path, kills=2, devices=4, length=120)
        assert found.worst <= TOLERANCE
        assert found.answers > 4 * (120 - 20) / 5
        assert found.statuses.keys() <= {200, 409, 429, 502, 503, 504}
        assert {"killed 0", "killed the store"} <= found.told.keys()

    run()
