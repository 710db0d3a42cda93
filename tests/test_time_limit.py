"""--max-minutes: what comes before the trials is made to fit, or says what would shorten it."""

import json
import time
from dataclasses import replace

import pytest
from door import call

from paretoprune.search.preparing import (
    ENSEMBLE_IMAGES,
    EVIDENCE,
    LEAST_IMAGES,
    images_that_fit,
    runs_an_image,
    with_images,
)
from paretoprune.search.settings import SearchSettings
from paretoprune.search.time_limit import TimeLimit
from paretoprune.spaces.policy import Policy

ASKED = SearchSettings(target_flops="0.4", max_minutes=20.0, workers=2)
BUDGET = Policy("taylor", allocation="loss-budget")


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (8.0, ()),
        (15.0, ("15 of the 20 minutes of --max-minutes", "--ensemble-images")),
        (23.0, ("23 of the 20 minutes of --max-minutes", "no more than one, at the target")),
    ],
)
def test_a_long_beginning_says_what_would_shorten_it(passed, said):
    limit = TimeLimit(20.0, begin=time.monotonic() - 60 * passed)
    sentence = limit.long_beginning()
    assert bool(sentence) == bool(said)
    for words in said:
        assert words in sentence


def test_without_a_limit_nothing_is_late():
    limit = TimeLimit(None, begin=time.monotonic() - 1e6)
    assert limit.until is None
    assert not limit.past(0.1)
    assert not limit.long_beginning()


def test_evidence_takes_its_share_of_the_minutes_at_most():
    runs = runs_an_image([Policy("ensemble"), Policy("taylor"), BUDGET], groups=32)
    assert runs == 1 + 32 * 7 * 0.5 / 32
    for seconds in (1e-6, 1e-3, 5e-3, 2e-2, 10.0):
        images = images_that_fit(ASKED, seconds, runs)
        assert LEAST_IMAGES <= images <= ENSEMBLE_IMAGES
        if images > LEAST_IMAGES:
            assert images * runs * seconds / 2 <= 20 * 60 * EVIDENCE
    assert images_that_fit(ASKED, 1e-6, runs) == ENSEMBLE_IMAGES
    assert images_that_fit(ASKED, 10.0, runs) == LEAST_IMAGES
    assert images_that_fit(ASKED, 1e-3, 0.0) == ENSEMBLE_IMAGES  # nothing runs them


def test_the_user_and_the_time_decide_before_the_usual_number():
    assert with_images(replace(ASKED, max_minutes=None)).ensemble_images == ENSEMBLE_IMAGES
    assert with_images(ASKED).ensemble_images is None
    assert with_images(replace(ASKED, ensemble_images=2048)).ensemble_images == 2048


def test_a_short_search_measures_on_fewer_images_and_a_resumed_one_on_as_many(tmp_path):
    run = tmp_path / "run"
    words = ("--target-flops", 0.5, "--dense-epochs", 1, "--epochs", 0.2, "--trials", 1,
             "--scores", "ensemble", "--schedules", "one-shot", "--max-minutes", 1e-3,
             "--allocations", "global-threshold", "--no-screening", "--out", run)  # fmt: skip
    done = call("search", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "evidence is measured on 1,024 images instead of 16,384" in done.stdout
    assert "at the target, is begun" in done.stdout
    kept = json.loads((run / "config.json").read_text())["settings"]
    assert kept["ensemble_images"] == LEAST_IMAGES
    tables = sorted((run / "evidence").glob("*.npz"))
    again = call("search", "--resume", run, "--trials", 2)
    assert again.returncode == 0, again.stdout + again.stderr
    assert sorted((run / "evidence").glob("*.npz")) == tables
