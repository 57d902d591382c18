"""Networks run piece by piece: memory is bounded, and no bit depends on the pieces."""

import numpy as np
import pytest
import torch

from mlspark.engines import eager
from mlspark.features.tensors import Tensors
from mlspark.models.model import Model
from mlspark.models.tabm import TabmSettings
from mlspark.models.tabular import TabularSettings

from .networks import DENSE, IDS, files, rows


@pytest.mark.parametrize("settings", [TabularSettings(hidden=(64,)), TabmSettings(hidden=(32,), members=4)])
def test_pieces_change_no_bit_and_no_more_rows_are_run_at_once(settings: Model) -> None:
    tensors, counts = Tensors((DENSE, IDS)), []
    engine, values = eager.load(files(settings, tensors)), rows(5_001, tensors)
    with torch.inference_mode():
        padded = {
            name: torch.from_numpy(np.concatenate([value, value[-1:].repeat(7, 0)])) for name, value in values.items()
        }
        whole = engine.network(**padded).numpy()[:5_001]
    engine.network.register_forward_pre_hook(
        lambda network, args, named: counts.append(len(named["dense"])), with_kwargs=True
    )
    threads = torch.get_num_threads()
    try:
        for number, most in ((1, 512), (2, 4096)):
            torch.set_num_threads(number)
            counts.clear()
            np.testing.assert_array_equal(engine.run(values), whole)
            assert (max(counts), sum(counts)) == (most, 5_008)
    finally:
        torch.set_num_threads(threads)
