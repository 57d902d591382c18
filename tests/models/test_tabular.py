import pytest
import torch

from mlspark.config import ModelSettings
from mlspark.features.layout import Layout
from mlspark.models import weights
from mlspark.models.build import build
from mlspark.models.tabular import TabularNet, embedding_dim

LAYOUT = Layout(dense=("age", "hours"), categorical=("job", "sex"), cardinalities=(9, 3))


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    categorical = torch.stack([torch.randint(n, (rows,), generator=generator) for n in LAYOUT.cardinalities], dim=1)
    return torch.randn(rows, len(LAYOUT.dense), generator=generator), categorical


def test_gives_one_float32_logit_per_row() -> None:
    logits = build(ModelSettings(), LAYOUT)(*batch(5))
    assert logits.shape == (5,)
    assert logits.dtype == torch.float32


def test_logit_of_a_row_depends_on_no_other_row() -> None:
    model = build(ModelSettings(), LAYOUT).eval()
    dense, categorical = batch(64)
    one_by_one = torch.cat([model(dense[i : i + 1], categorical[i : i + 1]) for i in range(64)])
    torch.testing.assert_close(model(dense, categorical), one_by_one, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("num_dense", "cardinalities"), [(2, ()), (0, (9, 3)), (1, (2,))])
@pytest.mark.parametrize("frequencies", [0, 4])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_needs_neither_dense_nor_categorical_columns(
    num_dense: int, cardinalities: tuple[int, ...], frequencies: int, hidden: tuple[int, ...]
) -> None:
    model = TabularNet(
        num_dense, cardinalities, hidden=hidden, embedding_dim_max=4, dropout=0.0, dense_frequencies=frequencies
    )
    logits = model(torch.ones(3, num_dense), torch.zeros(3, len(cardinalities), dtype=torch.int64))
    assert logits.shape == (3,)


def test_embeddings_grow_with_the_vocabulary_up_to_the_cap() -> None:
    assert [embedding_dim(n, 16) for n in (2, 3, 9, 44, 10_000)] == [2, 3, 5, 13, 16]


def test_unknown_id_is_refused() -> None:
    dense, categorical = batch(2)
    categorical[1, 0] = 9
    with pytest.raises(IndexError):
        build(ModelSettings(), LAYOUT)(dense, categorical)


def test_weights_survive_their_file_bit_for_bit() -> None:
    torch.manual_seed(0)
    model, other = build(ModelSettings(), LAYOUT).eval(), build(ModelSettings(), LAYOUT).eval()
    assert not torch.equal(model(*batch(5)), other(*batch(5)))
    content = weights.to_bytes(model.state_dict())
    other.load_state_dict(weights.from_bytes(content))
    assert torch.equal(model(*batch(5)), other(*batch(5)))
    assert weights.to_bytes(other.state_dict()) == content
