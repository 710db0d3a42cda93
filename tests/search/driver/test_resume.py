"""What may be given again to a run that goes on."""

import pytest

from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.resume import resumed_settings
from paretoprune.spaces.errors import UserError


def resumed(repeated, **settings):
    """The settings that a run of these goes on with."""
    begun = SearchSettings(target_flops="0.4", **settings)
    config = {
        "settings": begun.to_json(), "model_given": False, "data_given": False, "plugins": [],
    }  # fmt: skip
    return resumed_settings(config, repeated, model=None, data=None)[0]


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("cpus_per_trial", 0.0, "cpus_per_trial must be finite and above 0, got 0"),
        ("workers", -3, "workers must be at least 1, got -3"),
        ("gpus_per_trial", -1.0, "gpus_per_trial must be at least 0, got -1"),
        ("gpus_per_trial", 1.5, "gpus_per_trial must be a whole number above 1, got 1.5"),
        ("max_minutes", float("nan"), "max_minutes must be finite and above 0, got nan"),
        ("trial_timeout", -1.0, "trial_timeout must be finite and above 0, got -1"),
    ],
)
def test_what_may_change_is_checked_as_at_the_start(name, value, rule):
    with pytest.raises(UserError, match=f"^{rule}"):
        resumed({name: value})


def test_what_may_change_holds_and_the_rest_is_kept():
    settings = resumed({"workers": 3, "trials": 30}, workers=2, seed=7)
    assert (settings.workers, settings.trials, settings.seed) == (3, 30, 7)


def test_a_place_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = {"artifacts": f"{tmp_path}/store", "out": tmp_path / "run"}
    assert resumed({"artifacts": "store", "out": "run"}, **kept).artifacts == f"{tmp_path}/store"
    with pytest.raises(UserError, match="got another artifacts"):
        resumed({"artifacts": "elsewhere"}, **kept)
