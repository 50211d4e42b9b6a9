"""`import wgan_kernels` needs torch alone: proven in processes of their own."""

import shutil
from pathlib import Path

import pytest
from processes import run_python

PACKAGE = Path(__file__).parent.parent / "wgan_kernels"

WORK = """
import torch, wgan_kernels as wk
w = torch.full((3,), 2.0)
wk.clip_([w], 1.0)
critic = torch.nn.Linear(4, 1)
real, fake = torch.randn(5, 4), torch.randn(5, 4)
penalty = wk.gradient_penalty(critic, real, fake)
(wk.critic_loss(critic(real), critic(fake), penalty) + wk.generator_loss(critic(fake))).backward()
assert w.tolist() == [1.0] * 3 and critic.weight.grad is not None
"""


def run(code, path):
    result = run_python(code, path)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def pure(tmp_path_factory):
    """A copy of the package without its compiled part."""
    path = tmp_path_factory.mktemp("pure")
    shutil.copytree(PACKAGE, path / "wgan_kernels", ignore=shutil.ignore_patterns("*.so", "__pycache__", "training"))
    return path


def test_imports_torch_alone():
    code = """
import sys, torch
before = set(sys.modules)
import wgan_kernels
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(sorted(new))
"""
    assert run(code, PACKAGE.parent).strip() == "['wgan_kernels']"


def test_works_where_every_optional_package_is_missing(pure):
    hide = """
import sys
for name in "triton numpy torchvision matplotlib rich tyro yaml safetensors PIL torchmetrics ot".split():
    sys.modules[name] = None
"""
    out = run(hide + WORK + "print(wk.backends()['clip', 'cuda'].why_not.get('triton'), wk._native.cpu)", pure)
    assert "None" in out


def test_without_the_compiled_part_the_reference_runs_and_says_why(pure):
    out = run(
        WORK + "print(wk.__file__); row = wk.backends()['clip', 'cpu']; print(row.chosen, row.why_not['cpp'])", pure
    )
    assert str(pure) in out
    assert "reference wgan_kernels was installed without its compiled part" in out


def test_without_the_compiled_part_an_explicit_request_fails(pure):
    code = """
import torch, wgan_kernels as wk
try:
    with wk.use_backend("cpp"):
        wk.interpolate(torch.ones(2, 1), torch.ones(2, 1))
except RuntimeError as error:
    print(error)
"""
    assert "without its compiled part" in run(code, pure)


def test_without_triton_the_reason_is_given():
    code = """
import sys
sys.modules["triton"] = None
import torch, wgan_kernels as wk
from wgan_kernels import _dispatch, _native
_native.why_not["cuda"] = "not built"
print(_dispatch._why_not("triton", "cuda"), _dispatch.choose("clip", torch.device("cuda"))[0])
"""
    assert run(code, PACKAGE.parent).strip() == "Triton is not installed reference"


def test_a_broken_compiled_part_is_reported(pure, tmp_path):
    shutil.copytree(pure / "wgan_kernels", tmp_path / "wgan_kernels")
    (tmp_path / "wgan_kernels" / "_cpu.abi3.so").write_bytes(b"not a library")
    out = run(WORK + "print(wk.backends()['clip', 'cpu'].why_not['cpp'])", tmp_path)
    assert "does not load here" in out
