"""What Python takes of a short job besides the work: compiling Spark's part of it, looking for garbage. Runs anywhere."""

import atexit
import gc
import sys
from pathlib import Path

_NEW_OBJECTS = 50_000
"""New lists, dicts, objects and the like after which Python looks for garbage; by itself it does so after 700."""


def collect_seldom() -> None:
    """Look for cycles of garbage seldom, and not at the end, when Python would go through all that torch and MLflow keep.

    A command that imports both is up to a second sooner at its work, and ends within .2 s in place of 1.5.
    """
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def prefer_installed_spark() -> None:
    """Have the installed pyspark imported in place of the archive of the same files within it; before it is imported.

    spark-submit has Python look into the archive first, which holds no compiled files: half a second at every start. The
    archive of a Spark that is not the installed one stays.
    """
    for entry in [entry for entry in sys.path if entry.endswith(".zip")]:
        archive = Path(entry)
        if archive.parts[-4:-1] != ("pyspark", "python", "lib"):
            continue
        installed = archive.parents[3]
        name = archive.name.partition("-")[0].removesuffix(".zip")
        if str(installed) in sys.path and (installed / name).is_dir():
            sys.path.remove(entry)
