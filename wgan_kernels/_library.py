"""Schemas, once each, for two families of leaves: ``torch.ops.wgan_kernels`` (compiled, by device key) and
``torch.ops.wgan_kernels_triton`` (Triton launchers).

The operators exist without the compiled part and without Triton; what is missing is an implementation, and
``_dispatch.choose`` says so before one is called.
"""

import importlib
import types

import torch
from torch.autograd import forward_ad

_COMPILED = "wgan_kernels"
_TRITON = "wgan_kernels_triton"
_libraries = {namespace: torch.library.Library(namespace, "DEF") for namespace in (_COMPILED, _TRITON)}
_leaves = {namespace: types.SimpleNamespace() for namespace in _libraries}


def leaves(backend):
    """This backend's leaves: a namespace of differentiable functions, one for each operator, of its name."""
    return _leaves[_TRITON if backend == "triton" else _COMPILED]


def operators(backend):
    """The operators behind the leaves."""
    return getattr(torch.ops, _TRITON if backend == "triton" else _COMPILED)


def define(schema, *, fake, stem, rule=None):
    """Defines one operator in both namespaces.

    Args:
        schema: as torch writes it, without a namespace.
        fake: (arguments) → outputs without data, for tracing.
        stem: the file in ``_triton/`` that holds a launcher of the operator's name.
        rule: (leaves) → (setup_context, backward), the derivative in terms of sibling leaves; None: there is none.
    """
    name = schema.partition("(")[0]
    for namespace, library in _libraries.items():
        _define(namespace, schema, name, fake)
        operator = getattr(getattr(torch.ops, namespace), name).default
        leaf = operator
        if rule is not None:
            setup_context, backward = rule(_leaves[namespace])
            torch.library.register_autograd(f"{namespace}::{name}", backward, setup_context=setup_context, lib=library)
            leaf = _differentiable(name, operator, setup_context, backward)
        setattr(_leaves[namespace], name, leaf)

    def launch(*args):
        return getattr(importlib.import_module(f"wgan_kernels._triton.{stem}"), name)(*args)

    for key in ("CUDA", "CPU"):  # CPU: Triton's interpreter
        _libraries[_TRITON].impl(name, launch, key)


def define_compiled(schema, *, fake):
    """Defines an operator that only the compiled part has, where others have a kernel of their own."""
    _define(_COMPILED, schema, schema.partition("(")[0], fake)


def _define(namespace, schema, name, fake):
    library = _libraries[namespace]
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
    torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)


def _differentiable(name, operator, setup_context, backward):
    """The operator as eager mode and torch.func reach it; the rule registered with it serves the rest, torch.compile.

    Eager mode goes through an autograd.Function of the same rule: by the dispatcher, forward and backward cost about
    25 µs more, which is more than a small kernel. torch.func asks for a Function of the other form, slower to call.
    """

    def below_autograd(*args):
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*args)

    def forward(ctx, *args):
        output = below_autograd(*args)
        setup_context(ctx, args, output)
        return output

    def function(**members):
        members = {key: staticmethod(member) for key, member in members.items()}
        return type(name, (torch.autograd.Function,), members).apply

    eager = function(forward=forward, backward=backward)
    transformed = function(forward=below_autograd, setup_context=setup_context, backward=backward)

    def leaf(*args):
        if torch.compiler.is_compiling():
            return operator(*args)
        if torch._C._are_functorch_transforms_active():
            return transformed(*args)
        recorded = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        return eager(*args) if recorded or forward_ad._current_level >= 0 else below_autograd(*args)

    return leaf
