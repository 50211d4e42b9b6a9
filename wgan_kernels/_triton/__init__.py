"""Triton kernels and their launchers, one file per family; a launcher has the name of its operator.

They run on CUDA devices, and on the CPU in Triton's interpreter where ``TRITON_INTERPRET=1`` is set before Triton is
imported. Every scalar argument is annotated: a float would otherwise travel as float32.
"""
