"""wgan_kernels.training.data on picture files: CelebA's faces and folders of anything."""

import hashlib

import numpy as np
import pytest
import torch
from dataset_files import picture, planes, write_faces
from PIL import Image

from wgan_kernels.training import data
from wgan_kernels.training.data import decode
from wgan_kernels.training.errors import UsageError

datasets = pytest.importorskip("torchvision.datasets")
transforms = pytest.importorskip("torchvision.transforms.v2")


@pytest.mark.parametrize("place", ["img_align_celeba", "celeba/img_align_celeba"])
@pytest.mark.parametrize("side", [64, 128])
def test_celeba_is_cropped_in_the_centre_and_resized(tmp_path, place, side, capsys):
    write_faces(tmp_path / place)
    loaded = data.load("celeba", tmp_path, side)
    assert loaded.shape == (3, side, side)
    assert torch.equal(loaded.labels, torch.zeros(3, dtype=torch.int64))
    for number, ours in enumerate(loaded.images):
        with Image.open(tmp_path / place / f"{number + 1:06d}.jpg") as face:
            square = face.crop((0, 20, 178, 198)).resize((side, side), Image.Resampling.BILINEAR)
        assert torch.equal(ours, planes(square))
    told = capsys.readouterr().out
    assert "3 of its 202,599 faces" in told
    assert f"decoding 3 images of {side}×{side}: 1 MB of memory" in told


def test_celeba_is_what_torchvision_reads(tmp_path, monkeypatch):
    """Its own class, on the files that it wants beside the pictures, finds the same faces."""
    base = tmp_path / "celeba"
    write_faces(base / "img_align_celeba")
    names = [f"{number:06d}.jpg" for number in (1, 2, 3)]
    for file, header, values in (
        ("list_attr_celeba.txt", "3\nSmiling Young\n", "1 -1"),
        ("identity_CelebA.txt", "", "7"),
        ("list_bbox_celeba.txt", "3\nimage_id x_1 y_1 width height\n", "1 2 3 4"),
        ("list_landmarks_align_celeba.txt", "3\nlefteye_x lefteye_y\n", "5 6"),
        ("list_eval_partition.txt", "", "0"),
    ):
        (base / file).write_text(header + "".join(f"{name} {values}\n" for name in names))
    monkeypatch.setattr(
        datasets.CelebA, "file_list",
        [("", hashlib.md5(path.read_bytes()).hexdigest(), path.name) for path in base.glob("*.txt")],
    )  # fmt: skip
    square = transforms.Compose([transforms.CenterCrop(178), transforms.Resize(64), transforms.PILToTensor()])
    theirs = datasets.CelebA(tmp_path, split="all", transform=square)
    assert torch.equal(data.load("celeba", tmp_path).images, torch.stack([face for face, _ in theirs]))


def test_pictures_smaller_than_the_faces_are_refused(tmp_path):
    write_faces(tmp_path / "img_align_celeba", 1)
    picture(178, 150).save(tmp_path / "img_align_celeba" / "000002.jpg")
    with pytest.raises(UsageError, match=r"000002\.jpg is 178×150, smaller than 178 pixels.*--dataset folder"):
        data.load("celeba", tmp_path)


