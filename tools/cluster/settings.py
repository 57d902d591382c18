"""What a Spark session and a process need in order to use servers that run."""

from collections.abc import Mapping
from pathlib import Path

from mlspark import session
from tools.cluster import jars
from tools.cluster.hdfs import Hdfs
from tools.cluster.metastore import Metastore
from tools.cluster.postgres import Postgres
from tools.cluster.s3 import S3
from tools.cluster.standalone import Standalone

_ALL_OF_HADOOP = "org.apache.hadoop:*"


def spark_settings(
    *,
    hdfs: Hdfs | None = None,
    s3: S3 | None = None,
    metastore: Metastore | None = None,
    standalone: Standalone | None = None,
) -> dict[str, str]:
    """Return `session.defaults` and what these servers need, for SparkSession.builder.config(map=...) or `write_conf`.

    Always holds the coordinates for S3 and PostgreSQL, since a JVM's packages cannot change once it runs.
    """
    base = session.defaults()
    # Delta drags in an older Hadoop client; "*" would keep hadoop-aws out too.
    excludes = base["spark.jars.excludes"].replace(_ALL_OF_HADOOP, "org.apache.hadoop:hadoop-client-*")
    settings = base | {
        "spark.jars.packages": ",".join([base["spark.jars.packages"], *jars.packages()]),
        "spark.jars.excludes": ",".join([excludes, *jars.excludes()]),
    }
    if hdfs is not None:
        settings["spark.hadoop.dfs.replication"] = "1"
    if s3 is not None:
        settings |= {
            "spark.hadoop.fs.s3a.endpoint": s3.endpoint,
            "spark.hadoop.fs.s3a.endpoint.region": s3.environment["AWS_REGION"],
            "spark.hadoop.fs.s3a.access.key": s3.environment["AWS_ACCESS_KEY_ID"],
            "spark.hadoop.fs.s3a.secret.key": s3.environment["AWS_SECRET_ACCESS_KEY"],
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        }
    if metastore is not None:
        settings |= {
            "spark.sql.catalogImplementation": "hive",
            "spark.hadoop.hive.metastore.uris": metastore.url,
            "spark.sql.warehouse.dir": metastore.warehouse,
        }
    if standalone is not None:
        settings |= {
            "spark.master": standalone.url,
            "spark.authenticate": "true",
            "spark.authenticate.secret": standalone.secret,
            # The default takes every slot of the cluster, and the next application waits.
            "spark.cores.max": "2",
            "spark.executor.memory": "1g",
        }
    return settings


def environment(
    *,
    hdfs: Hdfs | None = None,
    s3: S3 | None = None,
    metastore: Metastore | None = None,
    postgres: Postgres | None = None,
) -> dict[str, str]:
    """Return the variables that a process must have before it uses these servers, and their addresses for notebooks."""
    addresses = {"HDFS_URL": hdfs, "S3_URL": s3, "METASTORE_URL": metastore, "POSTGRES_URL": postgres}
    return {
        **{name: server.url for name, server in addresses.items() if server},
        **(s3.environment if s3 else {}),
        **(postgres.environment if postgres else {}),
    }


def write_conf(folder: Path, settings: Mapping[str, str]) -> None:
    """Make `folder` a SPARK_CONF_DIR with these settings, for spark-submit; readable for its owner only (secrets)."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "spark-defaults.conf"
    file.touch(mode=0o600)
    file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
