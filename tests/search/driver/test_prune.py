"""One policy alone: `prune` on the command line and from Python, at once and step by step."""

import json
import math
import os
import signal
import subprocess
from dataclasses import replace

import pytest
import torch
from command_line import ROOT, call_here, command

import paretoprune as pp
from paretoprune.analysis.mask_ensembles import ENSEMBLE_PRESETS as ENSEMBLES
from paretoprune.analysis.mask_ensembles import add_ensemble, measure_ensemble
from paretoprune.analysis.measure import (
    MeasurementContext,
    MeasurementLimits,
    measure_for_policies,
)
from paretoprune.analysis.scores.measure import load_or_measure_scores
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target, intermediate_targets
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.loss_curves import CurveSettings
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, POLICY_PRESETS, Policy
from paretoprune.spaces.records.recipe import read_recipe
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.pruning.iterative import StepCallbacks, prune_iteratively
from paretoprune.trainers.pruning.surgery import prune_network
from paretoprune.trainers.training.loop import train_model
from paretoprune.trainers.training.optimizer import TrainingSettings

QUICK = ("--epochs", "1", "--seed", "1", "--data", "digits", "--quiet")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A trained network and its weights in a file."""
    from safetensors.torch import save_file

    data = load_data("digits")
    model = build_model("digits-resnet", classes=10, input_shape=data.input_shape, seed=0)
    train_model(model, data, TrainingSettings(epochs=6, learning_rate=0.1, distill=0), seed=0)
    path = tmp_path_factory.mktemp("dense") / "dense.safetensors"
    save_file(model.state_dict(), path)
    return model, data, path


def evaluation_in(folder):
    return json.loads((folder / "evaluation.json").read_text())["evaluation"]


def test_prune_writes_a_network_at_the_target(dense, tmp_path):
    out = tmp_path / "net"
    words = ("--policy", "taylor-by-price", "--target-flops", "0.4", "--weights", dense[2])
    done = call_here("prune", *words, "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "asked: FLOPs <= 40 %" in done.stdout
    found = evaluation_in(out)
    assert 0.38 < found["flops_fraction"] <= 0.4
    assert {p.name for p in out.iterdir()} == {
        "README.md",
        "evaluation.json",
        "recipe.json",
        "dense.safetensors",
        "model.safetensors",
    }
    data = load_data("digits")
    assert evaluate(pp.load(out), data.test, data).accuracy == pytest.approx(
        found["test_accuracy"]
    )


def test_the_presets_masks_differ_at_one_target(dense):
    model, data, _ = dense
    copy, _ = make_working_copy(model)
    channel_map = trace_channel_map(copy, data.input_shape)
    space = PruningSpace(channel_map, CostModel(channel_map))
    policies = {
        n: p for n, p in {**POLICY_PRESETS, **CONTROL_POLICIES}.items() if p.schedule != "holistic"
    }
    quick = [policy for policy in policies.values() if policy.score != "ensemble-batch"]
    evidence = measure_for_policies(quick, MeasurementContext(copy, channel_map, data, 0))
    few = replace(ENSEMBLES["ensemble-batch"], samples=256, images=128)
    ensemble = measure_ensemble(copy, channel_map, data, few, folder=None, seed=0)
    evidence = add_ensemble(evidence, "ensemble-batch", ensemble)
    masks = {
        n: decode_policy(p, Target(0.4), evidence, space).tobytes() for n, p in policies.items()
    }
    assert len(set(masks.values())) == len(masks) >= 7


def test_gates_train_within_the_trials_epochs_and_find_a_mask_of_their_own(dense, tmp_path):
    soft = replace(
        POLICY_PRESETS["holistic"], gate_variant="sigmoid", gate_weight=2.0, gate_approach=0.8
    )
    (tmp_path / "soft.json").write_text(json.dumps(soft.to_json()))
    words = ("--target-flops", "0.3", "--weights", dense[2], *QUICK[:-1])
    policies = {"hard": "holistic", "soft": tmp_path / "soft.json", "none": "taylor-by-price"}
    for name, policy in policies.items():
        done = call_here("prune", "--policy", policy, *words, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        told = "gates: the last step to the exact budget turned" in done.stdout
        assert told == (name != "none")
    removed = [str(read_recipe(tmp_path / name / "recipe.json").removed) for name in policies]
    assert len(set(removed)) == len(policies)
    for name in ("hard", "soft"):
        evaluation = evaluation_in(tmp_path / name)
        assert evaluation["flops_fraction"] <= 0.3
        assert evaluation["epochs"] == pytest.approx(1.0, abs=0.1)
        assert not list((tmp_path / name).rglob("*gates.safetensors"))


@pytest.mark.parametrize(
    ("preset", "batches"),
    [("pruning-at-a-glance", 0), ("gradually-global", 0), ("taylor-by-price", 9)],
)
def test_a_preset_costs_the_forwards_and_backwards_of_its_method(preset, batches, dense):
    model, data, _ = dense
    copy, _ = make_working_copy(model)
    channel_map = trace_channel_map(copy, data.input_shape)
    assert math.ceil(len(data.train) / 128) == 9
    counts = measure_for_policies(
        [POLICY_PRESETS[preset]], MeasurementContext(copy, channel_map, data, 0)
    ).counts
    assert (counts["forwards"], counts["backwards"]) == (batches, batches)
    assert counts["images"] == (len(data.train) if batches else 0)


def test_linear_ensembles_forward_their_images_once_a_mask_and_once_unmasked(dense):
    model, data, _ = dense
    copy, _ = make_working_copy(model)
    channel_map = trace_channel_map(copy, data.input_shape)
    on = MeasurementContext(copy, channel_map, data, 0, limits=MeasurementLimits(samples=48))
    counts = measure_for_policies([POLICY_PRESETS["linear-ensembles"]], on).counts
    assert counts["masks"] == 48
    assert counts["masked_forwards"] == (48 + 1) * 512  # the set of the preset
    assert (counts["masked_backwards"], counts["forwards"], counts["backwards"]) == (0, 0, 0)


def test_balanced_pruning_probes_each_group_a_few_times_and_a_second_time_never(dense, tmp_path):
    model, data, _ = dense
    copy, _ = make_working_copy(model)
    channel_map = trace_channel_map(copy, data.input_shape)
    on = MeasurementContext(copy, channel_map, data, 0, tmp_path)
    first, again = (
        measure_for_policies([POLICY_PRESETS["balanced-pruning"]], on).counts for _ in range(2)
    )
    settings = CurveSettings()
    groups = len(channel_map.groups)
    assert groups <= first["probes"] <= groups * (settings.points + settings.refine)
    assert (first["forwards"], first["backwards"]) == (9, 9)  # of its score
    assert set(again.values()) <= {0}


def test_gradual_steps_look_at_the_network_that_is_left(dense):
    model, data, _ = dense
    copy, _ = make_working_copy(model)
    channel_map = trace_channel_map(copy, data.input_shape)
    seen = []

    def choose(present, present_map, target):
        seen.append((present_map.atoms, target))
        space = PruningSpace(present_map, CostModel(present_map))
        evidence = load_or_measure_scores(present, present_map, data, folder=None, seed=0)
        return decode_policy(Policy("taylor"), target, evidence, space)

    whole = CostModel(channel_map)
    targets = intermediate_targets(Target(flops=0.4, params=0.5), whole.dense, 4)
    present = prune_iteratively(copy, channel_map, targets, StepCallbacks(choose, lambda *_: None))
    assert [target for _, target in seen] == list(targets)
    assert targets[-1] == Target(*Target(0.4, 0.5).limits(whole.dense))
    counts = [atoms for atoms, _ in seen]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == channel_map.atoms > counts[1]
    assert (whole.cost_of(present.keep) == CostModel(present.channel_map).dense).all()
    images = torch.randn(4, *data.input_shape)
    at_once = prune_network(copy, channel_map, present.keep).eval()
    torch.testing.assert_close(present.model.eval()(images), at_once(images))


def test_steps_end_before_the_accuracy_falls(dense, tmp_path):
    out = tmp_path / "net"
    words = ("--policy", "gradually-global", "--min-accuracy", "0.95", "--weights", dense[2])
    done = call_here("prune", *words, "--out", out, "--epochs", "1", "--seed", "1")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith("step")]
    accuracies = [float(line.split()[-1]) for line in lines]
    assert all(accuracy >= 0.95 for accuracy in accuracies[:-1])
    assert accuracies[-1] < 0.95
    fractions = [float(line.split("FLOPs ")[1].split("%")[0]) / 100 for line in lines]
    assert evaluation_in(out)["flops_fraction"] == pytest.approx(fractions[-2], abs=6e-4)


def test_steps_go_on_after_a_kill(dense, tmp_path):
    words = ["--policy", "gradually-global", "--target-flops", "0.3", "--weights", str(dense[2])]
    words += ["--steps", "8", "--epochs", "1", "--seed", "1"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert call_here("prune", *words, "--out", unbroken).returncode == 0
    process = subprocess.Popen(
        command("prune", *words, "--out", broken),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for line in process.stdout:
        if "step 3" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (broken / "work" / "trials" / "0" / "gradual.safetensors").is_file()
    done = call_here("prune", *words, "--out", broken)
    assert done.returncode == 0, done.stderr
    assert "step 2 of 8" not in done.stdout
    assert "step 8 of 8" in done.stdout
    one, other = (
        replace(read_recipe(folder / "recipe.json"), figures=None, dense=None)  # latencies differ
        for folder in (broken, unbroken)
    )
    assert one == other


def test_another_command_on_an_unfinished_folder_is_refused(dense, tmp_path):
    out = tmp_path / "net"
    words = ["--policy", "gradually-global", "--weights", dense[2], "--out", out, "--epochs", "1"]
    process = subprocess.Popen(
        command("prune", *words, "--target-flops", "0.3"),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for line in process.stdout:
        if "step 1" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stdout.read()
    assert process.wait() == 130
    assert "the same command continues" in rest
    done = call_here("prune", *words, "--target-flops", "0.5")
    assert done.returncode == 2
    assert "another settings" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policy", "uniform"), "a target size or a minimum accuracy must be given"),
        (("--policy", "nosuch", "--target-flops", "0.4"), "--policy must be one of"),
        (("--policy", "nosuch.json", "--target-flops", "0.4"), "--policy must be a JSON file"),
        (("--policy", "uniform", "--min-accuracy", "0.9"), "--min-accuracy needs a schedule"),
        (("--policy", "gradually-global", "--min-accuracy", "90"), "for ninety percent write 0.9"),
        (("--policy", "uniform", "--target-flops", "40"), "for forty percent write 0.4"),
        (("--policy", "uniform", "--steps", "0", "--target-flops", "0.4"), "steps must be in"),
    ],
)
def test_wrong_wishes_are_one_line(words, message, tmp_path):
    done = call_here("prune", *words, "--out", tmp_path / "net")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "net").exists()


def test_prune_from_python_leaves_the_model_alone(dense, tmp_path):
    model, data, _ = dense
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    splits = [(s.images.float() / 255, s.labels) for s in (data.train, data.validation, data.test)]
    policy = replace(POLICY_PRESETS["taylor-by-price"], distill=0.0)
    picked = pp.prune(
        model, splits, policy, out=tmp_path / "net", target_flops=0.5, epochs=0.2, quiet=True
    )
    assert picked.policy == policy
    assert picked.evaluation.flops_fraction <= 0.5
    sizes = [sum(p.numel() for p in net.parameters()) for net in (picked.model, model)]
    assert sizes[0] < sizes[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(UserError, match="has no setting"):
        pp.prune(model, splits, policy, out=tmp_path / "other", target_flop=0.5)


def test_the_loss_budget_prunes_at_once_and_in_steps(dense, tmp_path):
    words = ("--policy", "balanced-pruning", "--target-flops", "0.5", "--weights", dense[2])
    for name, more in (("once", ()), ("steps", ("--steps", 2))):
        done = call_here("prune", *words, *more, "--out", tmp_path / name, *QUICK)
        assert done.returncode == 0, done.stderr
        assert 0.48 < evaluation_in(tmp_path / name)["flops_fraction"] <= 0.5
