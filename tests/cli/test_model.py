import json

import pytest
from safetensors.torch import save_file

from silo_app.cli import edge
from silo_app.cli.model import app, plan_of, use
from silo_app.encoder import checkpoint
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import ConfigInvalid, EncoderUnknown
from tests.test_identity import Root, write_kit


@pytest.fixture
def run(capsys):
    """A function that runs `silo model ...` and returns (exit status, envelope, what people see)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            edge.run(app, [*map(str, arguments), "--format", "json"])
        printed = capsys.readouterr()
        return ended.value.code, json.loads(printed.out), printed.err

    return run


@pytest.fixture
def silo(make_silo):
    home = make_silo()
    spec = EncoderSpec(backbone="densenet-small", input_size=32)
    versions = [
        checkpoint.save(home.models, spec, to_vector(build(spec, seed)), {"kind": "federated", "job": f"j{seed}"})
        for seed in (1, 2)
    ]
    checkpoint.set_current(home.models, versions[1])
    return home, versions


def test_weights_from_elsewhere_become_a_version(run, silo, tmp_path):
    home, versions = silo
    spec = EncoderSpec(backbone="densenet-small", input_size=32)
    save_file(build(spec, 7).state_dict(), tmp_path / "weights.safetensors")
    chosen = ["--set", "encoder.backbone=densenet-small", "--set", "encoder.input_size=32"]
    status, envelope, _ = run("adopt", tmp_path / "weights.safetensors", "--silo", home.kit, *chosen)
    assert status == 0
    assert envelope["data"]["encoder_version"] not in versions
    assert envelope["data"]["encoder_version"] in checkpoint.versions(home.models)
    assert run("adopt", tmp_path / "weights.safetensors", "--silo", home.kit)[0] != 0  # not a densenet121


def test_list_names_every_encoder_and_the_current_one(run, silo):
    home, versions = silo
    status, envelope, _ = run("list", "--silo", home.kit)
    assert status == 0
    assert {one["version"]: one["current"] for one in envelope["data"]["encoders"]} == {
        versions[0]: False,
        versions[1]: True,
    }


def test_a_silo_without_encoders_lists_none(run, make_silo):
    assert run("list", "--silo", make_silo().kit)[1]["data"] == {"encoders": []}


def test_show_prints_the_card_of_the_current_one_or_of_another(run, silo):
    home, versions = silo
    assert run("show", "--silo", home.kit)[1]["data"]["job"] == "j2"
    assert run("show", versions[0], "--silo", home.kit)[1]["data"]["job"] == "j1"


def test_a_version_is_named_by_its_first_digits_or_refused_without_a_word_of_removing(run, silo):
    home, versions = silo
    assert run("show", versions[0][:12], "--silo", home.kit)[1]["data"]["job"] == "j1"
    for arguments in (("show", "zzz"), ("export", "zzz", "--out", home.kit / "x.zip")):
        status, envelope, _ = run(*arguments, "--silo", home.kit)
        assert (status, envelope["error"]["code"]) == (2, "encoder-unknown")
        assert "Remove" not in envelope["error"]["remedy"]
    with pytest.raises(EncoderUnknown):
        use("zzz", home.kit)
    use(versions[0][:8], home.kit)
    assert checkpoint.current_version(home.models) == versions[0]


def test_show_refuses_weights_that_are_not_the_cards(run, silo):
    home, versions = silo
    file = home.models / versions[1] / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    status, envelope, _ = run("show", "--silo", home.kit)
    assert status == 1
    assert envelope["error"]["code"] == "checkpoint-invalid"


def test_use_changes_what_is_current(silo, capsys):
    home, versions = silo
    with pytest.raises(SystemExit) as ended:
        edge.run(app, ["use", versions[0], "--silo", str(home.kit)])
    assert ended.value.code == 0
    assert checkpoint.current_version(home.models) == versions[0]
    assert "silo index build" in capsys.readouterr().err


def test_training_without_images_is_refused_with_a_remedy(run, make_silo):
    status, envelope, _ = run("train-local", "--silo", make_silo().kit)
    assert status == 1
    assert envelope["error"]["code"] == "not-ready"
    assert "silo ingest" in envelope["error"]["remedy"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["start=" + "ab" * 16], "start"),
        (["privacy.epsilon=3", "training.contrast=0", "personal=none", "fairness=0"], "privacy"),
    ],
)
def test_what_training_alone_does_not_use_is_refused(run, make_silo, settings, named):
    """A promise of privacy above all."""
    chosen = [word for setting in settings for word in ("--set", setting)]
    status, envelope, _ = run("train-local", "--silo", make_silo().kit, *chosen)
    assert (status, envelope["error"]["where"]) == (2, "--set")
    assert envelope["error"]["problem"].endswith(f": {named}")


def test_settings_are_those_of_a_job():
    plan = plan_of(["rounds=3", "training.batch_size=16", "encoder.backbone=densenet-small"])
    assert (plan.rounds, plan.training.batch_size, plan.encoder.backbone) == (3, 16, "densenet-small")
    job = plan_of([])
    assert (plan.training.learning_rate, plan.training.contrast) == (job.training.learning_rate, job.training.contrast)
    assert (plan.encoder.looks, job.rounds) == ("removed", 32)  # jobs/train's, and not the classes' own


@pytest.mark.parametrize("wrong", ["rounds", "rounds=0", "training.speed=9", "rounds=3 rounds.more=1", "=1"])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ConfigInvalid):
        plan_of(wrong.split())


def test_an_encoder_goes_out_is_verified_and_comes_in(run, silo, tmp_path):
    home, versions = silo
    write_kit(home.kit, Root())
    file = tmp_path / "encoder.zip"
    assert run("export", "current", "--silo", home.kit, "--out", file)[0] == 0
    status, envelope, _ = run("verify", file, "--root", home.kit / "startup" / "rootCA.pem")
    assert (status, envelope["data"]["encoder_version"]) == (0, versions[1])
    checkpoint.set_current(home.models, versions[0])
    assert run("import", file, "--silo", home.kit)[0] == 0
    assert checkpoint.current_version(home.models) == versions[0]
    assert run("import", file, "--silo", home.kit, "--use")[0] == 0
    assert checkpoint.current_version(home.models) == versions[1]
    status, envelope, _ = run("export", "current", "--silo", home.kit, "--out", file, "--for", "researcher")
    assert (status, envelope["error"]["code"]) == (2, "config-invalid")
