"""Trains the digit classifier that judges generated digits, and writes it into the package.

    python examples/train_digit_classifier.py --data path/to/mnist

Trains on the 60,000 digits in --data, with shifts of up to 2 pixels; the 10,000 embedded digits are held out.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wgan_kernels import training
from wgan_kernels.training._optional import optional
from wgan_kernels.training.data import Images, embedded, load, to_unit
from wgan_kernels.training.models import digit_classifier

ASSET = Path(training.__file__).parent / digit_classifier.WEIGHTS


@dataclass(frozen=True)
class Options:
    data: Path
    """Folder with the 60,000 training digits as IDX files; downloaded into it if it holds none."""
    out: Path = ASSET
    """Where the weights go (safetensors)."""
    epochs: int = 8
    """Passes over the 60,000 digits."""
    batch_size: int = 128
    """Images per step."""
    lr: float = 4e-3
    """Peak learning rate of Adam, on a one-cycle schedule."""
    seed: int = 0
    """Seed of weights, order and shifts."""


def shifted(images: torch.Tensor, reach: int = 2) -> torch.Tensor:
    """The whole batch moved by one random offset of up to ``reach`` pixels: [B, 1, 28, 28] → the same shape."""
    rows, columns = torch.randint(-reach, reach + 1, (2,)).tolist()
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (reach,) * 4, value=-1.0)
    return padded[..., reach + rows : reach + rows + height, reach + columns : reach + columns + width]


@torch.no_grad()
def accuracy(classifier: nn.Module, digits: Images) -> float:
    classifier.eval()
    right = sum(
        int((classifier(to_unit(images)).argmax(1) == labels).sum())
        for images, labels in zip(digits.images.split(1000), digits.labels.split(1000), strict=True)
    )
    return right / len(digits)


def train(options: Options) -> nn.Module:
    torch.manual_seed(options.seed)
    digits, held_out = load("mnist", options.data), embedded()
    classifier = digit_classifier.DigitClassifier().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(classifier.parameters())
    steps = len(digits) // options.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=options.epochs * steps)
    started = time.monotonic()
    for epoch in range(options.epochs):
        classifier.train()
        for index in torch.randperm(len(digits))[: steps * options.batch_size].split(options.batch_size):
            loss = nn.functional.cross_entropy(classifier(shifted(to_unit(digits.images[index]))), digits.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds = time.monotonic() - started
        print(f"epoch {epoch + 1}: loss {loss:.4f}, held-out {accuracy(classifier, held_out):.2%}, {seconds:.0f} s")
    return classifier


def main() -> None:
    options = optional("tyro", "the command line").cli(Options, description=__doc__)
    classifier = train(options)
    weights = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
    optional("safetensors.torch", "saving the classifier").save_file(weights, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
