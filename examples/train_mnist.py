"""Digits from noise: trains a Wasserstein GAN on MNIST and writes pictures, curves, metrics and checkpoints.

    python examples/train_mnist.py --method wgan-gp --out runs/mnist-wgan-gp
    python examples/train_mnist.py --method wgan --digits 3 --out runs/threes
    python examples/train_mnist.py --preset s3-wgan-gp --out runs/s3-wgan-gp
    python examples/train_mnist.py --out runs/mnist-wgan-gp --resume --iterations 5000

Needs ``pip install "wgan-kernels[train]"``; no network, no GPU. One iteration is in wgan_kernels/training/trainer.py.
"""

import sys

import openmp  # noqa: F401 (before torch)

from wgan_kernels.training.cli import main

if __name__ == "__main__":
    sys.exit(main(dataset="mnist"))
