import pytest
import torch

from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models import build, weights
from mlspark.models.tabular import TabularSettings
from mlspark.models.tabular_net import TabularNet, embedding_dim

TENSORS = Tensors(
    (TensorSpec("dense", ("age", "hours"), "float32"), TensorSpec("ids", ("job", "sex"), "int64", (9, 3)))
)


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randint(n, (rows,), generator=generator) for n in TENSORS.cardinalities], dim=1)
    return torch.randn(rows, TENSORS.num_dense, generator=generator), ids


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_gives_float32_outputs_of_each_row(num_outputs: int) -> None:
    outputs = build(TabularSettings(), TENSORS, num_outputs)(*batch(5))
    assert outputs.shape == (5, num_outputs)
    assert outputs.dtype == torch.float32


def test_outputs_of_a_row_depends_on_no_other_row() -> None:
    model = build(TabularSettings(), TENSORS, 1).eval()
    dense, ids = batch(64)
    one_by_one = torch.cat([model(dense[i : i + 1], ids[i : i + 1]) for i in range(64)])
    torch.testing.assert_close(model(dense, ids), one_by_one, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("num_dense", "cardinalities"), [(2, ()), (0, (9, 3)), (1, (2,))])
@pytest.mark.parametrize("frequencies", [0, 4])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_needs_neither_dense_nor_ids_columns(
    num_dense: int, cardinalities: tuple[int, ...], frequencies: int, hidden: tuple[int, ...]
) -> None:
    model = TabularNet(
        num_dense, cardinalities, num_outputs=2, hidden=hidden, embedding_dim_max=4, dropout=0.0,
        dense_frequencies=frequencies, dense_embedding_dim=8, dense_scale=8.0,
    )  # fmt: skip
    outputs = model(
        torch.ones(3, num_dense) if num_dense else None,
        torch.zeros(3, len(cardinalities), dtype=torch.int64) if cardinalities else None,
    )
    assert outputs.shape == (3, 2)


def test_embeddings_grow_with_the_vocabulary_up_to_the_cap() -> None:
    assert [embedding_dim(n, 16) for n in (2, 3, 9, 44, 10_000)] == [2, 3, 5, 13, 16]


def test_unknown_id_is_refused() -> None:
    dense, ids = batch(2)
    ids[1, 0] = 9
    with pytest.raises(IndexError):
        build(TabularSettings(), TENSORS, 1)(dense, ids)


def test_weights_survive_their_file_bit_for_bit() -> None:
    torch.manual_seed(0)
    model, other = build(TabularSettings(), TENSORS, 1).eval(), build(TabularSettings(), TENSORS, 1).eval()
    assert not torch.equal(model(*batch(5)), other(*batch(5)))
    content = weights.to_bytes(model.state_dict())
    other.load_state_dict(weights.from_bytes(content))
    assert torch.equal(model(*batch(5)), other(*batch(5)))
    assert weights.to_bytes(other.state_dict()) == content
