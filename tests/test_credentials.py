"""Settings hold no secret: which texts look like one, which do not, and that none is repeated, logged or kept."""

import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlspark import credentials, storage
from mlspark.commands import source_arguments
from mlspark.errors import ConfigError
from mlspark.settings import loading
from mlspark.sources.jdbc import JdbcSettings
from mlspark.streaming import delta_files
from mlspark.tracking.settings import TrackingSettings

from .conftest import ROOT

CENSUS = str(ROOT / "conf" / "census.yaml")
S = "Tr0ub4dor"

URLS = [
    f"jdbc:postgresql://ann:{S}@db:5432/x",
    f"jdbc:postgresql://db/x?user=ann&password={S}",
    f"jdbc:postgresql://db/x?sslpassword={S}",
    f"jdbc:mysql://db/x?user=ann&PASSWORD={S}",
    f"jdbc:mysql://address=(host=db)(port=3306)(user=ann)(password={S})/x",
    f"jdbc:mysql://(host=db,port=3306,password={S})/x",
    f"jdbc:mariadb://db/x?trustStorePassword={S}",
    f"jdbc:sqlserver://db:1433;databaseName=x;user=ann;password={{{S}}}",
    f"jdbc:sqlserver://db:1433;databaseName=x;accessToken={S}",
    f"jdbc:sqlserver://db;authentication=ActiveDirectoryServicePrincipal;AADSecurePrincipalSecret={S}",
    f"jdbc:oracle:thin:ann/{S}@db:1521:x",
    f"jdbc:oracle:thin:ann/{S}@//db:1521/x",
    f'jdbc:oracle:oci:ann/"{S}@home"@(DESCRIPTION=(ADDRESS=(HOST=db)))',
    f"jdbc:oracle:thin:proxy[ann]/{S}@db:1521:x",
    f"jdbc:db2://db:50000/x:user=ann;password={S};",
    f"jdbc:teradata://db/DATABASE=x,USER=ann,PASSWORD={S}",
    f"jdbc:databricks://host:443/default;AuthMech=3;UID=token;PWD={S}",
    f"jdbc:databricks://host:443;AuthMech=11;Auth_AccessToken={S}",
    f"jdbc:snowflake://host/?db=x&private_key_file=k.p8&private_key_file_pwd={S}",
    f"jdbc:snowflake://host/?db=x&token={S}",
    f"jdbc:hive2://host:10000/x;user=ann;password={S}",
    f"jdbc:trino://host:443/x?SSLKeyStorePassword={S}",
    f"jdbc:redshift:iam://host/x?AccessKeyID=AKIAIOSFODNN7&SecretAccessKey={S}",
    f"jdbc:bigquery://host:443;OAuthType=2;OAuthClientSecret={S}",
    f"jdbc:h2:tcp://localhost/x;PASSWORD={S}",
    f"jdbc:clickhouse://ann:{S}@host:8123/x",
    "jdbc:postgresql://ann@db/x",
    "jdbc:postgresql://db/x?user=ann",
]
OTHERS = [
    f"https://ann:{S}@mlflow.example.com",
    f"postgresql://ann:{S}/9x@db/mlflow",
    f"mongodb+srv://ann:{S}@cluster0/x",
    f"s3a://AKIAIOSFODNN7:{S}/x@bucket/rows",
    f"AccountName=store;AccountKey={S}==;EndpointSuffix=core.windows.net",
    f"SharedAccessKeyName=root;SharedAccessKey={S}=",
    f"https://store.blob.core.windows.net/c/rows.csv?sv=2024-01-01&sp=r&sig={S}%3D",
    f"https://b.s3.amazonaws.com/rows.csv?X-Amz-Credential=a&X-Amz-Signature={S}",
    f"fs.azure.account.key.store.dfs.core.windows.net={S}",
    f"api_key={S}",
    f"hdfs://host/rows?token={S}",
    f"Authorization: Bearer {S}{S}{S}",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "dapi0123456789abcdef0123456789abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
]
HARMLESS = [
    "jdbc:postgresql://db:5432/x?sslmode=require&currentSchema=s",
    "jdbc:oracle:thin:@//db:1521/x",
    "jdbc:oracle:thin:@db:1521:x",
    "jdbc:oracle:thin:/@wallet_alias",
    "jdbc:sqlserver://db:1433;databaseName=x;integratedSecurity=true;domain=a@b",
    "jdbc:mysql://db1:3306,db2:3306/x?passwordCharacterEncoding=UTF-8&tokenType=none",
    "jdbc:postgresql://db/x?password=",
    "hdfs://namenode:8020/rows@2024/x.csv",
    "http://127.0.0.1:5000/?next=a@b",
    "abfss://container@store.dfs.core.windows.net/rows",
    "s3a://bucket/day=2024-01-31/hour=3:00@utc.parquet",
    "https://mlflow.example.com:5000",
    "http://[::1]:5000/a:b@c",
    "data/compass=north/maxTokens=512/bypass=yes",
    "token=true",
    "secret",
    "my password is not here",
    "[A-Z]{2}\\d+@example\\.com",
    ",",
    "SELECT token, password FROM accounts",
]


