"""A version behind HTTP: the same predictions and refusals as `Predictor`, and never a 500."""

import asyncio
import base64
import json
import random
import socket
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from mlflow import MlflowClient
from pyarrow import compute as pc

from mlspark.commands.main import main
from mlspark.registry import versions
from mlspark.scoring.predictor import Predictor
from mlspark.scoring.rest.server import TOKEN, bound

from ..conftest import wait_until
from ..registry.conftest import kept_stores, new_run
from ..registry.example import BIG, package, rows
from . import test_pictures
from .rest_server import RECORD, Answer, Server, asked, serving


@pytest.fixture(scope="module")
def server(client: MlflowClient) -> Iterator[Server]:
    for alias, made in (("champion", package()), ("challenger", package(threshold=0.25))):
        versions.register(client, made, run_id=new_run(client), name="example", alias=alias, example=RECORD)
    with serving("example", "--poll", "0.1", "--max-body-mb", "1", "--max-rows", "2000", "--timeout", "60") as started:
        yield started


def predictions(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    columns = Predictor(package()).predict(rows(*changes))
    return [dict(zip(columns, row, strict=True)) for row in zip(*(v.tolist() for v in columns.values()), strict=True)]


def test_one_row_has_the_prediction_of_the_predictor(server: Server) -> None:
    for change in ({}, {"big": BIG - 1}, {"number": None}):
        answer = server.ask("/predict", RECORD | change)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json == {"model": "example", "version": 1, "predictions": predictions(change)[0]}


def test_rows_have_the_predictions_of_the_predictor_in_their_order(server: Server) -> None:
    changes = [{"small": n % 50, "big": BIG - n % 2, "flag": None if n % 3 else True} for n in range(1500)]
    answer = server.ask("/predict/rows", {"rows": [RECORD | change for change in changes]})
    assert answer.json["predictions"] == predictions(*changes)
    assert server.ask("/predict/rows", {"rows": []}).json["predictions"] == []


def test_bad_row_is_refused_with_column_rule_and_value(server: Server) -> None:
    answer = server.ask("/predict", RECORD | {"small": -1, "text": "pink"})
    assert answer.status == 422
    assert answer.json["broken"] == [
        {"row": 0, "column": "small", "rule": "min", "value": -1, "message": "small.min: row 0 has -1"},
        {"row": 0, "column": "text", "rule": "allowed", "value": "pink", "message": 'text.allowed: row 0 has "pink"'},
    ]
    [broken] = server.ask("/predict", RECORD | {"small": 139}).json["broken"]
    assert broken["column"] == ""
    assert broken["message"] == "small_is_less: row 0 breaks number is missing or small < number + 100"
    [broken] = server.ask("/predict", {key: value for key, value in RECORD.items() if key != "small"}).json["broken"]
    assert broken["message"] == "small.missing: row 0 has no such column"


def test_bad_rows_refuse_all_or_are_reported_beside_the_others(server: Server) -> None:
    body = {"rows": [RECORD, RECORD | {"small": None}, RECORD | {"big": BIG - 1}] * 500}
    refused = server.ask("/predict/rows", body)
    assert refused.status == 422
    assert "500 of 1,500 rows break the contract" in refused.json["error"]
    assert [broken["row"] for broken in refused.json["broken"]] == list(range(1, 1500, 3))
    reported = server.ask("/predict/rows?on_error=report", body)
    assert reported.status == 200
    assert reported.json["broken"] == refused.json["broken"]
    good, other = predictions({}, {"big": BIG - 1})
    assert reported.json["predictions"] == [good, None, other] * 500
    assert server.ask("/predict/rows?on_error=guess", body).status == 422


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "line 1, column 2"),
        (b"\xff", 400, "not UTF-8"),
        (b'{"small": NaN}', 400, "NaN is no JSON; a missing value is null"),
        (b'{"small": -Infinity}', 400, "-Infinity is no JSON"),
        (b'{"small": 1, "small": 2}', 400, "'small' is given twice"),
        (b'{"small": ' + b"9" * 5000 + b"}", 400, "digits"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"small": ' + b"[" * 900 + b"]" * 900 + b"}", 422, "breaks the contract"),
        (b'{"small": ' + b'{"a": ' * 300 + b"1" + b"}" * 301, 422, "breaks the contract"),
        (b"[1]", 422, "expected one object"),
        (b"null", 422, "expected one object"),
        (b'{"small": 1e400}', 422, "breaks the contract"),
        (b'{"small": ' + b"9" * 4000 + b"}", 422, "breaks the contract"),
        (b'{"\\ud800": "\\ud800", "text": "\\udfff"}', 422, "breaks the contract"),
        (b"{}", 422, "breaks the contract"),
        (b'"' + b"x" * 2**20 + b'"', 413, "more than 1,048,576 bytes"),
    ],
    ids=[
        "nothing", "a brace", "Latin-1", "NaN", "-Infinity", "a key twice", "5,000 digits", "100,000 brackets",
        "900 lists", "300 objects", "a list", "null", "1e400", "4,000 digits", "surrogates", "no column", "too large",
    ],
)  # fmt: skip
def test_odd_bodies_are_refused_in_words(server: Server, body: bytes, status: int, words: str) -> None:
    answer = server.ask("/predict", body)
    assert answer.status == status
    assert words in answer.json["error"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"rows": 5}, 422, "expected"),
        ({"rows": [], "more": 1}, 422, "expected"),
        ({"rows": [RECORD, 5]}, 422, "row 1 is no object"),
        ({"rows": [{}] * 2001}, 413, "send at most 2,000"),
    ],
)
def test_odd_batches_are_refused_in_words(server: Server, body: Any, status: int, words: str) -> None:
    answer = server.ask("/predict/rows", body)
    assert answer.status == status
    assert words in answer.json["error"]


