"""wgan_kernels.training.config: one source of flags, files and checks."""

import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from wgan_kernels.training import cli
from wgan_kernels.training.cli import parse
from wgan_kernels.training.config import FREE_ON_RESUME, Config, check_same_run, first_free
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.presets import COMPACT, PRESETS, defaults

pytest.importorskip("tyro", reason="the command line needs tyro")

CHANGED = Config(
    method="wgan", preset="s0", out=Path("a/b"), resume=True, dataset="svhn", data=Path("c"), side=32, digits=(3, 5),
    generator="dcgan", critic="mlp", iterations=7, time_limit=1.5, batch_size=8, generator_batch_size=16,
    critic_batches="in-turn", n_critic=2, n_critic_schedule="original", optimizer="rmsprop", lr=1e-3, lr_end=0.5,
    alpha=0.9, beta1=0.1, beta2=0.8, clip=0.1, clipped="convolutions", penalty_weight=1.0, penalty_every=4, latent=16,
    ema_decay=0.5, seed=9, device="cpu", deterministic=True, precision="tf32", log_every=1, sample_every=2,
    eval_every=3, checkpoint_every=4, keep=5,
)  # fmt: skip


def test_every_field_of_the_changed_configuration_is_changed():
    assert [
        field.name for field in fields(Config) if getattr(CHANGED, field.name) == getattr(Config(), field.name)
    ] == []


@pytest.mark.parametrize("config", [Config(), COMPACT["wgan"], CHANGED], ids=["wgan-gp", "wgan", "changed"])
def test_round_trips(config):
    assert Config.from_yaml(config.to_yaml()) == config
    assert Config.from_plain(config.to_plain()) == config


def test_an_unknown_field_is_refused():
    with pytest.raises(UsageError, match="unknown field dropout"):
        Config.from_plain({"dropout": 0.5})


def test_the_papers_own_settings_are_kept():
    wgan, penalty = COMPACT["wgan"], COMPACT["wgan-gp"]
    assert (wgan.lr, wgan.clip, wgan.n_critic, wgan.batch_size) == (5e-5, 0.01, 5, 64)
    assert (penalty.penalty_weight, penalty.batch_size) == (10.0, 64)


def test_every_flag_reaches_its_field(monkeypatch):
    monkeypatch.setattr(cli, "check_read", lambda config, start: None)  # some mean nothing beside others
    flags = (
        "--method wgan --preset s0 --out a/b --dataset svhn --data c --side 32 --digits 3 5 --generator dcgan "
        "--critic mlp --iterations 7 --time-limit 1.5 --batch-size 8 --generator-batch-size 16 --critic-batches joint "
        "--n-critic 2 --n-critic-schedule original --penalty-every 4 --optimizer rmsprop "
        "--lr 1e-3 --lr-end 0.5 --alpha 0.9 --beta1 0.1 --beta2 0.8 --clip 0.1 --clipped convolutions "
        "--penalty-weight 1.0 --latent 16 --ema-decay 0.5 --seed 9 --device cpu --deterministic --precision tf32 "
        "--log-every 1 --sample-every 2 --eval-every 3 --checkpoint-every 4 --keep 5"
    )
    # in-turn, which S0 has, would not go together with tf32
    assert parse(flags.split()) == replace(CHANGED, resume=False, critic_batches="joint")


def test_what_is_left_out_is_the_methods():
    assert parse(["--method", "wgan", "--out", "a"]).iterations == COMPACT["wgan"].iterations
    assert parse(["--out", "a"]).iterations == Config().iterations


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_left_out_is_the_presets(name):
    flags = ["--preset", name, "--out", "a"]
    assert parse(flags) == replace(PRESETS[name], out=Path("a")).resolved()
    assert parse([*flags, "--lr", "0.5"]) == replace(PRESETS[name], out=Path("a"), lr=0.5).resolved()


def test_every_preset_has_its_name_and_is_offered():
    (offered,) = (field.type for field in fields(Config) if field.name == "preset")
    assert set(get_args(offered)) == {"compact", *PRESETS}
    assert all(preset.preset == name for name, preset in PRESETS.items())
    assert defaults("wgan", "compact").method == "wgan"
    assert defaults("wgan", "s3-wgan-gp").method == "wgan-gp"


