"""Where a run trains and in which precision, where nothing is said."""

import pytest
import torch

from wgan_kernels.training.config import Config
from wgan_kernels.training.device import fastest_precision
from wgan_kernels.training.presets import PRESETS


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bfloat16_where_a_cpu_has_its_instructions(instructions, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True, "avx2": True}, raising=False)
    assert Config(device="cpu").resolved().precision == "bfloat16"
    assert Config(device="cpu", precision="float32").resolved().precision == "float32"
    assert fastest_precision("cuda", "joint") == "float32"
    in_turn = Config(method="wgan", critic="compact-batch-norm", device="cpu", critic_batches="in-turn")
    assert in_turn.resolved().precision == "float32"  # which knows nothing else


def test_float32_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx2": True}, raising=False)
    assert Config(device="cpu").resolved().precision == "float32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # PyTorch 2.10
    assert Config(device="cpu").resolved().precision == "float32"


def test_the_documents_are_in_float32():
    assert {preset.precision for preset in PRESETS.values()} == {"float32"}
