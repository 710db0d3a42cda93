"""--max-minutes: what comes before the trials is made to fit, or says what would shorten it."""

import json
import time
from dataclasses import asdict, replace

import pytest
from command_line import call
from hypothesis import given, settings
from hypothesis import strategies as st

from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.deadline import DENSE, Deadline
from paretoprune.search.driver.dense_model import (
    DENSE_TRAINING,
    DenseModelInputs,
    DenseTraining,
    train_dense_weights,
)
from paretoprune.search.driver.measurement_budget import (
    DEFAULT_ENSEMBLE_IMAGES,
    MEASUREMENT_TIME_SHARE,
    MIN_ENSEMBLE_IMAGES,
    affordable_images,
    passes_per_image,
    with_default_images,
)
from paretoprune.search.driver.reuse import link_from_related_runs
from paretoprune.search.storage.run_folder import create_run_folder
from paretoprune.spaces.io.atomic_write import write_json_atomic
from paretoprune.spaces.policy.policy import Policy
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.runtime.device import DeviceConfig
from paretoprune.trainers.training.loop import report_steps, run_session, training_progress
from paretoprune.trainers.training.optimizer import TrainingSettings
from paretoprune.trainers.training.session import TrainingSession
from paretoprune.trainers.training.time_limit import MIN_STEPS, within

ASKED = SearchSettings(target_flops="0.4", max_minutes=20.0, workers=2)
BUDGET = Policy("taylor", allocation="loss-budget")


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (8.0, ()),
        (15.0, ("15 of the 20 minutes of --max-minutes", "--ensemble-images")),
        (23.0, ("23 of the 20 minutes of --max-minutes", "only one trial, at the target")),
    ],
)
def test_a_late_start_names_what_would_shorten_the_preparation(passed, said):
    limit = Deadline(20.0, begin=time.monotonic() - 60 * passed)
    sentence = limit.late_start_message()
    assert bool(sentence) == bool(said)
    for words in said:
        assert words in sentence


def test_without_a_limit_nothing_is_late():
    limit = Deadline(None, begin=time.monotonic() - 1e6)
    assert limit.ends_at is None
    assert not limit.is_share_exceeded(0.1)
    assert not limit.late_start_message()


def test_measurements_take_at_most_their_share_of_the_minutes():
    runs = passes_per_image([Policy("ensemble"), Policy("taylor"), BUDGET], groups=32)
    assert runs == 1 + 32 * 7 * 0.5 / 32
    for seconds in (1e-6, 1e-3, 5e-3, 2e-2, 10.0):
        images = affordable_images(ASKED, seconds, runs)
        assert MIN_ENSEMBLE_IMAGES <= images <= DEFAULT_ENSEMBLE_IMAGES
        if images > MIN_ENSEMBLE_IMAGES:
            assert images * runs * seconds / 2 <= 20 * 60 * MEASUREMENT_TIME_SHARE
    assert affordable_images(ASKED, 1e-6, runs) == DEFAULT_ENSEMBLE_IMAGES
    assert affordable_images(ASKED, 10.0, runs) == MIN_ENSEMBLE_IMAGES
    assert affordable_images(ASKED, 1e-3, 0.0) == DEFAULT_ENSEMBLE_IMAGES  # nothing runs them


def test_the_user_or_the_time_limit_overrides_the_default_number_of_images():
    assert (
        with_default_images(replace(ASKED, max_minutes=None)).ensemble_images
        == DEFAULT_ENSEMBLE_IMAGES
    )
    assert with_default_images(ASKED).ensemble_images is None
    assert with_default_images(replace(ASKED, ensemble_images=2048)).ensemble_images == 2048


def test_a_short_search_measures_on_fewer_images_and_a_resumed_one_on_as_many(tmp_path):
    run = tmp_path / "run"
    words = ("--target-flops", 0.5, "--dense-epochs", 1, "--epochs", 0.2, "--trials", 1,
             "--scores", "ensemble", "--schedules", "one-shot", "--max-minutes", 1e-3,
             "--allocations", "global-threshold", "--no-screening", "--out", run)  # fmt: skip
    done = call("search", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "measurements use 1,024 images instead of 16,384" in done.stdout
    assert "at the target, will start" in done.stdout
    kept = json.loads((run / "config.json").read_text())["settings"]
    assert kept["ensemble_images"] == MIN_ENSEMBLE_IMAGES
    tables = sorted((run / "evidence").glob("*.npz"))
    again = call("search", "--resume", run, "--trials", 2)
    assert again.returncode == 0, again.stdout + again.stderr
    assert sorted((run / "evidence").glob("*.npz")) == tables


def network():
    return build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)


