"""Jars beside those of pyspark and Delta, of the versions that fit them; fetched with Spark's own Ivy, once."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tools.cluster.process import SPARK_HOME, SPARK_JARS, ClusterError

_AWS_SDK = {"3.4": "2.24.8", "3.5": "2.35.4"}
"""Version of the AWS SDK that hadoop-aws of this Hadoop was built with."""
_POSTGRESQL = "org.postgresql:postgresql:42.7.8"
_JUNIT = {"3.4": "junit:junit:4.13.2", "3.5": "org.junit.jupiter:junit-jupiter-api:5.12.2"}
"""MiniDFSClusterManager calls JUnit's assertions, and does not name JUnit among its dependencies."""
_MINICLUSTER_PREFIXES = (
    "org.apache.hadoop_hadoop-client-minicluster",
    "junit_junit",
    "org.hamcrest_",
    "org.junit.",
    "org.opentest4j_",
)


def hadoop_version() -> str:
    """Return the version of the Hadoop client that pyspark brings, "3.5.0"."""
    names = " ".join(path.name for path in SPARK_JARS.glob("hadoop-client-api-*.jar"))
    match = re.search(r"hadoop-client-api-([\d.]+)\.jar", names)
    if match is None:
        raise ClusterError(f"{SPARK_JARS}: no hadoop-client-api jar; install pyspark from its package")
    return match.group(1)


def packages() -> list[str]:
    """Return the coordinates that s3a: and jdbc:postgresql: need, for spark.jars.packages.

    Only the modules of the AWS SDK that S3A uses: 9 MB, where the bundle that hadoop-aws asks for has 558.
    """
    version = hadoop_version()
    sdk = _AWS_SDK[_minor(version)]
    modules = ("s3", "s3-transfer-manager", "sts", "apache-client", "netty-nio-client")
    return [
        f"org.apache.hadoop:hadoop-aws:{version}",
        *(f"software.amazon.awssdk:{module}:{sdk}" for module in modules),
        _POSTGRESQL,
    ]


def excludes() -> list[str]:
    """Return dependencies of `packages` that pyspark has or that are not needed, for spark.jars.excludes."""
    return ["software.amazon.awssdk:bundle", "io.netty:*", "commons-codec:*", "commons-logging:*"]


def minicluster() -> list[Path]:
    """Return the jars of Hadoop's mini cluster, without those of pyspark; the first time fetches them (40-56 MB).

    Raises:
        ClusterError: they could not be fetched.
    """
    version = hadoop_version()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlspark" / f"minicluster-{version}"
    if not cache.exists():
        # Under another name until it is whole: an interrupted fetch is not taken for jars.
        partial = cache.with_name(f"{cache.name}.{os.getpid()}")
        try:
            _fetch([f"org.apache.hadoop:hadoop-client-minicluster:{version}", _JUNIT[_minor(version)]], partial)
            if not cache.exists():
                (partial / "jars").rename(cache)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return [jar for jar in sorted(cache.glob("*.jar")) if jar.name.startswith(_MINICLUSTER_PREFIXES)]


def _minor(version: str) -> str:
    minor = ".".join(version.split(".")[:2])
    if minor not in _AWS_SDK:
        raise ClusterError(f"pyspark brings Hadoop {version}; known here: {', '.join(_AWS_SDK)}")
    return minor


def _fetch(coordinates: list[str], ivy: Path) -> None:
    """Resolve into `ivy`/jars. Starts spark-submit, which resolves before it runs the class; no Spark job."""
    command = [
        str(SPARK_HOME / "bin" / "spark-submit"),
        *("--conf", f"spark.jars.ivy={ivy}"),
        *("--packages", ",".join(coordinates)),
        *("--exclude-packages", "org.apache.hadoop:hadoop-client-api,org.apache.hadoop:hadoop-client-runtime"),
        *("--class", "org.apache.hadoop.util.VersionInfo", "spark-internal"),
    ]
    done = subprocess.run(  # noqa: S603 (pyspark's own)
        command, env={**os.environ, "SPARK_HOME": str(SPARK_HOME)}, capture_output=True, text=True
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and "spark-packages" not in line]
        raise ClusterError(
            f"{', '.join(coordinates)}: could not be fetched; check the network, and remove these artefacts from "
            "~/.m2/repository where only their POM is there\n" + "\n".join(lines[-15:])
        )
