"""A thin trainer over the public API: what a user of ``wgan_kernels`` would write.

Read in this order: ``config`` (the flags), ``trainer`` (one iteration), ``run`` (the loop and its files).
Nothing else in the package imports this one; its dependencies come with ``pip install "wgan-kernels[train]"``.
"""
