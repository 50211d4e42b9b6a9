"""wgan_kernels.training.data: CIFAR-10 and SVHN on small files in their true formats, and what is missing anywhere."""

import hashlib
import importlib
import os
import pickle
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from dataset_files import write_cifar10_binary, write_cifar10_pickles, write_faces, write_idx, write_svhn

from wgan_kernels.training import data
from wgan_kernels.training._optional import MissingPackage
from wgan_kernels.training.data import image_folder, mnist, svhn
from wgan_kernels.training.errors import UsageError

datasets = pytest.importorskip("torchvision.datasets")

FILLED = ("mnist", "fashion-mnist", "cifar10", "svhn", "celeba", "folder")


@pytest.fixture
def some():
    """uint8 [10, 3, 32, 32] and labels 0 to 9."""
    return torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8), torch.arange(10)


@pytest.fixture
def pickles(tmp_path, some, monkeypatch):
    """The folder of CIFAR-10's pickles, made of ``some``, with torchvision's MD5s set to theirs."""
    md5 = write_cifar10_pickles(tmp_path, *some)
    batches = [[name, md5[name]] for name in sorted(md5) if name.startswith("data_batch")]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", batches)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setitem(datasets.CIFAR10.meta, "md5", md5["batches.meta"])
    return tmp_path / "cifar-10-batches-py"


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("place", ["", "cifar-10-batches-bin"])
def test_cifar10_binary_files(tmp_path, some, place):
    images, labels = some
    write_cifar10_binary(tmp_path / place, images, labels)
    loaded = data.load("cifar10", tmp_path)
    assert loaded.shape == (3, 32, 32)
    assert torch.equal(loaded.images, images)
    assert torch.equal(loaded.labels, labels)


def test_cifar10_pickles_as_published(tmp_path, some, pickles):
    images, labels = some
    loaded = data.load("cifar10", tmp_path)
    assert torch.equal(loaded.images, images)
    assert loaded.images.is_contiguous()
    assert torch.equal(loaded.labels, labels)


def test_a_pickle_that_is_not_the_published_one_is_never_opened(tmp_path, pickles):
    (pickles / "data_batch_3").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    with pytest.raises(UsageError, match=r"not the published one \(MD5\).*or use the binary version"):
        data.load("cifar10", tmp_path)
    assert not (tmp_path / "sprung").exists()
    pickle.loads((pickles / "data_batch_3").read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap works


def test_a_missing_pickle_is_said(tmp_path, pickles):
    (pickles / "test_batch").unlink()
    with pytest.raises(UsageError, match=r"a file in cifar-10-batches-py is missing or not the published one"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, r"data_batch_4\.bin is missing beside the other batches; put all five there", id="missing"),
        pytest.param(b"", r"data_batch_4\.bin has 0 bytes", id="empty"),
        pytest.param(
            bytes(3072), r"data_batch_4\.bin has 3072 bytes, no multiple .* 3073; .*truncated", id="truncated"
        ),
        pytest.param(b"\x0a" + bytes(3072), r"data_batch_4\.bin has the label 10, expected 0 to 9", id="wrong label"),
    ],
)
def test_damaged_cifar10_binary_files(tmp_path, some, content, message):
    write_cifar10_binary(tmp_path, *some)
    (tmp_path / "data_batch_4.bin").unlink()
    if content is not None:
        (tmp_path / "data_batch_4.bin").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        data.load("cifar10", tmp_path)


def test_svhn(tmp_path, some):
    images, labels = some
    write_svhn(tmp_path, images, labels)
    loaded = data.load("svhn", tmp_path)
    assert loaded.shape == (3, 32, 32)
    assert torch.equal(loaded.images, images)
    assert loaded.images.is_contiguous()
    assert torch.equal(loaded.labels, labels)


def test_svhn_is_read_as_torchvision_reads_it(tmp_path, some, monkeypatch):
    write_svhn(tmp_path, *some)
    md5 = hashlib.md5((tmp_path / svhn.FILE).read_bytes()).hexdigest()
    monkeypatch.setitem(datasets.SVHN.split_list, "train", ["", svhn.FILE, md5])
    theirs, ours = datasets.SVHN(tmp_path), data.load("svhn", tmp_path)
    assert np.array_equal(theirs.data, ours.images.numpy())
    assert np.array_equal(theirs.labels, ours.labels.numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"y": None}, r"KeyError: 'y'", id="no labels"),
        pytest.param({"y": np.arange(1, 10)}, r"holds 9 labels y and X of torch.uint8 \(32, 32, 3, 10\)", id="too few"),
        pytest.param(
            {"X": np.zeros((28, 28, 3, 10), np.uint8)}, r"expected .*\(32, 32, 3, images\)", id="another size"
        ),
        pytest.param({"X": np.zeros((32, 32, 3, 10))}, r"X of torch.float64", id="floats"),
        pytest.param({"X": np.zeros((32, 32, 3, 0), np.uint8), "y": np.zeros(0)}, r"holds 0 labels", id="nothing"),
        pytest.param({"y": np.arange(10)}, r"has the label 0, expected 1 to 10", id="label 0"),
        pytest.param({"y": np.arange(2, 12)}, r"has the label 11, expected 1 to 10", id="label 11"),
    ],
)
def test_svhn_of_another_content(tmp_path, some, changes, message):
    write_svhn(tmp_path, *some, **changes)
    with pytest.raises(UsageError, match=message):
        data.load("svhn", tmp_path)


