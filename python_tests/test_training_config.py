"""wgan_kernels.training.config: one source of flags, files and checks."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from wgan_kernels.training.cli import parse
from wgan_kernels.training.config import FREE_ON_RESUME, Config, check_same_run, first_free
from wgan_kernels.training.errors import UsageError

pytest.importorskip("tyro", reason="the command line needs tyro")

CHANGED = Config(
    method="wgan", out=Path("a/b"), resume=True, data=Path("c"), digits=(3, 5), iterations=7, time_limit=1.5,
    batch_size=8, n_critic=2, n_critic_schedule="original", lr=1e-3, lr_end=0.5, clip=0.1, penalty_weight=1.0,
    penalty_every=4, latent=16, ema_decay=0.5, seed=9, device="cpu", deterministic=True, precision="bfloat16",
    log_every=1, sample_every=2, eval_every=3, checkpoint_every=4, keep=5,
)  # fmt: skip


def test_every_field_of_the_changed_configuration_is_changed():
    assert [
        field.name for field in fields(Config) if getattr(CHANGED, field.name) == getattr(Config(), field.name)
    ] == []


@pytest.mark.parametrize("config", [Config(), Config.of("wgan"), CHANGED], ids=["wgan-gp", "wgan", "changed"])
def test_round_trips(config):
    assert Config.from_yaml(config.to_yaml()) == config
    assert Config.from_plain(config.to_plain()) == config


def test_an_unknown_field_is_refused():
    with pytest.raises(UsageError, match="unknown field dropout"):
        Config.from_plain({"dropout": 0.5})


def test_the_papers_own_settings_are_kept():
    wgan, penalty = Config.of("wgan"), Config.of("wgan-gp")
    assert (wgan.lr, wgan.clip, wgan.n_critic, wgan.batch_size) == (5e-5, 0.01, 5, 64)
    assert (penalty.penalty_weight, penalty.batch_size) == (10.0, 64)


def test_every_flag_reaches_its_field():
    flags = (
        "--method wgan --out a/b --data c --digits 3 5 --iterations 7 --time-limit 1.5 --batch-size 8 --n-critic 2 "
        "--n-critic-schedule original --penalty-every 4 "
        "--lr 1e-3 --lr-end 0.5 --clip 0.1 --penalty-weight 1.0 --latent 16 --ema-decay 0.5 --seed 9 --device cpu "
        "--deterministic --precision bfloat16 "
        "--log-every 1 --sample-every 2 --eval-every 3 --checkpoint-every 4 --keep 5"
    )
    assert parse(flags.split()) == replace(CHANGED, resume=False)


def test_what_is_left_out_is_the_methods():
    assert parse(["--method", "wgan", "--out", "a"]).iterations == Config.of("wgan").iterations
    assert parse(["--out", "a"]).iterations == Config().iterations


def test_left_out_the_output_folder_is_a_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Config().resolved().out == Path("runs/mnist-wgan-gp")
    Path("runs/mnist-wgan-gp").mkdir(parents=True)
    Path("runs/mnist-wgan-gp-2").mkdir()
    assert Config().resolved().out == Path("runs/mnist-wgan-gp-3")
    assert first_free(Path("elsewhere")) == Path("elsewhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("iterations", "batch_size", "n_critic", "penalty_every", "latent")
            for value in (0, -5)
        ),
        *((f"{what}_every", 0) for what in ("log", "sample", "eval", "checkpoint")),
        ("keep", 0),
        *((name, value) for name in ("lr", "clip") for value in (0.0, -1.0, math.inf, math.nan)),
        *(("penalty_weight", value) for value in (-1.0, math.nan, math.inf)),
        *(("lr_end", value) for value in (-0.1, 1.1, math.nan)),
        *(("ema_decay", value) for value in (-0.1, 1.0, math.nan)),
        *(("time_limit", value) for value in (0.0, -1.0, math.nan)),
        *(("digits", value) for value in ((), (10,), (3, -1))),
        *(("device", value) for value in ("cuda:99", "meteor", "cpu:x")),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} ") as raised:
        replace(Config(out=Path("a")), **{name: value}).resolved()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [field.name for field in fields(Config)])
def test_a_resumed_run_may_change_some_fields_only(name):
    stored = Config(out=Path("a"))
    asked = replace(stored, **{name: getattr(CHANGED, name)})
    if name in FREE_ON_RESUME:
        check_same_run(stored, asked)
        return
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .*was started with"):
        check_same_run(stored, asked)