@pytest.mark.parametrize("text", URLS + OTHERS)
def test_text_with_a_secret_is_recognised_and_not_repeated(text: str) -> None:
    form = credentials.secret_in(text)
    assert form is not None
    assert S not in form
    with pytest.raises(ConfigError) as refused:
        credentials.refuse({"some": {"key": [text]}})
    assert str(refused.value).startswith(f"some.key.0: holds what looks like a secret ({form}), and settings are kept")
    assert S not in str(refused.value)


@pytest.mark.parametrize("text", HARMLESS)
def test_text_without_a_secret_passes(text: str) -> None:
    assert credentials.secret_in(text) is None
    credentials.refuse([text])


@pytest.mark.parametrize("name", ["filter", "query", "expression"])
def test_comparisons_in_sql_are_no_secrets_but_connection_strings_in_it_are(name: str) -> None:
    credentials.refuse({name: "token = 'abcdefgh' AND password='none of ours' OR passwd=pwd"})
    with pytest.raises(ConfigError, match=rf"^{name}: holds what looks like a secret \(password=\.\.\.\)") as refused:
        credentials.refuse({name: f"select * from dblink('host=db password={S}', 'select 1') as t(x int)"})
    assert S not in str(refused.value)


PLACES = {
    "sources.learn.url": {"sources": {"learn": {"kind": "jdbc", "query": "t", "url": f"jdbc:x://h?password={S}"}}},
    "scoring.source.url": {"scoring": {"source": {"kind": "jdbc", "query": "t", "url": f"jdbc:x://a:{S}@h"}}},
    "tracking.uri": {"tracking": {"uri": f"https://ann:{S}@mlflow"}},
    "storage.root": {"storage": {"root": f"s3a://key:{S}@bucket/home"}},
    "sources.learn.path": {"sources": {"learn": {"path": f"https://b/rows.csv?sig={S}"}}},
    "sources.learn.filter": {"sources": {"learn": {"filter": f"f('Server=db;Pwd={S}')"}}},
    "sources.learn.separator": {"sources": {"learn": {"separator": f"token={S}"}}},
    "training.events": {"training": {"epochs": "x"}, "tracking": {"events": f"/tmp/{S}?password={S}"}},
    "training.recovery": {"training": {"recovery": f"api_key={S}"}},
}


@pytest.mark.parametrize("place", PLACES)
def test_secret_in_a_file_is_refused_by_key_and_stands_in_no_traceback(place: str, tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(PLACES[place]))
    key = "tracking.events" if place == "training.events" else place
    with pytest.raises(ConfigError) as refused:
        loading.load([CENSUS, str(file)])
    assert str(refused.value).startswith(f"{file}: {key}: holds what looks like a secret (")
    assert "MLSPARK_JDBC_PASSWORD" in str(refused.value)
    assert S not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"tracking.uri=https://ann:{S}@host", "--set tracking.uri: holds what looks like a secret (user:password@)"),
        (
            f"sources.learn.password={S}",
            "--set: sources.learn.password: unknown key, and settings hold no secrets; set ",
        ),
        (
            f"sources.learn={{kind: csv, path: x, api_key: {S}}}",
            "sources.learn.api_key: unknown key, and settings hold no",
        ),
        (f"training.epochs={{password: {S}}}", "got a section of 'password'"),
        (f'sources.learn.filter="{S}', "--set sources.learn.filter: not valid YAML: line 1, column"),
        (f"{S}", None),
    ],
)
def test_command_line_is_not_repeated(override: str, message: str | None) -> None:
    with pytest.raises(ConfigError) as refused:
        loading.load([CENSUS], [override])
    if message:
        assert message in str(refused.value)
        assert S not in "".join(traceback.format_exception(refused.value))


