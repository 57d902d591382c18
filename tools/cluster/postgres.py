"""A PostgreSQL server with one user and one database, from the programs of the distribution's package."""

import logging
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.process import ClusterError, NotInstalledError, folder_for, free_port, started

logger = logging.getLogger(__name__)

_USER = "mlspark"
_DATABASE = "postgres"
_DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
_NO_MAIN_CLUSTER = Path("/etc/postgresql-common/createcluster.d/mlspark.conf")
_HOW = (
    "no PostgreSQL server programs on PATH or in /usr/lib/postgresql; install them "
    "(Debian, Ubuntu: sudo apt-get install postgresql; macOS: brew install postgresql@15)"
)


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL; durable only as long as it runs."""

    url: str
    """jdbc:postgresql://127.0.0.1:port/postgres"""
    port: int
    user: str
    password: str
    pid: int
    log: str

    @property
    def environment(self) -> dict[str, str]:
        """What a source of kind jdbc goes by."""
        return {"MLSPARK_JDBC_USER": self.user, "MLSPARK_JDBC_PASSWORD": self.password}

    @property
    def options(self) -> dict[str, str]:
        """What Spark's jdbc format goes by."""
        return {"url": self.url, "user": self.user, "password": self.password, "driver": "org.postgresql.Driver"}

    def execute(self, sql: str) -> str:
        """Run SQL statements as one transaction and return what they print: a line per row, columns apart by "|".

        Raises:
            ClusterError: what the server says of them.
        """
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        address = ["--host=127.0.0.1", f"--port={self.port}", f"--username={self.user}", f"--dbname={_DATABASE}"]
        done = subprocess.run(  # noqa: S603 (the distribution's own)
            [_programs() / "psql", *options, *address, "--single-transaction", f"--command={sql}"],
            env={**os.environ, "PGPASSWORD": self.password}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise ClusterError(f"PostgreSQL: {done.stderr.strip()}")
        return done.stdout


@contextmanager
def serve() -> Iterator[Postgres]:
    """Yield an empty database; up in 3 s. Where the programs are missing, root on Debian gets them installed.

    Raises:
        NotInstalledError: the programs are missing and cannot be installed; says how to.
        ClusterError: the server did not start.
    """
    programs = _programs(install=True)
    with ExitStack() as stack:
        for is_last in (False, False, True):  # another process may take a free port before PostgreSQL does
            try:
                running = stack.enter_context(_served(programs, free_port()))
                break
            except ClusterError as error:
                if is_last or "Address already in use" not in str(error):
                    raise
        yield running


@contextmanager
def _served(programs: Path, port: int) -> Iterator[Postgres]:
    """Yield an empty database on a port, which PostgreSQL cannot choose itself."""
    password = secrets.token_hex(16)
    with folder_for("postgres") as folder:
        data = folder / "data"
        as_server = _as_server_user(folder)
        _initialise(programs, data, password, as_server)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            # Nothing outlives the server, so nothing needs to reach the disk.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        command = [*as_server, programs / "postgres", "-D", data]
        command += [f"--{name}={value}" for name, value in settings.items()]
        # SIGINT: ends sessions and stops; SIGTERM would wait for clients to leave.
        with started("postgres", command, folder, stop_signal=signal.SIGINT) as process:
            process.wait(lambda: True if _is_ready(data) else None)
            url = f"jdbc:postgresql://127.0.0.1:{port}/{_DATABASE}"
            yield Postgres(url, port, _USER, password, process.pid, str(process.log))


def _is_ready(data: Path) -> bool:
    """Return whether the server says so in its pid file, as pg_ctl looks it up."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False


def _initialise(programs: Path, data: Path, password: str, as_server: Sequence[str]) -> None:
    password_file = data.parent / "password"
    password_file.write_text(password)
    password_file.chmod(0o644)  # its folder is private to the server's user
    done = subprocess.run(  # noqa: S603 (the distribution's own)
        [
            *as_server, programs / "initdb", f"--pgdata={data}", f"--username={_USER}", "--auth=scram-sha-256",
            f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C", "--no-sync",
        ],
        cwd=data.parent, capture_output=True, text=True,
    )  # fmt: skip
    password_file.unlink()
    if done.returncode:
        raise ClusterError(f"PostgreSQL: initdb failed: {done.stderr.strip()}")


def _as_server_user(folder: Path) -> list[str]:
    """Return the command that runs another one as the server's user, who gets `folder`.

    PostgreSQL refuses to run as root; others run it themselves.
    """
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ClusterError("PostgreSQL does not run as root and setpriv is missing; run as another user")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _programs(*, install: bool = False) -> Path:
    """Return the folder that holds PostgreSQL's server programs, of the newest version there."""
    initdb = shutil.which("initdb")
    if initdb is not None:
        return Path(initdb).resolve().parent
    versions = sorted(_DEBIAN_PROGRAMS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    if install and os.geteuid() == 0 and Path("/etc/debian_version").exists():
        _install()
        return _programs()
    raise NotInstalledError(_HOW)


def _install() -> None:
    """Install the distribution's package, without the server of its own that it would make and start."""
    logger.info("installing PostgreSQL from the distribution")
    if not _NO_MAIN_CLUSTER.exists():
        _NO_MAIN_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
        _NO_MAIN_CLUSTER.write_text("create_main_cluster = false\n")
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"],
    ):
        done = subprocess.run(  # noqa: S603
            command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, capture_output=True, text=True
        )
        if done.returncode:
            raise NotInstalledError(f"{_HOW}; apt-get said: {(done.stderr.strip().splitlines() or ['nothing'])[-1]}")
