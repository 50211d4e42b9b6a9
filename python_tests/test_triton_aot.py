"""Every Triton kernel compiles for the GPUs it is meant for, without one: with 16-byte accesses and without spills.

The launchers are called on CPU tensors in a process of its own, outside the interpreter, with Triton's launch replaced
by a note of what it was given; so what is compiled is what would be launched. Nothing runs.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

DTYPES = ("float64", "float32", "float16", "bfloat16")
ARCHITECTURES = (80, 90, 100)
# One divides by 16 bytes in every dtype, the other in none and leaves several rows to a program. The other changes the
# addresses alone, so one architecture shows it, and the test stays short.
WIDTHS = {"wide": 4096, "odd": 33}
ODD_ARCHITECTURE = 90
# Kernels that stream through memory, and whether they also write as much as they read.
STREAMING = {
    "adam_kernel": True,
    "clip_kernel": True,
    "interpolate_bwd_kernel": True,
    "interpolate_fwd_kernel": True,
    "interpolate_random_kernel": True,
    "layer_norm_bwd_bwd_kernel": True,
    "layer_norm_bwd_kernel": True,
    "layer_norm_fwd_kernel": True,
    "layer_norm_weights_kernel": False,
    "norm_penalty_bwd_kernel": True,
    "rmsprop_kernel": True,
    "square_sum_kernel": False,
}
# Those of them whose programs find out at run time whether their memory is aligned.
ASKING = {"adam_kernel", "clip_kernel", "rmsprop_kernel"}


def launch_everything(dtype, width):
    """One representative call, at least, of every launcher: the place to add a new one."""
    import torch

    from wgan_kernels._triton import _written, adam, clip, interpolate, layer_norm, norm_penalty, rmsprop, wasserstein

    compute = torch.float64 if dtype is torch.float64 else torch.float32
    x, scalar, per_sample = (
        torch.zeros(4, width, dtype=dtype),
        torch.zeros((), dtype=dtype),
        torch.zeros(4, dtype=compute),
    )
    per_row = torch.zeros(width, dtype=dtype)
    many, few = torch.zeros(20_000, dtype=dtype), torch.zeros(4, dtype=dtype)
    step, number = torch.zeros(()), torch.zeros((), dtype=torch.float64)
    for lists, scalars in (([x], (step, number, step)), ([], (None, None, None))):
        rmsprop.rmsprop_(
            [x], [x], [x], lists, lists, [step], *scalars, 0.1, 0.9, 1e-8, 0.1, float(bool(lists)), 1.0, True
        )
        adam.adam_([x], [x], [x], [x], [step], *scalars, 0.1, 0.0, 0.9, 1e-8, 0.1, 1.0, True)
    clip.clip_([x], -0.1, 0.1)
    _written.written([0], x.device)
    interpolate.interpolate_fwd(x, x, per_sample)
    interpolate.interpolate_bwd(x, per_sample)
    interpolate.interpolate_random(x, x, 0, 0)
    for w, b, asked in ((per_row, per_row, True), (None, None, False)):
        layer_norm.layer_norm_fwd(x, w, b, width, 1, asked, 1e-5)
        layer_norm.layer_norm_bwd(x, x, w, per_sample, per_sample, width, 1, asked, True, asked)
        layer_norm.layer_norm_bwd_bwd(x, x, x, w, per_sample, per_sample, width, 1, asked, True, True, asked)
    for reduction, penalty_grad in enumerate((few, scalar, scalar)):
        norm_penalty.norm_penalty_fwd(x, 1.0, reduction == 0, reduction)
        norm_penalty.norm_penalty_bwd(penalty_grad, x, per_sample, 1.0, reduction == 0, reduction)
    wasserstein.wasserstein_fwd(many, few, scalar, 10.0)
    wasserstein.wasserstein_fwd(few, None, None, 0.0)
    wasserstein.wasserstein_bwd(scalar, 4, 4, 10.0)


def compile_everything(architecture):
    """{"kernels": names of all there are, "compiled": [what the tests look at, …]}; run outside pytest."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    import wgan_kernels._triton

    launches = []

    def note(self, *args, grid, warmup, **kwargs):
        names = [param.name for param in self.params]
        launches.append((self, dict(zip(names, args, strict=False)) | kwargs))

    JITFunction.run = note
    compiled = []
    for dtype in DTYPES:
        for form, width in WIDTHS.items():
            if form == "odd" and architecture != ODD_ARCHITECTURE:
                continue
            launches.clear()
            launch_everything(getattr(torch, dtype), width)
            for kernel, arguments in launches:
                image = triton.compile(source(kernel, arguments), target=GPUTarget("cuda", architecture, 32))
                compiled.append(
                    {
                        "kernel": kernel.__name__,
                        "dtype": dtype,
                        "form": form,
                        "load": widest_access("ld", image.asm["ptx"]),
                        "store": widest_access("st", image.asm["ptx"]),
                        "spilled": spilled_bytes(image, architecture),
                        "atomics": re.findall(r"bar\.sync|\b(?:atom|red)\.global\S*", image.asm["ptx"]),
                    }
                )
    kernels = set()
    for path in pathlib.Path(wgan_kernels._triton.__file__).parent.glob("*.py"):
        module = __import__(f"wgan_kernels._triton.{path.stem}", fromlist=["_"])
        functions = (value for value in vars(module).values() if isinstance(value, JITFunction))
        kernels |= {f.__name__ for f in functions if f.__name__.endswith("_kernel") or f.do_not_specialize}
    return {"kernels": sorted(kernels), "compiled": compiled}


