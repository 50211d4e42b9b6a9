"""Schemas, once each, for two families of leaves: ``torch.ops.wgan_kernels`` (compiled, by device key) and
``torch.ops.wgan_kernels_triton`` (Triton launchers).

The operators exist without the compiled part and without Triton; what is missing is an implementation, and
``_dispatch.choose`` says so before one is called.
"""

import importlib

import torch

_COMPILED = "wgan_kernels"
_TRITON = "wgan_kernels_triton"
_libraries = {namespace: torch.library.Library(namespace, "DEF") for namespace in (_COMPILED, _TRITON)}


def leaves(backend):
    """The namespace whose operators are this backend's leaves."""
    return getattr(torch.ops, _TRITON if backend == "triton" else _COMPILED)


def define(schema, *, fake, stem, rule=None):
    """Defines one operator in both namespaces.

    Args:
        schema: as torch writes it, without a namespace.
        fake: (arguments) → outputs without data, for tracing.
        stem: the file in ``_triton/`` that holds a launcher of the operator's name.
        rule: (namespace) → (setup_context, backward), the derivative in terms of sibling leaves; None: there is none.
    """
    name = schema.partition("(")[0]
    for namespace, library in _libraries.items():
        library.define(schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
        torch.library.register_fake(f"{namespace}::{name}", fake, lib=library)
        if rule is not None:
            setup_context, backward = rule(getattr(torch.ops, namespace))
            torch.library.register_autograd(f"{namespace}::{name}", backward, setup_context=setup_context, lib=library)

    def launch(*args):
        return getattr(importlib.import_module(f"wgan_kernels._triton.{stem}"), name)(*args)

    for key in ("CUDA", "CPU"):  # CPU: Triton's interpreter
        _libraries[_TRITON].impl(name, launch, key)
