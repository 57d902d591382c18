import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mlspark import storage
from mlspark.training import checkpoint
from mlspark.training.checkpoint import CheckpointError

WEIGHTS = {"layer.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "layer.bias": torch.zeros(2)}
STATE = {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}}


def weights_of(found: checkpoint.Checkpoint) -> list[float]:
    return [float(value) for name in sorted(found.weights) for value in found.weights[name].flatten()]


def test_gives_back_what_was_saved(tmp_path: Path) -> None:
    uri = str(tmp_path / "best")
    checkpoint.save(uri, weights=WEIGHTS, about={"epoch": 3}, state=STATE)
    found = checkpoint.load(uri)
    assert found.weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(found.weights[name], value) for name, value in WEIGHTS.items())
    assert found.state == STATE
    assert found.about == {"epoch": 3}


def test_state_of_optimizer_and_schedule_loads_without_running_code(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    checkpoint.save(str(tmp_path), weights=layer.state_dict(), about={}, state=state)
    found = checkpoint.load(str(tmp_path)).state
    optimizer.load_state_dict(found["optimizer"])
    schedule.load_state_dict(found["schedule"])


def test_newer_checkpoint_replaces_the_older_and_its_files(tmp_path: Path) -> None:
    checkpoint.save(str(tmp_path), weights=WEIGHTS, about={"epoch": 1}, state=STATE)
    checkpoint.save(str(tmp_path), weights={"layer.bias": torch.ones(2)}, about={"epoch": 2})
    assert checkpoint.load(str(tmp_path)).about == {"epoch": 2}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_saving_the_same_again_changes_no_byte(tmp_path: Path) -> None:
    checkpoint.save(str(tmp_path), weights=WEIGHTS, about={})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoint.save(str(tmp_path), weights=WEIGHTS, about={})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_interrupted_save_leaves_the_older_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(str(tmp_path), weights=WEIGHTS, about={"epoch": 1})

    def die(uri: str, value: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(storage, "write_json", die)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(str(tmp_path), weights={"layer.bias": torch.ones(2)}, about={"epoch": 2})
    found = checkpoint.load(str(tmp_path))
    assert found.about == {"epoch": 1}
    assert weights_of(found) == [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("pattern", ["weights-*", "state-*", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_damaged_checkpoint_is_refused_by_name(tmp_path: Path, pattern: str, damage: Callable[[Path], None]) -> None:
    checkpoint.save(str(tmp_path), weights=WEIGHTS, about={}, state=STATE)
    victim = next(tmp_path.glob(pattern))
    if victim.name == "manifest.json" and damage is not Path.unlink:
        victim.write_bytes(victim.read_bytes()[: len(victim.read_bytes()) // 2])
    else:
        damage(victim)
    with pytest.raises(CheckpointError, match=f"{victim.name}.*train"):
        checkpoint.load(str(tmp_path))


@pytest.mark.parametrize("of_manifest", ["format", "about", "files", "sha256"])
def test_manifest_without_a_key_is_refused_and_an_older_checkpoint_used(tmp_path: Path, of_manifest: str) -> None:
    run = str(tmp_path)
    for step in (1, 2):
        checkpoint.save(checkpoint.step_uri(run, step), weights=WEIGHTS, about={"step": step, "identity": {}})
    manifest = Path(checkpoint.step_uri(run, 2)) / "manifest.json"
    content = json.loads(manifest.read_text())
    del content[of_manifest]
    manifest.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"manifest\.json: changed since it was written.*; delete the folder and"):
        checkpoint.load(checkpoint.step_uri(run, 2))
    older = checkpoint.newest(run, {})
    assert older is not None
    assert older.about["step"] == 1


@pytest.mark.parametrize("place", range(0, 500, 23))
def test_no_changed_byte_of_a_manifest_passes(tmp_path: Path, place: int) -> None:
    checkpoint.save(str(tmp_path), weights=WEIGHTS, about={"epoch": 3, "metrics": {"accuracy": 0.75}}, state=STATE)
    manifest = tmp_path / "manifest.json"
    content = bytearray(manifest.read_bytes())
    before = json.loads(content)
    content[place % len(content)] ^= 1
    manifest.write_bytes(bytes(content))
    try:
        checkpoint.load(str(tmp_path))
    except CheckpointError as error:
        assert "manifest.json" in str(error)  # noqa: PT017
    else:
        assert json.loads(content) == before, "a blank that means nothing"


def test_absent_checkpoint_is_an_error_that_says_so(tmp_path: Path) -> None:
    assert not checkpoint.exists(str(tmp_path / "best"))
    with pytest.raises(CheckpointError, match="no complete checkpoint here"):
        checkpoint.load(str(tmp_path / "best"))


def test_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    storage.write_sealed(str(tmp_path / "manifest.json"), {"format": 2, "about": {}, "files": {}})
    with pytest.raises(CheckpointError, match="format 2, expected 1"):
        checkpoint.load(str(tmp_path))


def test_full_disk_is_not_filled_further_and_used_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each try has written is removed, and what a killed writer left is swept."""
    uri, fsync, room = str(tmp_path / "step-0000000010"), os.fsync, [False]
    checkpoint.save(uri, weights=WEIGHTS, about={"step": 1}, state=STATE)
    leftover = tmp_path / "step-0000000010" / (".state-0123.pt." + "a" * 32)
    leftover.write_bytes(b"half")

    def full(descriptor: int) -> None:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        assert [path for path in (tmp_path / "step-0000000010").iterdir() if path.name.startswith(".")] == []
        room[0] = True

    writer = checkpoint.Writer(retry_seconds=30.0, on_trouble=tell)
    changed = {name: value + 1 for name, value in WEIGHTS.items()}
    writer.submit(lambda: checkpoint.save(uri, weights=changed, about={"step": 2}, state=STATE))
    writer.wait()
    writer.close()
    assert told[0].startswith("a checkpoint could not be written, trying again: [Errno 28] No space left on device")
    assert checkpoint.load(uri).about == {"step": 2}
    assert len(list((tmp_path / "step-0000000010").iterdir())) == 3


def test_checkpoints_that_were_not_written_to_their_end_are_swept(tmp_path: Path) -> None:
    checkpoint.save(checkpoint.step_uri(str(tmp_path), 3), weights=WEIGHTS, about={})
    for name in (
        "step-0000000003/.manifest.json." + "a" * 32,
        "step-0000000005/weights-0123.safetensors",
        "other/file",
    ):
        storage.write_bytes(str(tmp_path / name), b"half")
    checkpoint.sweep(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "step-0000000003"]
    assert checkpoint.load(checkpoint.step_uri(str(tmp_path), 3)).about == {}