def test_name_of_a_variable_is_one(tmp_path: Path) -> None:
    source = {"kind": "jdbc", "url": "jdbc:postgresql://h/d", "query": "t"}
    for name in ("hunter2", f"{S}!", "a b"):
        with pytest.raises(ConfigError, match=r"sources\.learn\.password_variable: string should match") as refused:
            loading.load([CENSUS], [f"sources.learn={source | {'password_variable': name}}"])
        assert name not in str(refused.value)
    settings = loading.load([CENSUS], [f"sources.learn={source | {'password_variable': 'OF_MY_DATABASE'}}"])
    assert isinstance(settings.sources.learn, JdbcSettings)


def test_secret_in_the_environment_is_refused_where_it_would_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSPARK_HOME", f"s3a://key:{S}@bucket/home")
    with pytest.raises(ConfigError, match=r"^storage\.root: holds what looks like a secret") as refused:
        loading.load([CENSUS])
    assert S not in str(refused.value)


def test_credentials_in_the_environment_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLSPARK_JDBC_PASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, S)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://ann:{S}@mlflow")
    settings = loading.load([CENSUS])
    assert S not in settings.to_yaml()
    assert S not in repr(settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrackingSettings(uri=f"https://ann:{S}@mlflow"),
        lambda: JdbcSettings(kind="jdbc", url=f"jdbc:x://h;pwd={S}", query="t"),
        lambda: JdbcSettings(kind="jdbc", url=[S], query="t"),  # type: ignore[arg-type]
    ],
)
def test_settings_made_in_python_are_checked_too(make: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        make()
    assert S not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((f"jdbc:postgresql://ann:{S}@h/d", "jdbc", ["query=t"]), "SOURCE: holds what looks like a secret"),
        (("jdbc:x://h", "jdbc", [f"query=t('password={S}')"]), "--option query: holds what looks like a secret"),
        (("jdbc:x://h", "jdbc", ["query=t", f"password={S}"]), "--option password: unknown"),
        (("jdbc:x://h", "jdbc", ["query=t", "password_variable=hunter2"]), "--option password_variable: string should"),
    ],
)  # fmt: skip
def test_source_on_a_command_line_is_not_repeated(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        source_arguments.settings(*arguments)
    assert message in str(refused.value)
    assert not {S, "hunter2"} & set(str(refused.value).replace("'", " ").split())
    assert S not in str(refused.value)


def test_source_is_checked_before_its_kind_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^SOURCE: holds what looks like a secret"):
        source_arguments.guess_kind(f"jdbc:postgresql://ann:{S}@h/d")


@pytest.mark.parametrize("opened", [storage.filesystem, storage.absolute, delta_files.take])
def test_uri_with_a_password_is_opened_nowhere(opened: Any) -> None:
    with pytest.raises(ConfigError, match=r"^s3a://bucket/table: holds user:password@") as refused:
        opened(f"s3a://key:{S}@bucket/table")
    assert S not in str(refused.value)


def test_no_setting_is_called_like_a_secret() -> None:
    """Their values would not be shown, and a section of them would be refused."""
    names: set[str] = set()

    def collect(schema: Any) -> None:
        if isinstance(schema, dict):
            names.update(schema.get("properties", {}))
            for value in schema.values():
                collect(value)
        elif isinstance(schema, list):
            for value in schema:
                collect(value)

    from mlspark.settings.pipeline import Settings

    collect(Settings.model_json_schema())
    assert len(names) > 100
    assert not [name for name in names if credentials.is_secret_name(name)]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://ann:{S}@mlflow/x", "https://mlflow/x"),
        (f"postgresql://ann:{S}/9@db/x", "postgresql://db/x"),
        ("https://token@mlflow", "https://mlflow"),
        ("hdfs://namenode:8020/a@b", "hdfs://namenode:8020/a@b"),
        ("sqlite:////home/a@b/x.db", "sqlite:////home/a@b/x.db"),
    ],
)
def test_url_of_the_environment_is_shown_without_credentials(url: str, shown: str) -> None:
    assert credentials.masked(url) == shown