def dense_trained(folder, minutes, epochs):
    asked = SearchSettings(target_flops="0.4", max_minutes=minutes, dense_epochs=epochs)
    said = []
    on = DenseModelInputs(network(), load_data("digits"), asked)
    weights, training = train_dense_weights(
        DeviceConfig(), folder / "unseen" / "x", on, said.append
    )
    return weights, training, said


def test_dense_training_takes_its_share_of_the_minutes_and_says_so(tmp_path):
    seconds = 1.0
    dense_trained(tmp_path, None, 0.1)  # the imports that a first training makes
    begin = time.monotonic()
    _, training, said = dense_trained(tmp_path, seconds / 60 / DENSE, 1000.0)
    assert time.monotonic() - begin < 4 * seconds
    assert training.shortened
    assert said[-1].startswith(f"dense training shortened to {training.epochs:.3g} of 1000 epochs")
    assert "to fit --max-minutes 0.0667" in said[-1]


def test_a_limit_that_leaves_time_enough_changes_no_bit_of_the_dense_network(tmp_path):
    free, _, _ = dense_trained(tmp_path, None, 1.5)
    limited, training, said = dense_trained(tmp_path, 1e3, 1.5)
    assert limited == free
    assert not training.shortened
    assert not any("shortened" in line for line in said)


def test_a_shortened_schedule_anneals_to_its_end():
    tuning = TrainingSettings(epochs=1000, learning_rate=0.1, warmup=0.1, distill=0.0)
    session = TrainingSession(
        network(), load_data("digits"), tuning, seed=0, machine=DeviceConfig()
    )
    log = run_session(session, within(session, 1.0, lambda progress: True))
    rates = [progress.learning_rate for progress in log.history]
    assert log.ended == "finished"
    assert log.steps < 500 * session.steps_per_epoch
    assert max(rates) > 0.05
    assert rates[-1] < 0.02


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.1, 1e3),
    st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=50),
    st.floats(0.05, 20.0),
)
def test_whatever_the_pace_a_limited_training_ends_about_in_time(seconds, paces, epochs):
    """One that is shortened overruns by no more than what passes between two reports."""
    tuning = TrainingSettings(epochs=epochs, distill=0.0)
    session = TrainingSession(
        network(), load_data("digits"), tuning, seed=0, machine=DeviceConfig()
    )
    asked, passed, longest = session.total_steps, 0.0, 0.0
    report = within(session, seconds, lambda progress: True)
    while session.step < session.total_steps:
        goal = report_steps(session)[0]
        took = sum(paces[step % len(paces)] for step in range(session.step, goal))
        passed, longest, session.step = passed + took, max(longest, took), goal
        report(training_progress(session, 0, passed))
    assert session.step <= asked
    assert session.step >= min(asked, MIN_STEPS)
    assert passed <= seconds + longest + MIN_STEPS
    if session.step < asked:
        assert passed >= min(0.4 * seconds, seconds - longest - MIN_STEPS)


@pytest.mark.parametrize(
    ("trained", "minutes", "taken"),
    [
        (DenseTraining(7.0, 31.0, 0.5), 0.5, True),
        (DenseTraining(7.0, 31.0, 0.5), None, False),  # it is no full network
        (DenseTraining(7.0, 31.0, 0.5), 1.0, False),
        (DenseTraining(31.0, 31.0, None), 0.5, False),  # alone, this run would have less
        (DenseTraining(31.0, 31.0, None), None, True),
        (DenseTraining(31.0, 31.0, 9.0), None, True),  # the limit was no limit
        (None, None, True),  # of an older version
        (None, 0.5, False),
    ],
)
def test_a_shortened_dense_training_is_not_reused_as_a_full_one(tmp_path, trained, minutes, taken):
    other, own = create_run_folder(tmp_path / "other"), create_run_folder(tmp_path / "own")
    write_json_atomic(other.config, {} if trained is None else {DENSE_TRAINING: asdict(trained)})
    write_json_atomic(own.config, {})
    other.dense.write_bytes(b"weights")
    link_from_related_runs(own, [other.root], dense=True, max_minutes=minutes)
    assert own.dense.exists() == taken
