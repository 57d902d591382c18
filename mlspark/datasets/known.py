"""The public data sets that `mlspark fetch` knows; another one is another entry of DATA_SETS."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlspark.datasets import cifar10


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
    make: Callable[[Path], list[str]] | None = None
    """Function that makes of the files in a folder what sources can read, and returns the names of what it made; files that
    it made before are left alone. None: the files are read as they were published."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


_IMAGES, _LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
_TEST_IMAGES, _TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"

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
    "mnist": DataSet(
        title="MNIST: 70,000 handwritten digits, 28 x 28, grey",
        base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        files=(
            File(_IMAGES, 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            File(_LABELS, 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            File(_TEST_IMAGES, 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            File(_TEST_LABELS, 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        source="LeCun, Y., Cortes, C. & Burges, C. (1998), The MNIST database of handwritten digits, CC BY-SA 3.0",
    ),
    "fashion-mnist": DataSet(
        title="Fashion-MNIST: 70,000 articles of clothing, 28 x 28, grey",
        base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files=(
            File(_IMAGES, 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            File(_LABELS, 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            File(_TEST_IMAGES, 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            File(_TEST_LABELS, 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        source="Xiao, H., Rasul, K. & Vollgraf, R. (2017), Fashion-MNIST, arXiv:1708.07747, MIT",
    ),
    "cifar10": DataSet(
        title="CIFAR-10: 60,000 photographs of 10 classes, 32 x 32, in colours",
        base_url="https://www.cs.toronto.edu/~kriz/",
        files=(File(cifar10.ARCHIVE, 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),),
        source="Krizhevsky, A. (2009), Learning Multiple Layers of Features from Tiny Images, licence not stated",
        make=cifar10.write_zips,
    ),
}
"""Name -> data set. The name is also the folder's below the raw data."""
