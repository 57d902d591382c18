"""Equal bits are asked of torch without its compiler, which is imported for models that need it alone."""

import os
import subprocess
import sys

import pytest


def printed(code: str) -> str:
    """Return what a Python of its own prints, in an environment that no training of this process has set up."""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_DETERMINISTIC"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True).stdout


def test_compiler_is_not_imported() -> None:
    code = """
import sys, torch
from mlspark.training.randomness import set_up_torch
set_up_torch(1, deterministic=True)
print(torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
print("torch._inductor" in sys.modules, "torch._dynamo" in sys.modules)
"""
    assert printed(code) == "True False\nFalse False\n"


@pytest.mark.parametrize("is_deterministic", [True, False])
@pytest.mark.parametrize("is_imported_before", [True, False])
def test_compiler_makes_equal_bits_too(is_deterministic: bool, is_imported_before: bool) -> None:
    code = f"""
import torch
from mlspark.training.randomness import set_up_torch
if {is_imported_before}:
    import torch._inductor.config
set_up_torch(1, deterministic={is_deterministic})
import torch._inductor.config
print(torch._inductor.config.deterministic)
"""
    assert printed(code) == f"{is_deterministic}\n"
