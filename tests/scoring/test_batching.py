"""Requests that wait are computed together, and answered each by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
import pytest

from mlspark.scoring.rest.answers import Answers, Served
from mlspark.scoring.rest.batching import ROWS_AT_ONCE, Batcher
from mlspark.scoring.rest.limits import Limits, Refused

from ..registry.example import package, rows
from .rest_server import RECORD


@pytest.fixture(scope="module")
def served() -> Served:
    return Served.load("example", 1, package(), RECORD)


def answered(limits: Limits, ask: Callable[[Batcher], Awaitable[Any]]) -> tuple[Any, list[int]]:
    """Return what came of the requests, and the sizes of the batches."""
    sizes: list[int] = []

    async def run() -> Any:
        batcher = Batcher(limits, sizes.append)
        requests = asyncio.ensure_future(ask(batcher))
        await asyncio.sleep(0)  # all of them wait
        await asyncio.sleep(0)
        work = asyncio.create_task(batcher.run())
        try:
            return await requests
        finally:
            work.cancel()

    return asyncio.run(run()), sizes


def test_what_waits_is_computed_together_and_answered_alone(served: Served) -> None:
    requests = [[RECORD | {"small": n}] for n in range(9)] + [[RECORD, RECORD | {"small": -1}]]

    async def ask(batcher: Batcher) -> list[Answers]:
        return await asyncio.gather(*(batcher.judge(served, request) for request in requests))

    answers, sizes = answered(Limits(), ask)
    assert sizes == [11]
    for answer, request in zip(answers, requests, strict=True):
        alone = served.predictor.judge(request)
        given = [row["probability"] for row in answer.predictions if row is not None]
        assert given == alone.predictions["probability"].tolist()
        assert tuple(answer.broken) == alone.broken


def test_batches_hold_one_version_one_table_and_so_many_rows(served: Served) -> None:
    other = Served.load("example", 2, package(), RECORD)

    async def ask(batcher: Batcher) -> Any:
        return await asyncio.gather(
            batcher.judge(served, [RECORD] * (ROWS_AT_ONCE - 1)),
            batcher.judge(served, [RECORD]),
            batcher.judge(served, [RECORD]),
            batcher.judge(other, [RECORD]),
            batcher.judge_table(other, rows({}, {})),
            batcher.judge(other, [RECORD]),
        )

    _, sizes = answered(Limits(), ask)
    assert sizes == [ROWS_AT_ONCE, 1, 1, 2, 1]


def test_request_that_cannot_be_computed_fails_alone(served: Served) -> None:
    async def ask(batcher: Batcher) -> Any:
        return await asyncio.gather(
            batcher.judge(served, [RECORD]),
            batcher.judge_table(served, pa.table({"small": [1]})),
            batcher.judge(served, [None]),  # type: ignore[list-item]  # a fault of the caller's
            batcher.judge(served, [RECORD]),
            return_exceptions=True,
        )

    (first, missing, fault, last), _ = answered(Limits(), ask)
    assert "columns missing" in str(missing)
    assert isinstance(fault, AttributeError)
    assert first.predictions == last.predictions
    assert first.predictions[0] is not None


def test_request_that_comes_alone_is_answered_as_among_others(served: Served) -> None:
    async def ask(batcher: Batcher) -> list[Answers]:
        one_by_one = [await batcher.judge(served, [RECORD | {"small": n}]) for n in range(4)]
        return [*one_by_one, *await asyncio.gather(*(batcher.judge(served, [RECORD | {"small": n}]) for n in range(4)))]

    answers, sizes = answered(Limits(), ask)
    assert [answer.predictions for answer in answers[:4]] == [answer.predictions for answer in answers[4:]]
    # Of four that come together the first one may find itself alone; where a row takes long here, it does not.
    assert sizes[:4] == [1] * 4
    assert sizes[4:] in ([1, 3], [4])


def test_nothing_is_computed_beside_what_is_computed_in_the_thread(served: Served) -> None:
    async def ask(batcher: Batcher) -> None:
        for _ in range(3):
            await batcher.judge(served, [RECORD])
        many = asyncio.ensure_future(batcher.judge(served, [RECORD] * ROWS_AT_ONCE))
        while batcher.waiting_rows == 0:
            await asyncio.sleep(0)
        while batcher.waiting_rows:  # until the thread has them
            await asyncio.sleep(0)
        await batcher.judge(served, [RECORD])
        await many

    _, sizes = answered(Limits(), ask)
    assert sizes == [1, 1, 1, ROWS_AT_ONCE, 1]


def test_more_rows_than_may_wait_are_sent_away(served: Served) -> None:
    async def ask(batcher: Batcher) -> Any:
        return await asyncio.gather(*(batcher.judge(served, [RECORD] * 2) for _ in range(3)), return_exceptions=True)

    (first, second, third), _ = answered(Limits(waiting_rows=5), ask)
    assert len(first.predictions) == len(second.predictions) == 2
    assert isinstance(third, Refused)
    assert (third.status, third.headers["retry-after"]) == (503, "1")
