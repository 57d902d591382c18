"""The loaders people use, on the same pictures; benchmarks/pictures.py starts it, in the environment that has the loader.

python _picture_loaders.py imagefolder|webdataset|mds FOLDER large|small
Reads numbers of workers, line by line; prints [seconds, processor seconds] of an epoch with so many.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

sys.path.pop(0)  # this folder, whose streaming.py is not MosaicML's
warnings.simplefilter("ignore")  # more workers than cores are tried, too

import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchvision.io import ImageReadMode, decode_jpeg  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

_BATCH = 128
name, folder, kind = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
crop = v2.RandomResizedCrop(224) if kind == "large" else v2.RandomCrop(32, padding=4)
change = v2.Compose([crop, v2.RandomHorizontalFlip()])


def decoded(file):
    return change(decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB))


def imagefolder(workers):
    from torchvision.datasets import ImageFolder

    files = ImageFolder(str(folder / "folders"), transform=v2.Compose([change, v2.PILToTensor()]))
    return DataLoader(files, _BATCH, shuffle=True, num_workers=workers)


def webdataset(workers):
    import webdataset as wds

    shards = sorted(map(str, (folder / "tars").glob("*.tar")))
    samples = wds.WebDataset(shards, shardshuffle=100, empty_check=False).shuffle(1000).to_tuple("jpg", "cls")
    batches = samples.map_tuple(decoded, int).batched(_BATCH)
    return wds.WebLoader(batches, batch_size=None, num_workers=workers)


def mds(workers):
    from streaming import MDSWriter, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    place = folder / "mds"
    if not place.exists():
        with MDSWriter(out=str(place), columns={"jpg": "bytes", "label": "int"}) as out:
            for file in sorted((folder / "folders").glob("*/*.jpg")):
                out.write({"jpg": file.read_bytes(), "label": int(file.parent.name[-1])})

    class Pictures(StreamingDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return decoded(sample["jpg"]), sample["label"]

    clean_stale_shared_memory()
    return DataLoader(Pictures(local=str(place), shuffle=True, batch_size=_BATCH), _BATCH, num_workers=workers)


def cpu_seconds():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever else prints
print("ready", file=answers, flush=True)
for line in sys.stdin:
    loader = {"imagefolder": imagefolder, "webdataset": webdataset, "mds": mds}[name](int(line))
    started, cpu = time.perf_counter(), cpu_seconds()
    seen = sum(len(batch[0]) for batch in loader)
    seconds = time.perf_counter() - started
    del loader
    print(json.dumps([seconds, cpu_seconds() - cpu]), file=answers, flush=True)
    assert seen == len(list((folder / "folders").glob("*/*.jpg"))), seen
