"""The settings of a session are those of conf/spark-defaults.conf."""

import pyspark
import pytest

from mlspark import session

from .conftest import ROOT


@pytest.mark.skipif(not pyspark.__version__.startswith("4.2"), reason="conf/ names the Delta jar of pyspark 4.2")
def test_defaults_without_spark_submit_are_those_of_conf() -> None:
    lines = (ROOT / "conf" / "spark-defaults.conf").read_text().splitlines()
    in_file = dict(text.split(None, 1) for text in lines if text and not text.startswith("#"))
    assert session.defaults() == in_file
