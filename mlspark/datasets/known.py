"""The public data sets that `mlspark fetch` knows; another one is another entry of DATA_SETS."""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file as it was published."""

    name: str
    """Path of the file below the data set's address, and below the folder that it is fetched into."""
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """Files of one address that are fetched together."""

    title: str
    """Title of the data set, for the command's list."""
    base_url: str
    """Folder on a web server, http or https."""
    files: tuple[File, ...]
    source: str
    """Citation and licence."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


DATA_SETS = {
    "adult": DataSet(
        title="UCI Adult (Census Income)",
        base_url="https://archive.ics.uci.edu/ml/machine-learning-databases/adult/",
        files=(
            File("adult.data", 3_974_305, "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
            File("adult.test", 2_003_153, "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
            File("adult.names", 5_229, "c248284c0b5de30c9e1958d6cdd168a34a654758b620e68f46aefa83fc0a576a"),
        ),
        source="Becker, B. & Kohavi, R. (1996), Adult, UCI Machine Learning Repository, doi:10.24432/C5XW20, CC BY 4.0",
    ),
}
"""Name -> data set. The name is also the folder's below the raw data."""