def test_body_of_another_type_is_refused(server: Server) -> None:
    assert server.ask("/predict", b"small=1", content_type="text/plain").status == 415
    assert server.ask("/predict", b"x", content_encoding="gzip").status == 415
    assert server.ask("/predict/5", RECORD).status == 404
    assert server.ask("/predict").status == 405


def test_body_without_a_length_is_counted_as_it_comes(server: Server) -> None:
    connection = server.connect()
    connection.putrequest("POST", "/predict")
    connection.putheader("content-type", "application/json")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    chunk = b"%x\r\n%s\r\n" % (2**16, b" " * 2**16)
    for _ in range(17):
        connection.send(chunk)
    assert connection.getresponse().status == 413


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=700)
    return bytes(sink.getvalue())


def ask_arrow(server: Server, body: bytes, path: str = "/predict/rows") -> Answer:
    return server.ask(path, body, content_type="application/vnd.apache.arrow.stream")


def test_arrow_rows_have_the_predictions_of_the_predictor(server: Server) -> None:
    given = rows(*({"small": n % 50, "big": BIG - n % 2} for n in range(1500)))
    answer = ask_arrow(server, stream(given))
    assert (answer.status, answer.headers["x-model-version"]) == (200, "1")
    predicted = pa.ipc.open_stream(answer.body).read_all()
    expected = Predictor(package()).predict(given)
    assert predicted.to_pydict() == {name: values.tolist() for name, values in expected.items()}
    assert ask_arrow(server, stream(given.slice(0, 0))).status == 200
    words = given.set_column(5, "text", given["text"].dictionary_encode())
    assert pa.ipc.open_stream(ask_arrow(server, stream(words)).body).read_all() == predicted


def test_bad_arrow_rows_refuse_all_or_are_reported_beside_the_others(server: Server) -> None:
    given = rows(*({"small": -1 if n == 1400 else n % 50} for n in range(1500)))
    refused = ask_arrow(server, stream(given))
    assert refused.status == 422
    assert [broken["message"] for broken in refused.json["broken"]] == ["small.min: row 1400 has -1"]
    reported = pa.ipc.open_stream(ask_arrow(server, stream(given), "/predict/rows?on_error=report").body).read_all()
    bad = {"column": "small", "rule": "min", "value": "-1", "message": "small.min: row 1400 has -1"}
    assert reported["refused"].to_pylist() == [None] * 1400 + [[bad]] + [None] * 99
    assert reported["probability"].null_count == 1
    missing = ask_arrow(server, stream(given.drop_columns(["number"])))
    assert (missing.status, missing.json["error"]) == (422, "contract example: columns missing: number")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"no stream", 400, "no Arrow stream"),
        (stream(rows())[:-200], 400, "no Arrow stream"),
        (stream(rows(*[{}] * 50), "zstd"), 400, "compressed"),
        (stream(rows(*[{}] * 2001)), 413, "more than 2,000 rows"),
        (stream(pa.table({"n": pa.nulls(10**6)})), 413, "more than 2,000 rows"),
        (stream(pa.table({"text": pa.array(["x" * 500_000] * 3).dictionary_encode()})), 413, "repeats large values"),
        (stream(pa.table({"text": [{"a": 1}]})), 422, "column text: type struct<a: int64> is not taken"),
    ],
)
def test_odd_arrow_streams_are_refused_in_words(server: Server, body: bytes, status: int, words: str) -> None:
    answer = ask_arrow(server, body)
    assert answer.status == status
    assert words in answer.json["error"]


