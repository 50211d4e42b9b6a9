"""wgan_kernels.training.data: images in memory; MNIST's and Fashion-MNIST's files as they are, and should not be."""

import gzip
import zlib

import pytest
import torch
from dataset_files import idx

from wgan_kernels.training import data
from wgan_kernels.training.data import mnist
from wgan_kernels.training.errors import UsageError


@pytest.fixture
def digits():
    torch.manual_seed(0)
    return torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8), torch.arange(20) % 10


def write(folder, images: bytes, labels: bytes, suffix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in ((mnist.IMAGES["train"], images), (mnist.LABELS["train"], labels)):
        (folder / f"{stem}{suffix}").write_bytes(gzip.compress(content) if suffix else content)


def test_embedded_digits_are_the_ten_thousand():
    digits = data.embedded()
    assert digits.images.shape == (10_000, 1, 28, 28)
    assert digits.images.dtype == torch.uint8
    # Both are known of MNIST's test set: the histogram of its labels and the mean of its pixels.
    assert digits.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert digits.images.float().mean().item() / 255 == pytest.approx(0.1325, abs=1e-4)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("dataset", "place"),
    [("mnist", ""), ("mnist", "MNIST/raw"), ("fashion-mnist", ""), ("fashion-mnist", "FashionMNIST/raw")],
)
def test_reads_a_folder(tmp_path, digits, suffix, dataset, place):
    images, labels = digits
    write(tmp_path / place, idx(images), idx(labels), suffix)
    loaded = data.load(dataset, tmp_path)
    assert loaded.shape == (1, 28, 28)
    assert torch.equal(loaded.images.squeeze(1), images)
    assert torch.equal(loaded.labels, labels)


@pytest.mark.parametrize("wanted", [(3,), (0, 4, 9)])
def test_only_the_digits_asked_for(digits, wanted):
    images, labels = digits
    chosen = data.Images(images.unsqueeze(1), labels).only(wanted)
    assert chosen.labels.unique().tolist() == list(wanted)
    assert len(chosen) == 2 * len(wanted)
    assert torch.equal(chosen.images[0, 0], images[wanted[0]])


