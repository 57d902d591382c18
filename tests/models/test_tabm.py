"""TabM: members that share their weights, in training by themselves, in evaluation together."""

import numpy as np
import pytest
import torch

from mlspark.engines import eager
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models import build
from mlspark.models.tabm import TabmSettings
from mlspark.models.tabm_net import MembersLinear

TENSORS = Tensors(
    (TensorSpec("dense", ("age", "hours"), "float32"), TensorSpec("ids", ("job", "sex"), "int64", (9, 3)))
)
SMALL = TabmSettings(members=3, hidden=(8, 4), dropout=0.0)


def batch(rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randint(n, (rows,), generator=generator) for n in TENSORS.cardinalities], dim=1)
    return {"dense": torch.randn(rows, TENSORS.num_dense, generator=generator), "ids": ids}


def test_layer_is_a_plain_one_for_each_member() -> None:
    layer = MembersLinear(3, 5, 4, is_first=True)
    values = torch.randn(7, 1, 5)
    assert set(layer.input_scale.unique().tolist()) <= {-1.0, 1.0}
    for member in range(3):
        own = (values[:, 0] * layer.input_scale[member]) @ layer.weight * layer.output_scale[member] + layer.bias[
            member
        ]
        torch.testing.assert_close(layer(values)[:, member], own)


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_training_gives_each_member_s_outputs_and_evaluation_their_mean(num_outputs: int) -> None:
    model = build(SMALL, TENSORS, num_outputs)
    of_members = model.train()(**batch(5))
    assert of_members.shape == (5, 3, num_outputs)
    assert (of_members.std(1) > 0).all()
    torch.testing.assert_close(model.eval()(**batch(5)), of_members.mean(1))


def test_a_row_s_outputs_are_the_same_bits_whatever_stands_beside_it() -> None:
    torch.manual_seed(3)
    settings = TabmSettings(members=5, hidden=(32, 24))
    model = build(settings, TENSORS, 2)
    engine = eager.load(eager.pack(settings, TENSORS, 2, model.state_dict()))
    rows = {name: tensor.numpy() for name, tensor in batch(200).items()}
    together = engine.run(rows)
    alone = np.concatenate([engine.run({name: value[i : i + 1] for name, value in rows.items()}) for i in range(200)])
    np.testing.assert_array_equal(together.view(np.uint32), alone.view(np.uint32))
