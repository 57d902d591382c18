"""An S3 server with one bucket: moto's, in memory."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tools.cluster.process import NotInstalledError, folder_for, read_port, script, started

_BUCKET = "mlspark"


@dataclass(frozen=True)
class S3:
    """A running S3 server."""

    url: str
    """The bucket, s3a://mlspark"""
    endpoint: str
    """http://127.0.0.1:port"""
    pid: int
    log: str

    @property
    def environment(self) -> dict[str, str]:
        """What mlspark.storage, deltalake and boto3 go by; the server takes any key."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "mlspark",
            "AWS_SECRET_ACCESS_KEY": "mlspark",
        }


@contextmanager
def serve() -> Iterator[S3]:
    """Yield an S3 server with an empty bucket; up in 3 s. What it holds is in its memory.

    Raises:
        NotInstalledError: moto is missing.
        ClusterError: it did not start.
    """
    if importlib.util.find_spec("moto") is None:
        raise NotInstalledError("the S3 server is moto's, which is not installed; install mlspark[dev]")
    with folder_for("s3") as folder:
        port_file = folder / "port"
        command = [*script("s3_server.py"), port_file, _BUCKET]
        with started("s3", command, folder) as process:
            port = process.wait(lambda: read_port(port_file))
            yield S3(f"s3a://{_BUCKET}", f"http://127.0.0.1:{port}", process.pid, str(process.log))