def test_damaged_arrow_streams_harm_nothing(server: Server) -> None:
    draw, whole = random.Random(1), stream(rows(*[{}] * 20))
    connection = server.connect()
    for _ in range(100):
        body = bytearray(whole)
        for _ in range(draw.choice([1, 5])):
            body[draw.randrange(len(body))] = draw.randrange(256)
        answer = asked(connection, "/predict/rows", bytes(body), content_type="application/vnd.apache.arrow.stream")
        assert answer.status in (200, 400, 413, 422)
        assert answer.status == 200 or answer.json["error"]


def form(*parts: tuple[str, str, bytes]) -> bytes:
    """A body of multipart/form-data: (name, file name, content)."""
    heads = (f'name="{name}"' + (f'; filename="{file}"' if file else "") for name, file, _ in parts)
    return (
        b"".join(
            b"--limit\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
            for head, (*_, content) in zip(heads, parts, strict=True)
        )
        + b"--limit--\r\n"
    )


def ask_form(server: Server, body: bytes) -> Answer:
    return server.ask("/predict", body, content_type="multipart/form-data; boundary=limit")


@pytest.mark.slow
def test_pictures_come_as_files_of_a_form_or_as_base64(client: MlflowClient) -> None:
    made = test_pictures.package()
    versions.register(client, made, run_id=new_run(client), name="photos", alias="champion")
    [file, *_], age = test_pictures.FILES, 0.5
    values = Predictor(made).predict(pa.table({"photo": [file], "age": pa.array([age], pa.float32())}))
    expected = {name: column.tolist()[0] for name, column in values.items()}
    with serving("photos") as server:
        row = ("row", "", b'{"age": 0.5}')
        assert ask_form(server, form(row, ("photo", "a.png", file))).json["predictions"] == expected
        text = base64.b64encode(file).decode()
        assert server.ask("/predict", {"photo": text, "age": age}).json["predictions"] == expected
        for parts, words in (
            ([row, ("photo", "a.png", file[:60])], "photo.media.decodes"),
            ([row], "photo.missing"),
            ([row, ("photo", "a.png", b"")], "photo.media.bytes"),
            ([row, row, ("photo", "a.png", file)], "part 'row' is given twice"),
            ([row, ("foto", "a.png", file)], "part 'foto': expected row"),
            ([("row", "", b"5"), ("photo", "a.png", file)], "part row: expected one object"),
            ([("row", "", b'{"photo": ""}'), ("photo", "a.png", file)], "column 'photo' is given twice"),
        ):
            refused = ask_form(server, form(*parts))
            assert refused.status == 422
            assert words in refused.body.decode()
        assert ask_form(server, form(row)[:-20]).status in (400, 422)
        assert server.ask("/predict", b"x", content_type="multipart/form-data").status == 400


def test_answers_leave_at_once() -> None:
    """Without TCP_NODELAY the second half of an answer waits for the client's delayed acknowledgement of the first."""

    async def has_no_delay() -> bool:
        made: asyncio.Queue[socket.socket] = asyncio.Queue()

        async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made.put_nowait(writer.get_extra_info("socket"))

        listening = bound("127.0.0.1", 0)
        async with await asyncio.start_server(accept, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            connection = await made.get()
            no_delay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
        return bool(no_delay)

    assert asyncio.run(has_no_delay())


def test_pages_of_other_sites_and_other_names_are_kept_out(server: Server) -> None:
    assert server.ask("/predict", RECORD, origin="http://other.example").status == 403
    assert server.ask("/predict", RECORD, origin=f"http://{server.host}:{server.port}").status == 200
    assert server.ask("/ready", host="other.example").status == 421


def test_health_readiness_and_metrics(server: Server) -> None:
    assert server.ask("/health").json == {"alive": True}
    assert server.ask("/ready").json == {"ready": True, "model": "example", "version": 1}
    before = metrics(server)
    server.ask("/predict/rows?on_error=report", {"rows": [RECORD, RECORD | {"small": -1}, RECORD | {"no one": 1}]})
    after = metrics(server)
    changed = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name)}
    assert changed['mlspark_rows_total{outcome="predicted"}'] == 2
    assert changed['mlspark_rows_total{outcome="refused"}'] == 1
    assert changed['mlspark_broken_rules_total{rule="small.min"}'] == 1
    assert changed['mlspark_requests_total{path="/predict/rows",status="200"}'] == 1
    assert after['mlspark_model_version{model="example",role="answers"}'] == 1


