"""The application: its paths, and what they answer."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pyarrow as pa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mlspark.contracts.check_arrow import Broken
from mlspark.contracts.check_json import Row
from mlspark.errors import ContractError
from mlspark.scoring.rest import arrow_body, bodies, form, openapi, page
from mlspark.scoring.rest.answers import Served, by_row, columns, refusal, to_json
from mlspark.scoring.rest.batching import ROWS_AT_ONCE, Batcher
from mlspark.scoring.rest.current import Current
from mlspark.scoring.rest.limits import Limits, Refused
from mlspark.scoring.rest.metrics import Metrics
from mlspark.scoring.rest.prediction_log import Answered, PredictionLog
from mlspark.scoring.rest.shadow import Shadow

logger = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

_LARGE_BYTES = 100_000
"""Size of a body from which it is parsed in a thread, so that the others are answered meanwhile."""


class Service:
    """Answers requests with the version that is current when they come."""

    def __init__(
        self,
        current: Current,
        limits: Limits,
        metrics: Metrics,
        *,
        log: PredictionLog | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        """Make it; both logs are closed when the application ends.

        Args:
            current: the version that answers.
            limits: of requests.
            metrics: count them.
            log: takes what is answered.
            shadow: is asked the same, afterwards.
        """
        self._current, self._limits, self._metrics = current, limits, metrics
        self._log, self._shadow = log, shadow
        self._batcher = Batcher(limits, metrics.batch_rows.observe)
        self.is_draining = False
        """Whether the server is about to go."""

    def app(self) -> Starlette:
        """Return the application, without what `gate.Gate` adds."""
        app = Starlette(lifespan=self._lifespan, exception_handlers={HTTPException: _unknown})
        for path, (method, endpoint) in self._paths().items():
            app.add_route(path, self._answering(endpoint), methods=[method])
        return app

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths."""
        return tuple(self._paths())

    def _paths(self) -> dict[str, tuple[Literal["GET", "POST"], Endpoint]]:
        return {
            "/": ("GET", self._page),
            "/page.js": ("GET", self._script),
            "/predict": ("POST", self._predict),
            "/predict/rows": ("POST", self._predict_rows),
            "/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/metrics": ("GET", self._metrics_text),
            "/openapi.json": ("GET", self._openapi),
        }

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._current.start()
        if self._shadow is not None:
            self._shadow.start()
        model = asyncio.create_task(self._batcher.run())
        yield
        self._current.stop()
        model.cancel()
        await asyncio.wait([model])
        if self._shadow is not None:
            self._shadow.close()
        if self._log is not None:
            self._log.close()

    def _answering(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that ends in time, and says in JSON why it refuses."""

        async def answer(request: Request) -> Response:
            request.state.id = uuid.uuid4().hex
            try:
                async with asyncio.timeout(self._limits.seconds):
                    return await endpoint(request)
            except Refused as refused:
                broken = [refusal(each) for each in refused.broken]
                content = {"error": refused.message, **({"broken": broken} if broken else {})}
                return _json(content, refused.status, dict(refused.headers))
            except ContractError as error:  # of a table as a whole
                return _json({"error": str(error)}, 422)
            except TimeoutError:
                message = f"no answer in {self._limits.seconds:g} s; send fewer rows in a request, or try again later"
                return _json({"error": message}, 504, {"connection": "close"})
            except Exception:
                logger.exception("%s %s failed", request.method, request.url.path)
                return _json({"error": "a fault of the server, which its log names"}, 500)

        return answer

    async def _predict(self, request: Request) -> Response:
        """Answer one row: a JSON object of its columns, or a form with files for those that are binary."""
        served = self._current.served
        if bodies.media_type(request) == form.MEDIA_TYPE:
            body = await bodies.read(request, self._limits)
            row = await form.row(body, request.headers, served.predictor.contract, self._limits)
        else:
            row = await self._json_body(request, f"application/json or {form.MEDIA_TYPE}")
        if not isinstance(row, dict):
            raise Refused(422, "expected one object, column: value; several rows go to /predict/rows")
        predictions, broken = await self._judged(served, [row], request)
        if broken:
            raise Refused(422, "the row breaks the contract", broken)
        return _json({"model": served.name, "version": served.number, "predictions": predictions[0]})

    async def _predict_rows(self, request: Request) -> Response:
        """Answer several rows, in order: {"rows": [object, ...]}, or a stream of Arrow."""
        is_reported = _on_error(request) == "report"
        if bodies.media_type(request) == arrow_body.MEDIA_TYPE:
            return await self._predict_table(request, is_reported=is_reported)
        body = await self._json_body(request, f"application/json or {arrow_body.MEDIA_TYPE}")
        if not isinstance(body, dict) or list(body) != ["rows"] or not isinstance(body["rows"], list):
            raise Refused(422, 'expected {"rows": [...]}, each row an object, column: value')
        rows = body["rows"]
        if (place := next((place for place, row in enumerate(rows) if not isinstance(row, dict)), None)) is not None:
            raise Refused(422, f"row {place} is no object, column: value")
        if len(rows) > self._limits.rows:
            raise Refused(413, f"{len(rows):,} rows; send at most {self._limits.rows:,} in a request")
        served = self._current.served
        predictions, broken = await self._judged(served, rows, request)
        if broken and not is_reported:
            raise _bad_rows(broken, len(rows))
        content = {"model": served.name, "version": served.number, "predictions": predictions}
        if is_reported:
            content["broken"] = [refusal(each) for each in broken]
        return _json(content)

    async def _predict_table(self, request: Request, *, is_reported: bool) -> Response:
        body = await bodies.read(request, self._limits)
        rows = await asyncio.to_thread(arrow_body.parsed, body, self._limits)
        served, parts, broken = self._current.served, [], []
        # One part even of no rows: that has the columns, too.
        for start in range(0, max(1, rows.num_rows), ROWS_AT_ONCE):
            part = rows.slice(start, ROWS_AT_ONCE)
            verdicts = await self._batcher.judge_table(served, part)
            broken += [each.moved(start) for each in verdicts.broken]
            self._keep(served, request, part, verdicts.rows, by_row(verdicts, part.num_rows), verdicts.broken, start)
            parts.append(arrow_body.predicted(served, verdicts, part.num_rows, start, is_reported=is_reported))
        self._metrics.observe(rows.num_rows, broken)
        if broken and not is_reported:
            raise _bad_rows(broken, rows.num_rows)
        headers = {"x-model": served.name, "x-model-version": str(served.number)}
        return Response(arrow_body.to_bytes(pa.concat_tables(parts)), 200, headers, arrow_body.MEDIA_TYPE)

    async def _json_body(self, request: Request, taken: str) -> Any:
        body = await bodies.read(request, self._limits)
        if (media_type := bodies.media_type(request)) != "application/json":
            raise Refused(415, f"content-type {media_type[:100]!r} is not taken here; send {taken}")
        return bodies.parsed(body) if len(body) < _LARGE_BYTES else await asyncio.to_thread(bodies.parsed, body)

    async def _judged(
        self, served: Served, rows: Sequence[Row], request: Request
    ) -> tuple[list[dict[str, Any] | None], list[Broken]]:
        predictions: list[dict[str, Any] | None] = []
        broken: list[Broken] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            of_part = await self._batcher.judge(served, part)
            predictions += of_part.predictions
            broken += [each.moved(start) for each in of_part.broken]
            if self._log is not None:
                self._keep(served, request, part, of_part.rows, of_part.predictions, of_part.broken, start)
        self._metrics.observe(len(rows), broken)
        return predictions, broken

    def _keep(
        self,
        served: Served,
        request: Request,
        asked: Sequence[Row] | pa.Table,
        rows: pa.Table,
        predictions: Sequence[dict[str, Any] | None],
        broken: Sequence[Broken],
        first_row: int,
    ) -> None:
        """Log a part of a request, and have the shadow asked."""
        if self._log is None:
            return
        request_id = request.state.id
        kept = columns(served, predictions)
        self._log.add(Answered(served, "answer", request_id, first_row, rows, kept, broken))
        if self._shadow is not None:
            self._shadow.offer(served, request_id, first_row, asked, predictions)

    async def _health(self, _: Request) -> Response:
        """Answer whether the process lives."""
        return _json({"alive": True})

    async def _ready(self, _: Request) -> Response:
        """Answer whether requests are taken, and by which version."""
        served = self._current.served
        content = {"ready": not self.is_draining, "model": served.name, "version": served.number}
        if self._shadow is not None:
            content["shadow"] = self._shadow.current.served.number
        if self._current.problem:
            content["problem"] = self._current.problem
        return _json(content, 503 if self.is_draining else 200)

    async def _metrics_text(self, _: Request) -> Response:
        served = self._current.served
        self._metrics.version.labels(served.name, "answers").set(served.number)
        if self._shadow is not None:
            shadow = self._shadow.current.served
            self._metrics.version.labels(shadow.name, "shadow").set(shadow.number)
        self._metrics.waiting.set(self._batcher.waiting_rows)
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _openapi(self, _: Request) -> Response:
        return _json(openapi.description(self._current.served, self._limits))

    async def _page(self, _: Request) -> Response:
        return Response(page.html(), media_type="text/html", headers=page.HEADERS)

    async def _script(self, _: Request) -> Response:
        return Response(page.script(), media_type="text/javascript", headers=page.HEADERS)


def _bad_rows(broken: Sequence[Broken], num_rows: int) -> Refused:
    num_bad = len({each.row for each in broken})
    return Refused(
        422,
        f"{num_bad:,} of {num_rows:,} rows break the contract, and none is predicted; leave them out, or ask with "
        f"?on_error=report for the others",
        broken,
    )


def _on_error(request: Request) -> str:
    choice = request.query_params.get("on_error", "refuse")
    if choice not in ("refuse", "report"):
        raise Refused(422, f"on_error={choice[:100]}: expected refuse or report")
    return choice


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer a path or method that there is not."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:100]}: {error.detail}; / shows what there is"
    return _json({"error": message}, error.status_code, {"connection": "close"})


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content), status, headers, "application/json")