@pytest.mark.parametrize("content", [b"", b"no matrices" * 40, None])
def test_damaged_svhn_files(tmp_path, some, content):
    write_svhn(tmp_path, *some)
    whole = (tmp_path / svhn.FILE).read_bytes()
    (tmp_path / svhn.FILE).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UsageError, match=r"cannot read .*train_32x32\.mat \(\w+: .*delete it to have it downloaded"):
        data.load("svhn", tmp_path)


def test_svhn_needs_scipy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingPackage, match="reading SVHN needs scipy"):
        data.load("svhn", tmp_path)


@pytest.mark.parametrize("dataset", FILLED[1:])
def test_every_data_set_but_mnist_asks_for_its_folder(dataset):
    expected = {"fashion-mnist": mnist.FILES, "svhn": svhn.FILE, "folder": image_folder.FILES}.get(dataset, dataset)
    with pytest.raises(UsageError, match=rf"^--data: add a folder for --dataset {dataset}, with .*download") as found:
        data.load(dataset)
    assert "\n" not in str(found.value)
    assert expected in str(found.value)


def test_unknown_names_and_files_for_formulas_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--dataset imagenet: expected one of mnist fashion-mnist .* parallel-lines$"):
        data.load("imagenet")
    for toy in data.DATASETS[len(FILLED) :]:
        with pytest.raises(UsageError, match=rf"--data .*: {toy} is a formula without files; leave --data out"):
            data.load(toy, tmp_path)


@pytest.mark.parametrize("dataset", FILLED)
def test_a_file_is_no_folder(tmp_path, dataset):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--data .*file: is a file; name the folder with "):
        data.load(dataset, tmp_path / "file")


@pytest.mark.parametrize(
    ("dataset", "wanted"),
    [
        ("mnist", r"train-images-idx3-ubyte .*or leave --data out for the embedded 10,000 digits$"),
        ("fashion-mnist", r"train-images-idx3-ubyte and train-labels-idx1-ubyte \(gzipped or not\)$"),
        ("cifar10", r"data_batch_1\.bin … data_batch_5\.bin, or cifar-10-batches-py as published$"),
        ("svhn", r"train_32x32\.mat$"),
        ("celeba", r"img_align_celeba/\*\.jpg \(from img_align_celeba\.zip, 1\.4 GB\)$"),
    ],
)
def test_without_files_and_network_the_remedy_is_named(tmp_path, monkeypatch, capsys, dataset, wanted):
    """torchvision's own download runs, as far as a machine without a network lets it."""
    asked = []

    def unreachable(request, *rest, **options):
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setitem(sys.modules, "gdown", None)  # which downloads from Google Drive
    reason = "gdown" if dataset == "celeba" else "no route to host"
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path, tmp_path / "new" / "deep"):
        with pytest.raises(UsageError, match=rf"the download failed \(.*{reason}.*\)\. Put there .*{wanted}") as found:
            data.load(dataset, folder)
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert "\n" not in str(found.value)
    assert asked or dataset == "celeba"
    assert "downloading them there with torchvision" in capsys.readouterr().out


def test_a_download_that_fails_keeps_what_it_had_fetched(tmp_path, monkeypatch):
    def half(root, download):
        (root / "MNIST" / "raw").mkdir(parents=True)
        (root / "MNIST" / "empty").mkdir()
        (root / "MNIST" / "raw" / "first").touch()
        raise OSError("connection lost")

    monkeypatch.setattr(datasets, "MNIST", half)
    with pytest.raises(UsageError, match="connection lost"):
        data.load("mnist", tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["MNIST", "first", "raw"]


def test_what_was_downloaded_is_read(tmp_path, monkeypatch, some):
    """Each download as it ends when it succeeds: the files are where torchvision puts them."""
    images, labels = some

    def filled(write):
        def download(root, download, **options):
            assert download
            write(root)

        return download

    def write_greys(raw):
        write_idx(raw, images[:, 0, :28, :28], labels)

    monkeypatch.setattr(datasets, "MNIST", filled(lambda root: write_greys(root / "MNIST/raw")))
    monkeypatch.setattr(datasets, "FashionMNIST", filled(lambda root: write_greys(root / "FashionMNIST/raw")))
    monkeypatch.setattr(datasets, "SVHN", filled(lambda root: write_svhn(root, images, labels)))
    monkeypatch.setattr(datasets, "CelebA", filled(lambda root: write_faces(root / "celeba/img_align_celeba", 10)))
    for dataset in ("mnist", "fashion-mnist", "svhn", "celeba"):
        (tmp_path / dataset).mkdir()
        loaded = data.load(dataset, tmp_path / dataset)
        assert len(loaded) == 10
        batch = loaded.sample(4, torch.Generator().manual_seed(0))
        assert batch.shape == (4, *loaded.shape)
        assert batch.dtype == torch.float32
        assert -1 <= batch.min() < batch.max() <= 1
        monkeypatch.setattr(datasets, {"svhn": "SVHN", "celeba": "CelebA"}.get(dataset, "MNIST"), None)
        assert data.load(dataset, tmp_path / dataset).fingerprint() == loaded.fingerprint()


def test_torchvision_beside_another_torch_is_said(tmp_path, monkeypatch):
    def unfit(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", unfit)
    with pytest.raises(MissingPackage, match=r"reading pictures needs torchvision .operator torchvision::nms"):
        data.load("folder", tmp_path)
