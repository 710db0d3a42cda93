"""The file of a sweep: its searches, and the errors of an invalid file."""

import pytest
from command_line import call_here

from paretoprune.search.sweep.config import read_sweep_file
from paretoprune.spaces.errors import UserError

WHOLE = """
models = ["resnet20", {model = "resnet56", weights = "w.safetensors"}]
data = ["cifar10:some/where", {data = "folder:photos/flowers", epochs = 3}]
targets = [0.6, "40%", {target-flops = "50M", target_params = 0.5, trials = 7}]

[search]
trials = 50
scores = ["taylor", "l2"]
max-flops = 0.9
screening = false
keep = ["conv1"]

[[override]]
match = {model = "resnet56", target_flops = 0.4}
trials = 100
"""


def entries(tmp_path, text):
    file = tmp_path / "s.toml"
    file.write_text(text)
    return read_sweep_file(file)


def test_the_runs_are_the_product_of_the_lists_named_by_their_settings(tmp_path):
    found = entries(tmp_path, WHOLE)
    assert len(found) == 2 * 2 * 3
    assert [e.name for e in found[:4]] == [
        "resnet20-cifar10-flops-0.6",
        "resnet20-cifar10-flops-0.4",
        "resnet20-cifar10-flops-50M-params-0.5",
        "resnet20-flowers-flops-0.6",
    ]
    assert len({e.name for e in found}) == len(found)


def test_settings_can_be_common_of_an_entry_or_of_an_override(tmp_path):
    found = {e.name: e.settings for e in entries(tmp_path, WHOLE)}
    trials = {name: one.trials for name, one in found.items()}
    assert trials["resnet20-cifar10-flops-0.6"] == 50
    assert trials["resnet20-cifar10-flops-50M-params-0.5"] == 7
    assert trials["resnet56-cifar10-flops-0.4"] == 100  # written as 40% in the list
    assert trials["resnet56-cifar10-flops-0.6"] == 50
    plain = found["resnet20-flowers-flops-0.4"]
    assert (plain.epochs, plain.weights, plain.max_flops) == (3.0, None, "0.9")
    assert plain.names_in("scores") == ("taylor", "l2")
    assert (plain.screening, plain.keep) == (False, ("conv1",))
    assert str(found["resnet56-flowers-flops-0.4"].weights) == "w.safetensors"


def test_runs_that_differ_in_the_target_alone_share_their_dense_network(tmp_path):
    found = entries(tmp_path, 'models = ["fc", "lenet5"]\ntargets = [0.5, 0.4]\nseeds = [0, 1]')
    groups = {}
    for entry in found:
        groups.setdefault(entry.dense_key, []).append(entry.name)
    assert sorted(map(len, groups.values())) == [2, 2, 2, 2]
    assert ["fc-digits-flops-0.5-seed-1", "fc-digits-flops-0.4-seed-1"] in groups.values()


def test_run_names_are_unique_and_stay_as_lists_grow(tmp_path):
    one = entries(tmp_path, 'data = ["cifar10:a/x"]\ntargets = 0.5')
    two = entries(tmp_path, 'data = ["cifar10:a/x", "cifar10:b/x"]\ntargets = 0.5')
    assert two[0].name == one[0].name
    assert two[1].name.startswith(one[0].name + "-")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models = [", ["TOML"]),
        ("modles = ['fc']\ntargets = 0.5", ["modles", "models, data, seeds, targets"]),
        ("targets = 0.5\n[search]\ntrails = 3", ["[search]", "trails", "trials"]),
        ("targets = 0.5\n[search]\nout = 'x'", ["[search]", "out"]),
        ("targets = 0.5\n[search]\ntrials = 'three'", ["trials", "a whole number", "three"]),
        ("targets = 0.5\n[search]\ntrials = true", ["trials", "a whole number"]),
        ("targets = 0.5\n[search]\nscreening = 1", ["screening", "true or false"]),
        ("targets = 0.5\n[search]\nepochs = 'x'", ["epochs", "a number"]),
        ("targets = 0.5\n[search]\nkeep = [1]", ["keep"]),
        ("targets = 0.5\n[search]\nsampler = 'nsga'", ["sampler must", "nsga2", "'nsga'"]),
        ("targets = 0.5\nsearch = 3", ["[search]", "table"]),
        ("targets = []", ["targets", "none"]),
        ("targets = [0.5, 40]", ["target_flops must", "(0, 1]", "40"]),
        ("targets = [0.5, '50%']", ["twice"]),
        ("targets = [{trials = 3}]", ["targets, entry 1", "target_flops or target_params"]),
        ("models = [{weights = 'w'}]\ntargets = 0.5", ["models, entry 1", "model"]),
        ("models = [{model = 'fc', workers = 2}]\ntargets = 0.5", ["workers", "[search]"]),
        ("models = ['fc']", ["target_flops or", "neither"]),
        ("targets = 0.5\noverride = 3", ["[[override]]"]),
        ("targets = 0.5\n[search]\ntarget_params = 0.5", ["[search] must not", "target_params"]),
        ("seeds = [1]\ntargets = 0.5\n[search]\nseed = 2", ["list of seeds", "'seed'"]),
        ("targets = 0.5\n[[override]]\ntrials = 3", ["which runs", "match"]),
        ("targets = 0.5\n[[override]]\nmatch = {trials = 3}", ["match", "trials", "model, data"]),
        ("targets = 0.5\n[[override]]\nmatch = {model = 'fc'}\ntrials = 3", ["match a run", "fc"]),
    ],
)
def test_an_error_names_the_key_and_the_allowed_ones(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        entries(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "s.toml"))
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_model_is_an_error_of_one_line_and_creates_nothing(tmp_path):
    (tmp_path / "s.toml").write_text("models = ['resent20']\ntargets = 0.5")
    done = call_here("sweep", tmp_path / "s.toml", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "resent20" in done.stderr
    assert "resnet20" in done.stderr
    assert not (tmp_path / "out").exists()
    missing = call_here("sweep", tmp_path / "none.toml")
    assert missing.returncode == 2
    assert "none.toml" in missing.stderr


def test_a_dry_run_lists_the_runs_and_creates_nothing(tmp_path):
    (tmp_path / "s.toml").write_text("targets = [0.5, 0.4]\n[search]\ntrials = 3")
    done = call_here("sweep", tmp_path / "s.toml", "--out", tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "digits-resnet-digits-flops-0.5",
        "digits-resnet-digits-flops-0.4",
    ]
    assert "3 trials" in done.stdout
    assert not (tmp_path / "out").exists()