def source(kernel, arguments):
    """What triton.compile takes for such a launch: types from annotations, alignment from addresses."""
    import torch
    from triton.compiler import ASTSource

    types = {
        torch.float64: "fp64",
        torch.float32: "fp32",
        torch.float16: "fp16",
        torch.bfloat16: "bf16",
        torch.int64: "i64",
    }
    signature, constants, attributes = {}, {}, {}
    for i, param in enumerate(kernel.params):
        value = arguments.pop(param.name)
        if param.is_constexpr or value is None:
            signature[param.name] = "constexpr"
            constants[i,] = value
        elif isinstance(value, torch.Tensor):
            signature[param.name] = "*" + types[value.dtype]
            if value.data_ptr() % 16 == 0:
                attributes[i,] = [["tt.divisibility", 16]]
        else:
            signature[param.name] = param.annotation_type
            assert param.annotation_type, f"{kernel.__name__}: {param.name} has no type"
    assert not arguments, f"launch options that this test would lose: {arguments}"
    return ASTSource(kernel, signature, constants, attributes)


def widest_access(kind, ptx):
    """In bytes, over the accesses to global memory."""
    accesses = re.findall(rf"\b{kind}\.global(?:\.[a-zA-Z]\S*)??(?:\.v(\d))?\.[a-z](\d+) ", ptx)
    return max((int(count or 1) * int(bits) // 8 for count, bits in accesses), default=0)


def spilled_bytes(image, architecture):
    """Of registers, to local memory, per thread.

    ptxas is asked only where there is local memory at all: the slow path of its float64 division may take some bytes.
    """
    import tempfile

    import triton
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.TemporaryDirectory() as folder:
        cubin, ptx = (pathlib.Path(folder, name) for name in ("kernel.cubin", "kernel.ptx"))
        cubin.write_bytes(image.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", cubin]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        if not any(int(count) for count in re.findall(r"(?:STACK|LOCAL):(\d+)", usage)):
            return 0
        ptx.write_text(image.asm["ptx"])
        target = re.search(r"\.target (\w+)", image.asm["ptx"])[1]
        command = [get_ptxas(architecture).path, "-v", f"-arch={target}", ptx, "-o", cubin]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return sum(int(count) for count in re.findall(r"(\d+) bytes spill", usage))


@pytest.fixture(scope="module")
def reports():
    """{architecture: what compile_everything returned}."""
    pytest.importorskip("triton")
    import wgan_kernels

    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join(
        [str(pathlib.Path(wgan_kernels.__file__).parents[1]), env.get("PYTHONPATH", "")]
    )
    env["OMP_NUM_THREADS"] = "1"
    processes = {
        architecture: subprocess.Popen(
            [sys.executable, __file__, str(architecture)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for architecture in ARCHITECTURES
    }
    outputs = {architecture: process.communicate() for architecture, process in processes.items()}
    for architecture, process in processes.items():
        assert process.returncode == 0, f"sm_{architecture}:\n{outputs[architecture][1][-4000:]}"
    return {architecture: json.loads(out) for architecture, (out, _) in outputs.items()}


@pytest.fixture(params=ARCHITECTURES, ids=lambda architecture: f"sm_{architecture}")
def report(request, reports):
    return reports[request.param]


def test_every_kernel_compiles_in_every_dtype(report):
    compiled = {(entry["kernel"], entry["dtype"]) for entry in report["compiled"]}
    assert report["kernels"]
    assert compiled == {(kernel, dtype) for kernel in report["kernels"] for dtype in DTYPES}


def test_streams_sixteen_bytes_at_a_time(report):
    assert set(STREAMING) <= set(report["kernels"])
    narrow = [
        entry
        for entry in report["compiled"]
        if entry["form"] == "wide"
        and entry["kernel"] in STREAMING
        and (entry["load"] < 16 or (STREAMING[entry["kernel"]] and entry["store"] < 16))
    ]
    assert narrow == []


def test_odd_widths_stay_within_one_element(reports):
    """A wider access would be misaligned in every row but the first."""
    odd = [entry for entry in reports[ODD_ARCHITECTURE]["compiled"] if entry["form"] == "odd"]
    assert odd
    for entry in odd:
        if entry["kernel"] in STREAMING.keys() - ASKING:
            assert max(entry["load"], entry["store"]) <= 8, entry


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_spills_nothing(reports, architecture):
    import triton

    excused = set()
    if architecture == 80 and triton.__version__.startswith("3.6."):  # 3.9 does without
        excused = {("layer_norm_bwd_bwd_kernel", "float32", "wide")}
    spills = [entry for entry in reports[architecture]["compiled"] if entry["spilled"]]
    assert [entry for entry in spills if (entry["kernel"], entry["dtype"], entry["form"]) not in excused] == []


def test_the_only_atomic_is_an_integer_that_orders_memory(report):
    """Adam's count of programs that are done: a barrier, an addition that releases and acquires, a broadcast."""
    for entry in report["compiled"]:
        atomics = [i for i, name in enumerate(entry["atomics"]) if name != "bar.sync"]
        assert len(atomics) == (entry["kernel"] == "adam_kernel"), entry
        for i in atomics:
            assert entry["atomics"][i - 1 : i + 2] == ["bar.sync", "atom.global.gpu.acq_rel.add.u64", "bar.sync"]


if __name__ == "__main__":
    print(json.dumps(compile_everything(int(sys.argv[1]))))
