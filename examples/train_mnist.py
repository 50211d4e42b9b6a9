"""Digits from noise: trains a Wasserstein GAN on MNIST and writes pictures, curves, metrics and checkpoints.

    python examples/train_mnist.py --method wgan-gp --out runs/mnist-wgan-gp
    python examples/train_mnist.py --method wgan --digits 3 --out runs/threes
    python examples/train_mnist.py --preset s3-wgan-gp --out runs/s3-wgan-gp
    python examples/train_mnist.py --out runs/mnist-wgan-gp --resume --iterations 5000

Needs ``pip install "wgan-kernels[train]"``; no network, no GPU. One iteration is in wgan_kernels/training/trainer.py.
"""

import os
import sys

# Before torch loads its OpenMP: threads that wait spin for some 10 µs, then leave their core to whoever needs it. An
# iteration on two cores takes 130 ms so and 145 without spinning, beside a process that takes one of them 235 and 224;
# with the default, which spins 300 times as long, there it took up to 7 times as long.
os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"} | os.environ

from wgan_kernels.training.cli import main

if __name__ == "__main__":
    sys.exit(main(dataset="mnist"))
