"""Any preset on any data set: the systems of the source documents and of the papers, each by one command.

    python examples/train.py --preset toy --dataset 25-gaussians --iterations 5000
    python examples/train.py --preset wgan-gp-cifar10 --data path/to/cifar10
    python examples/train.py --preset s1-dcgan --dataset celeba --side 64 --data path/to/celeba
    python examples/train.py --preset s1-mlp --dataset folder --data path/to/images --side 32

The presets and what they came to are told in docs/presets.md. Writes what examples/train_mnist.py writes, whose
``--resume``, seeds and figures these runs share. Needs ``pip install "wgan-kernels[train]"``; no GPU.
"""

import sys

import openmp  # noqa: F401 (before torch)

from wgan_kernels.training.cli import main

if __name__ == "__main__":
    sys.exit(main())