def test_a_script_for_one_dataset_has_no_other():
    assert parse(["--preset", "s1-dcgan", "--out", "a"]).dataset == "cifar10"
    assert parse(["--preset", "s1-dcgan", "--out", "a"], "mnist").dataset == "mnist"
    with pytest.raises(UsageError, match=r"--dataset svhn: this script is for mnist; use examples/train\.py"):
        parse(["--dataset", "svhn", "--out", "a"], "mnist")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "celeba", "digits": (3,)}, "--digits: celeba has no classes"),
        ({"dataset": "swiss-roll", "digits": (3,)}, "--digits: swiss-roll has no classes"),
        ({"critic_batches": "in-turn"}, "--critic-batches in-turn: the penalty needs"),
        ({"method": "wgan", "critic_batches": "in-turn", "precision": "tf32"}, "--precision tf32: --critic-batches"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        replace(Config(out=Path("a")), **changes).resolved()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--clip 0.5", "--clip 0.5: means nothing with --method wgan-gp, only with wgan; leave it out"),
        (
            "--preset s3-wgan --penalty-every 4",
            "--penalty-every 4: means nothing with --method wgan,",
        ),
        ("--alpha 0.5", "--alpha 0.5: means nothing with --optimizer adam, only with rmsprop"),
        ("--preset s0 --beta1 0.9", "--beta1 0.9: means nothing with --optimizer rmsprop, only with adam"),
        ("--side 32", "--side 32: means nothing with --dataset mnist, only with celeba or folder"),
    ],
)
def test_a_flag_that_nobody_reads_is_refused(flags, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        parse(["--out", "a", *flags.split()])


@pytest.mark.parametrize(
    "flags",
    ["--preset s0 --optimizer adam --beta1 0.9", "--preset toy --method wgan --clip 0.5", "--dataset folder --side 32"],
)
def test_a_preset_s_own_values_are_not_asked_for_by_anyone(flags):
    """s0 has an alpha for its RMSprop, toy a weight for its penalty."""
    assert parse(["--out", "a", *flags.split()])


def test_left_out_the_output_folder_is_a_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Config().resolved().out == Path("runs/mnist-wgan-gp")
    assert PRESETS["toy"].resolved().out == Path("runs/8-gaussians-toy")
    Path("runs/mnist-wgan-gp").mkdir(parents=True)
    Path("runs/mnist-wgan-gp-2").mkdir()
    assert Config().resolved().out == Path("runs/mnist-wgan-gp-3")
    assert first_free(Path("elsewhere")) == Path("elsewhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("iterations", "batch_size", "n_critic", "penalty_every", "latent", "side")
            for value in (0, -5)
        ),
        ("generator_batch_size", 0),
        *((f"{what}_every", 0) for what in ("log", "sample", "eval", "checkpoint")),
        ("keep", 0),
        *((name, value) for name in ("lr", "clip") for value in (0.0, -1.0, math.inf, math.nan)),
        *(("penalty_weight", value) for value in (-1.0, math.nan, math.inf)),
        *(("lr_end", value) for value in (-0.1, 1.1, math.nan)),
        *((name, value) for name in ("ema_decay", "alpha", "beta1", "beta2") for value in (-0.1, 1.0, math.nan)),
        *(("time_limit", value) for value in (0.0, -1.0, math.nan)),
        *(("digits", value) for value in ((), (10,), (3, -1))),
        *(("device", value) for value in ("cuda:99", "meteor", "cpu:x", "meta", "")),
        *(("seed", value) for value in (2**63, -(2**63) - 1, 10**23)),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} ") as raised:
        replace(Config(out=Path("a")), **{name: value}).resolved()
    assert "\n" not in str(raised.value)


def test_a_refusal_names_the_range_and_the_devices():
    with pytest.raises(UsageError, match=rf"--seed {10**23}: .* from -{2**63} to {2**63 - 1}$"):
        replace(Config(out=Path("a")), seed=10**23).resolved()
    with pytest.raises(UsageError, match="--device meta: training runs on cpu and cuda only; use --device cpu"):
        replace(Config(out=Path("a")), device="meta").resolved()
    for seed in (-(2**63), 2**63 - 1):
        assert replace(Config(out=Path("a")), seed=seed).resolved().seed == seed


def test_the_help_names_what_a_resumed_run_may_change(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse(["--help"])
    (named,) = re.findall(r"Only (--.*?) may change", re.sub(r"[\s│]+", " ", capsys.readouterr().out))
    flags = {"--" + name.replace("_", "-") for name in FREE_ON_RESUME - {"out", "resume"}}  # those say which run
    assert set(re.findall(r"--[a-z-]+", named)) == flags


@pytest.mark.parametrize("name", [field.name for field in fields(Config)])
def test_a_resumed_run_may_change_some_fields_only(name):
    stored = Config(out=Path("a"))
    asked = replace(stored, **{name: getattr(CHANGED, name)})
    if name in FREE_ON_RESUME:
        check_same_run(stored, asked)
        return
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .*was started with"):
        check_same_run(stored, asked)
