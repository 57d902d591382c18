"""What `mlspark evaluate` refuses before anything is read; its page is tested with the pipelines."""

import re
from pathlib import Path

import pytest

from mlspark.commands import evaluate
from mlspark.errors import ConfigError

CENSUS = str(Path(__file__).parents[2] / "conf" / "census.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": "12,x3"}, "--rows 12,x3: 'x3' is no row_id; give whole numbers"),
        ({"output": "/nowhere/page.html"}, "--output /nowhere/page.html: the folder does not exist"),
        ({"version": "census/x"}, "census/x: names no version; give NAME/3, NAME@alias or NAME"),
        ({"version": "other", "overrides": ['registry.alias=""']}, "other: which version? registry.alias is empty"),
    ],
)
def test_wrong_options_are_refused_by_name(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluate.run([CENSUS], **{"output": str(tmp_path / "page.html"), **options})  # type: ignore[arg-type]