def test_a_choice_of_nothing_is_refused(digits):
    images, labels = digits
    some = data.Images(images.unsqueeze(1), labels % 3)
    with pytest.raises(UsageError, match=r"--digits 7 8: none of the 20 images is one; choose from 0 1 2$"):
        some.only((8, 7))
    unlabelled = data.Images(images.unsqueeze(1), torch.zeros(20, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"--digits 3: none .*they have no labels: leave --digits out$"):
        unlabelled.only((3,))
    assert len(unlabelled.only(range(10))) == 20


def test_sampling_is_uniform_scaled_and_reproducible():
    images = torch.arange(4, dtype=torch.uint8).mul(85).reshape(4, 1, 1, 1).expand(4, 1, 28, 28)
    digits = data.Images(images, torch.arange(4))
    batch = digits.sample(4000, torch.Generator().manual_seed(0))
    assert batch.shape == (4000, 1, 28, 28)
    assert batch.dtype == torch.float32
    values, counts = batch[:, 0, 0, 0].unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([-1, -1 / 3, 1 / 3, 1]))
    assert counts.min() > 900  # 1000 expected, standard deviation 27
    assert torch.equal(batch, digits.sample(4000, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_shards_are_disjoint_and_the_whole(digits, size):
    whole = data.Images(digits[0].unsqueeze(1), torch.arange(20))
    shards = [whole.shard(rank, size) for rank in range(size)]
    assert sorted(torch.cat([shard.labels for shard in shards]).tolist()) == list(range(20))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    for shard in shards:
        assert torch.equal(shard.images, whole.images[shard.labels])


def test_fingerprints_tell_images_apart_and_not_how_they_are_stored(digits):
    images = digits[0].unsqueeze(1)
    whole = data.Images(images, digits[1])
    assert whole.fingerprint() == f"20 images, crc32 {zlib.crc32(images.numpy()):08x}"
    strided = data.Images(torch.stack([images, images], 1)[:, 0], digits[1])
    assert not strided.images.is_contiguous()
    assert strided.fingerprint() == whole.fingerprint()
    changed = images.clone()
    changed[7, 0, 3, 3] ^= 1
    others = [data.Images(changed, digits[1]), data.Images(images[1:], digits[1][1:]), whole.only((3,))]
    assert len({other.fingerprint() for other in [whole, *others]}) == 4


def test_more_shards_than_images_are_refused(digits):
    whole = data.Images(digits[0].unsqueeze(1), digits[1])
    with pytest.raises(UsageError, match="20 images are too few for 21 processes"):
        whole.shard(0, 21)


def test_another_size_of_image_is_refused(tmp_path):
    write(tmp_path, idx(torch.zeros(2, 32, 32)), idx(torch.zeros(2)))
    with pytest.raises(UsageError, match=r"\(32, 32\), expected \(28, 28\)"):
        data.load("mnist", tmp_path)


def test_different_numbers_of_images_and_labels_are_refused(tmp_path, digits):
    write(tmp_path, idx(digits[0]), idx(digits[1][:-1]))
    with pytest.raises(UsageError, match="20 images but 19 labels"):
        data.load("mnist", tmp_path)


def test_labels_beyond_nine_are_refused(tmp_path, digits):
    write(tmp_path, idx(digits[0]), idx(digits[1] + 1))
    with pytest.raises(UsageError, match="label 10 is not one of ten"):
        data.load("mnist", tmp_path)


def test_no_images_at_all_are_refused(tmp_path):
    write(tmp_path, idx(torch.zeros(0, 28, 28)), idx(torch.zeros(0)))
    with pytest.raises(UsageError, match="hold no images"):
        data.load("mnist", tmp_path)


def test_labels_missing_beside_images(tmp_path, digits):
    (tmp_path / mnist.IMAGES["train"]).write_bytes(idx(digits[0]))
    with pytest.raises(UsageError, match=r"no train-labels-idx1-ubyte or train-labels-idx1-ubyte\.gz"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda content: content[:-1], "truncated or damaged", id="one value short"),
        pytest.param(lambda content: content + b"\0", "truncated or damaged", id="one value too many"),
        pytest.param(lambda content: content[:10], "truncated inside its header", id="half a header"),
        pytest.param(lambda content: b"", "begins with nothing", id="empty"),
        pytest.param(lambda content: b"<html>" + content, "not an IDX file", id="a web page"),
        pytest.param(lambda content: b"\0\0\x0d\3" + content[4:], "not an IDX file", id="float32 values"),
        pytest.param(lambda content: b"\0\0\x08\1" + content[4:], "not an IDX file", id="labels for images"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, digits, damage, message):
    write(tmp_path, damage(idx(digits[0])), idx(digits[1]))
    with pytest.raises(UsageError, match=message):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="half a download"),
        pytest.param(lambda content: b"not gzip at all", id="no gzip"),
        pytest.param(lambda content: content[:30] + b"\xff\xff\xff\xff" + content[34:], id="flipped bytes"),
    ],
)
def test_damaged_gzip_files_are_refused(tmp_path, digits, damage):
    write(tmp_path, idx(digits[0]), idx(digits[1]), ".gz")
    path = tmp_path / f"{mnist.IMAGES['train']}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=r"cannot read .*fetch the file again"):
        data.load("mnist", tmp_path)


def test_a_file_is_not_a_folder(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(UsageError, match="is a file"):
        data.load("mnist", path)


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    def denied(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(mnist, "_find", denied)  # root, as whom tests may run, is denied nothing
    with pytest.raises(UsageError, match=r"--data .*cannot be read .*mend it, or change its permissions"):
        data.load("mnist", tmp_path)
