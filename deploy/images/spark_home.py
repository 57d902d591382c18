"""Make the image's SPARK_HOME and its Spark settings: python spark_home.py SPARK_HOME CONF

Run while the image is built, in the folder that holds conf/: fetches jars with Spark's own Ivy, as `make setup` does.
"""

import os
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

import pyspark

PACKAGE = Path(pyspark.__file__).parent
# Hadoop puts the variables in when it opens a file: driver, executors and ranks have them from the same ConfigMap.
S3 = """
# Tables and sources in an object store; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
spark.hadoop.fs.s3a.endpoint                ${env.AWS_ENDPOINT_URL:-}
spark.hadoop.fs.s3a.endpoint.region         ${env.AWS_REGION:-us-east-1}
spark.hadoop.fs.s3a.path.style.access       true
"""


def write_settings(conf: Path, folder: Path) -> None:
    """Write the settings of `conf` for an image, which has the jars and reaches an object store, into `folder`."""
    folder.mkdir(parents=True)
    for name in ("log4j2.properties", "spark-env.sh"):  # those in conf are links to these
        shutil.copy(str(resources.files("mlspark") / "spark_conf" / name), folder)
    lines = (conf / "spark-defaults.conf").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("spark.jars.")]
    (folder / "spark-defaults.conf").write_text("\n".join(kept) + "\n" + S3)


def make_home(home: Path) -> None:
    """Make a SPARK_HOME of pyspark's files whose folders conf and work volumes can take the place of."""
    for name in ("conf", "work"):
        (home / name).mkdir(parents=True)
    for name in ("bin", "jars", "python", "sbin"):
        (home / name).symlink_to(PACKAGE / name)


def fetch_jars() -> None:
    """Add the jars of Delta, S3 and PostgreSQL to pyspark's own, and start Spark with them once."""
    from pyspark.sql import SparkSession

    from tools.cluster import settings

    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"  # a container that is built may have a host name that nobody knows
    with tempfile.TemporaryDirectory() as ivy:
        fetching = settings.spark_settings() | {"spark.jars.ivy": ivy}
        SparkSession.builder.config(map=fetching).getOrCreate().stop()
        for jar in (Path(ivy) / "jars").iterdir():
            shutil.copy(jar, PACKAGE / "jars")


if __name__ == "__main__":
    home, folder = map(Path, sys.argv[1:])
    make_home(home)
    write_settings(Path("conf"), folder)
    fetch_jars()