@pytest.mark.parametrize(("width", "height"), [(40, 40), (60, 40), (40, 61), (16, 16), (9, 30)])
def test_pictures_are_resized_by_their_shorter_side_and_cut_in_the_centre(tmp_path, width, height):
    shown = picture(width, height)
    shown.save(tmp_path / "one.png")
    loaded = data.load("folder", tmp_path, 16)
    assert loaded.shape == (3, 16, 16)
    wide, high = (max(16, 16 * length // min(width, height)) for length in (width, height))
    left, top = round((wide - 16) / 2), round((high - 16) / 2)
    whole = shown.resize((wide, high), Image.Resampling.BILINEAR)
    assert torch.equal(loaded.images[0], planes(whole.crop((left, top, left + 16, top + 16))))


def test_folders_are_labels_where_all_pictures_are_in_one(tmp_path):
    """As torchvision's ImageFolder has it."""
    for number, name in enumerate(("cats/1.png", "cats/old/0.jpg", "dogs/2.JPEG", "birds/3.webp")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(20 + number, 20).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    loaded = data.load("folder", tmp_path, 16)
    theirs = datasets.ImageFolder(tmp_path)
    assert theirs.classes == ["birds", "cats", "dogs"]
    assert sorted(loaded.labels.tolist()) == theirs.targets == [0, 1, 1, 2]
    expected = {}
    for path, label in theirs.samples:
        with Image.open(path) as shown:
            expected[label, planes(shown.convert("RGB").resize((16, 16))).sum().item()] = path
    assert len(loaded) == len(theirs)
    (tmp_path / "empty").mkdir()  # is no label
    assert torch.equal(data.load("folder", tmp_path, 16).labels, loaded.labels)


def test_labels_go_with_their_pictures(tmp_path):
    for name, grey in (("a/x.png", 10), ("b/x.png", 20), ("b/y.png", 30), ("c/deep/er/x.png", 40)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / name)
    loaded = data.load("folder", tmp_path, 8)
    pairs = sorted(zip(loaded.images[:, 0, 0, 0].tolist(), loaded.labels.tolist(), strict=True))
    assert pairs == [(10, 0), (20, 1), (30, 1), (40, 2)]


@pytest.mark.parametrize("names", [("1.png", "2.png"), ("1.png", "cats/2.png"), ("cats/1.png", "cats/old/2.png")])
def test_other_pictures_have_no_labels(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(9, 9).save(tmp_path / name)
    loaded = data.load("folder", tmp_path, 8)
    assert torch.equal(loaded.labels, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"--digits 3: none .*no labels"):
        loaded.only((3,))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    shown = picture(8, 8, mode)
    shown.save(tmp_path / ("one.tif" if mode in ("CMYK", "YCbCr") else "one.png"))
    loaded = data.load("folder", tmp_path, 8)
    torch.testing.assert_close(loaded.images[0], planes(shown.convert("RGB")), atol=2, rtol=0)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path, suffix):
    values = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / f"one.{suffix}")
    loaded = data.load("folder", tmp_path, 8)
    for plane in loaded.images[0]:
        assert np.array_equal(plane.numpy(), values >> 8)


def test_pictures_stand_as_the_camera_was_held(tmp_path):
    shown = picture(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270°
    shown.save(tmp_path / "one.png", exif=exif)
    turned = planes(shown.transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(data.load("folder", tmp_path, 8).images[0], turned)
    assert not torch.equal(planes(shown), turned)


def floats(path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(path, "tiff")


def half(path) -> None:
    picture(64, 64).save(path, "png")
    path.write_bytes(path.read_bytes()[:300])


def flipped(path) -> None:
    picture(64, 64).save(path, "png")
    content = path.read_bytes()
    path.write_bytes(content[:80] + bytes(40) + content[120:])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda path: path.write_bytes(b""), "cannot identify", id="empty"),
        pytest.param(lambda path: path.write_text("no picture"), "cannot identify", id="text"),
        pytest.param(half, "", id="truncated"),
        pytest.param(flipped, "", id="damaged"),
        pytest.param(floats, "32-bit numbers, mode F", id="floats"),
    ],
)
def test_damaged_pictures_are_named(tmp_path, damage, reason):
    for number in range(5):
        picture(9, 9).save(tmp_path / f"{number}.png")
    damage(tmp_path / "3.png")
    with pytest.raises(
        UsageError, match=rf"--data: cannot read the picture .*3\.png \(.*{reason}.*\); mend it"
    ) as found:
        data.load("folder", tmp_path, 8)
    assert "\n" not in str(found.value)


def test_the_first_damage_ends_the_decoding(tmp_path, monkeypatch):
    """Long before the last picture; each is decoded once, whatever the chunks."""
    opened = []
    monkeypatch.setattr(decode, "CHUNK", 3)
    for number in range(100):
        Image.new("L", (4, 4), number).save(tmp_path / f"{number:03d}.png")
    loaded = data.load("folder", tmp_path, 4)
    assert sorted(loaded.images[:, 0, 0, 0].tolist()) == list(range(100))
    open_rgb = decode.open_rgb

    def counted(path):
        opened.append(path)
        return open_rgb(path)

    monkeypatch.setattr(decode, "open_rgb", counted)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="cannot identify"):
        data.load("folder", tmp_path, 4)
    assert len(opened) < 100


def test_a_side_beyond_all_memory_is_refused(tmp_path):
    picture(9, 9).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match=r"--side 10000000: 1 images .*300,000,000 MB of memory, more than there is"):
        data.load("folder", tmp_path, 10**7)


@pytest.mark.parametrize(("name", "message"), [("nowhere", "there is no such folder"), ("", "holds no pictures")])
def test_a_folder_without_pictures_is_refused(tmp_path, name, message):
    with pytest.raises(UsageError, match=rf"--data .*: {message}"):
        data.load("folder", tmp_path / name)
