"""The container file of deploy/images: what it builds on, what it holds, and whether manifests fit it."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Template

from mlspark import credentials
from tools.deploy.confinement import is_own
from tools.deploy.manifests import Manifest, meant
from tools.deploy.pods import command, pods

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/images/Dockerfile"
HOME = "/opt/mlspark/"
"""Folder of the project in the image."""
_MADE = ("/opt/mlspark/spark-conf",)
"""What the image makes of other files."""
PROGRAMS = ("mlflow", "mlspark", "python", "spark-submit")
"""What the entry point finds on its PATH and manifests may run; files of jobs are run by Spark."""
_PINNED = re.compile(r"[^@\s]+:[\w.-]+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a container file."""

    word: str
    rest: str
    stage: int
    """Number of FROM instructions so far."""


def instructions(text: str) -> list[Instruction]:
    """Return the instructions of a container file, with continued lines joined and defaults of ARG put in."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    values: dict[str, str] = {}
    made: list[Instruction] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if not word:
            continue
        stage = (made[-1].stage if made else 0) + (word == "FROM")
        if word == "FROM":
            rest = Template(rest).safe_substitute(values)
        if word == "ARG" and "=" in rest:
            name, _, value = rest.strip().partition("=")
            values[name] = value
        made.append(Instruction(word, " ".join(rest.split()), stage))
    return made


def files(text: str) -> dict[str, str]:
    """Return path in the image -> path in the repository of what is copied into the project's folder."""
    held: dict[str, str] = {}
    folder = "/"
    for one in instructions(text):
        if one.word == "WORKDIR":
            folder = one.rest
        if one.word == "COPY" and not one.rest.startswith("--from"):
            *sources, target = one.rest.split()
            place = PurePosixPath(folder) / target
            is_folder = target.endswith("/") or len(sources) > 1
            for source in sources:
                name = place / PurePosixPath(source).name if is_folder else place
                held[str(name)] = source
    return held


def source(path: str, text: str | None = None) -> Path | None:
    """Return the repository's file or folder that stands at `path` in the image; None where there is none."""
    held = files(DOCKERFILE.read_text() if text is None else text)
    for place, own in held.items():
        if path == place or path.startswith(f"{place}/"):
            found = ROOT / own / path[len(place) :].lstrip("/")
            return found if found.exists() else None
    return None


def faults(manifests: list[Manifest]) -> Iterator[str]:
    """Yield what is wrong with the container file, and what manifests run that the image lacks."""
    text = DOCKERFILE.read_text()
    yield from (f"{DOCKERFILE.relative_to(ROOT)}: {line}" for line in of_dockerfile(text))
    user = next((one.rest for one in reversed(instructions(text)) if one.word == "USER"), "")
    for pod in pods(manifests):
        for container in pod.containers:
            if not is_own(container.get("image")):
                continue
            place = f"{pod.place}: {container['name']}"
            words = command(container)
            if words and "/" not in words[0] and words[0] not in PROGRAMS:
                yield f"{place}: {words[0]} is no program of the image" + meant(words[0], PROGRAMS)
            for word in words:
                path = word.rpartition("=")[2]
                if path.startswith(HOME) and source(path, text) is None and not path.startswith(_MADE):
                    yield f"{place}: {path} is not in the image; see COPY in deploy/images/Dockerfile"
            own = (pod.spec.get("securityContext") or {}) | (container.get("securityContext") or {})
            if str(own.get("runAsUser")) != user:
                yield f"{place}: runs as {own.get('runAsUser')}, and the image's user is {user}"


def of_dockerfile(text: str) -> Iterator[str]:
    """Yield what is wrong with a container file: base without digest, root, secrets, files that are not there."""
    made = instructions(text)
    stages = {one.rest.split(" AS ")[1] for one in made if one.word == "FROM" and " AS " in one.rest}
    for one in made:
        if one.word == "FROM":
            base = one.rest.split(" AS ")[0]
            if base not in stages and not _PINNED.fullmatch(base):
                yield f"FROM {base}: has no digest; write NAME:TAG@sha256:..."
        if one.word in ("ARG", "ENV"):
            for name, _, value in (word.partition("=") for word in shlex.split(one.rest)):
                if credentials.is_secret_name(name) or credentials.secret_in(value):
                    yield f"{one.word} {name}: would keep a secret in the image; give it to pods by secretKeyRef"
        if one.word == "COPY" and not one.rest.startswith("--from"):
            for name in one.rest.split()[:-1]:
                if not (ROOT / name).exists():
                    yield f"COPY {name}: not in the repository"
                elif not _is_sent(name):
                    yield f"COPY {name}: .dockerignore leaves it out"
                else:
                    yield from (
                        f"COPY {name}: {link} would lead nowhere in the image" for link in _links_out_of(ROOT / name)
                    )
        if one.word == "RUN" and "pip install" in one.rest and "--constraint " not in one.rest:
            yield f"RUN {one.rest[:60]}...: installs packages without the versions of constraints.txt"
    last = [one.rest for one in made if one.word == "USER" and one.stage == made[-1].stage]
    if not last or not last[-1].isdigit() or int(last[-1]) == 0:
        yield f"USER {last[-1] if last else 'root'}: needs a number other than 0, which Kubernetes can tell from root"


def _is_sent(name: str) -> bool:
    """Return whether .dockerignore, which leaves out everything first, lets the file through."""
    lines = _ignored()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    return "*" in lines and any(name == one or name.startswith(f"{one}/") for one in allowed)


def _ignored() -> list[str]:
    return (ROOT / ".dockerignore").read_text().splitlines()


def _links_out_of(folder: Path) -> Iterator[str]:
    """Yield links in a folder to what is outside of it, but for those that .dockerignore leaves out."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(ROOT))
        if path.is_symlink() and not path.resolve().is_relative_to(folder) and name not in _ignored():
            yield name
