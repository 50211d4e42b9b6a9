"""Which judge knows a kind of data."""

from ..data import Images, Toy
from ..errors import UsageError
from .digits import DigitJudge
from .images import ImageJudge
from .toys import ToyJudge


def judge_of(data: Images | Toy, dataset: str, labels: tuple[int, ...]) -> DigitJudge | ImageJudge | ToyJudge:
    """The judge of samples that are to be like ``data``, which is on the samples' device.

    dataset: its name; MNIST has a classifier of its own. labels: the classes that ``data`` holds.
    Raises UsageError where there are too few images to compare with.
    """
    if isinstance(data, Toy):
        return ToyJudge(data)
    if len(data) < 2:
        raise UsageError(f"--data, --digits: {len(data)} images are too few to judge samples by; take at least two")
    return DigitJudge(data, labels) if dataset == "mnist" else ImageJudge(data)