def metrics(server: Server) -> dict[str, float]:
    lines = server.ask("/metrics").body.decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_description_and_page_need_nothing_from_elsewhere(server: Server) -> None:
    api = server.ask("/openapi.json").json
    row = api["components"]["schemas"]["Row"]
    assert row["properties"]["text"]["enum"] == ["red", "green", "blue", None]
    assert row["properties"]["small"] == {
        "type": "integer", "minimum": 0, "maximum": 32767, "description": "smallint",
    }  # fmt: skip
    assert row["required"] == list(RECORD)
    assert row["examples"] == [json.loads(json.dumps(RECORD))]
    example = api["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert server.ask("/predict", example).status == 200
    page = server.ask("/").body.decode() + server.ask("/page.js").body.decode()
    assert "http://" not in page
    assert "https://" not in page
    assert server.ask("/docs").status == 404


def test_alias_moves_and_the_server_ends_without_a_lost_request(server: Server, client: MlflowClient) -> None:
    """The last test of this server. Each client has one connection, which it uses until the server closes it."""
    answers: list[Answer] = []
    failures: list[str] = []

    def ask_on() -> None:
        connection = server.connect()
        while True:
            try:
                connection.connect()
            except ConnectionRefusedError:
                return
            try:
                while True:
                    answers.append(asked(connection, "/predict", RECORD))
                    if answers[-1].headers.get("connection") == "close":
                        break
            except OSError as error:
                failures.append(repr(error))
            connection.close()

    clients = [threading.Thread(target=ask_on) for _ in range(8)]
    for each in clients:
        each.start()
    for version in (2, 1, 2):
        client.set_registered_model_alias("example", "champion", str(version))
        seen = len(answers)
        wait_until(lambda seen=seen, version=version: any(a.json["version"] == version for a in answers[seen:]))  # type: ignore[misc]
    assert server.end() == 0
    for each in clients:
        each.join(60)
    assert not failures
    assert {answer.status for answer in answers} == {200}
    expected = {1: "no", 2: "yes"}  # 0.40, of thresholds 0.5 and 0.25
    assert {(a.json["version"], a.json["predictions"]["prediction"]) for a in answers} == set(expected.items())


@pytest.mark.slow
def test_version_that_cannot_be_loaded_leaves_the_old_one(client: MlflowClient) -> None:
    version = versions.register(client, package(), run_id=new_run(client), name="kept", alias="champion", example=None)
    bad = versions.register(client, package(threshold=0.1), run_id=new_run(client), name="kept", alias="")
    folder = client.get_model_version_download_uri("kept", str(bad)).removeprefix("file://")
    with open(f"{folder}/data/package/task.json", "a") as file:
        file.write(" ")
    with serving("kept", "--poll", "0.1") as server:
        client.set_registered_model_alias("kept", "champion", str(bad))
        wait_until(lambda: "problem" in server.ask("/ready").json)
        ready = server.ask("/ready")
        assert (ready.status, ready.json["version"]) == (200, version)
        assert "task.json: changed since the version was registered" in ready.json["problem"]
        assert server.ask("/predict", RECORD).json["version"] == version
        assert metrics(server)["mlspark_version_failures_total"] > 0
        client.set_registered_model_alias("kept", "champion", str(version))
        wait_until(lambda: "problem" not in server.ask("/ready").json)


def test_other_addresses_need_a_token(client: MlflowClient) -> None:
    if not client.search_registered_models("name = 'example'"):
        versions.register(client, package(), run_id=new_run(client), name="example", alias="champion")
    token = "a-token-of-some-length"
    with serving("example", "--timeout", "1", token=token, host="0.0.0.0") as server:
        assert server.ask("/predict", RECORD).status == 401
        assert server.ask("/predict", RECORD, authorization="Bearer another-token-of-some").status == 401
        assert server.ask("/predict", RECORD, authorization=f"Bearer {token}").status == 200
        assert [server.ask(path).status for path in ("/", "/ready", "/metrics", "/openapi.json")] == [
            200,
            200,
            401,
            401,
        ]
        # A body that never comes to its end.
        with socket.create_connection((server.host, server.port), timeout=120) as slow:
            head = f"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 5\r\n\r\n"
            slow.sendall(head.encode() + b"{")
            assert slow.recv(1000).startswith(b"HTTP/1.1 504 ")
        assert server.end() == 0
        assert token not in "".join(server.said)


def test_answers_are_logged_with_those_of_a_shadow_version(client: MlflowClient, tmp_path: Path) -> None:
    for alias, made in (("champion", package()), ("challenger", package(threshold=0.25))):
        versions.register(client, made, run_id=new_run(client), name="watched", alias=alias)
    log = tmp_path / "log"
    body = {"rows": [RECORD, RECORD | {"small": -1}, RECORD | {"big": BIG - 1}]}
    with serving("watched", "--log", str(log), "--shadow", "challenger", "--log-seconds", "0.2") as server:
        answer = server.ask("/predict/rows?on_error=report", body)
        assert ask_arrow(server, stream(rows({"small": 7}))).status == 200
        assert server.ask("/predict", RECORD | {"small": None}).status == 422
        assert server.ask("/ready").json["shadow"] == 2
        wait_until(lambda: DeltaTable.is_deltatable(str(log)) and DeltaTable(log).to_pyarrow_table().num_rows)
        assert server.ask("/predict", RECORD | {"small": 8}).status == 200
        assert server.end() == 0  # what waits is written
    logged = DeltaTable(log).to_pyarrow_table()
    assert logged.num_rows == 2 * 6
    by_role = {role: logged.filter(pc.field("role") == role).to_pylist() for role in ("answer", "shadow")}
    requests: list[set[str]] = []
    for role, version, prediction in (("answer", 1, "no"), ("shadow", 2, "yes")):
        of_batch = sorted(
            (row for row in by_role[role] if row["big"] and row["small"] in (5, -1)), key=lambda r: r["row"]
        )
        assert [row["row"] for row in of_batch] == [0, 1, 2]
        requests.append({row["request_id"] for row in of_batch})
        assert {row["model_version"] for row in by_role[role]} == {version}
        assert [row["refused"] for row in of_batch] == [None, ["small.min"], None]
        assert [row["prediction"] for row in of_batch] == [prediction, None, prediction]
        assert {row["small"]: row["refused"] for row in by_role[role]}[None] == ["small.null"]
    assert requests[0] == requests[1]
    assert len(requests[0]) == 1
    given = [row and row["probability"] for row in answer.json["predictions"]]
    of_batch = [row for row in by_role["answer"] if {row["request_id"]} == requests[0]]
    assert [row["probability"] for row in sorted(of_batch, key=lambda row: row["row"])] == given
    assert {row["day"] for row in by_role["answer"]} == {date(2024, 2, 29)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["example@nobody"], "model example: no version or alias 'nobody'"),
        (["nobody"], "model nobody: not registered"),
        (["example/x"], "expected NAME/3 or NAME@alias"),
        (["example", "--host", "0.0.0.0"], "set MLSPARK_SERVE_TOKEN to at least 16 characters"),
        (["example", "--shadow", "challenger"], "need --log TABLE"),
        (["example", "--host", "256.1.1.1"], "is no address of this machine"),
    ],
)  # fmt: skip
def test_command_says_what_is_wrong_in_one_message(
    client: MlflowClient,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    words: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    monkeypatch.delenv(TOKEN, raising=False)
    if not client.search_registered_models("name = 'example'"):
        versions.register(client, package(), run_id=new_run(client), name="example", alias="champion")
    monkeypatch.setattr("sys.argv", ["mlspark", "serve", "--port", "0", *options])
    with kept_stores(), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_folder_without_a_store_is_named_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSPARK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.argv", ["mlspark", "serve", "--port", "0", "example"])
    with kept_stores(), pytest.raises(SystemExit):
        main()
    assert "holds no MLflow store; set MLSPARK_HOME" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
