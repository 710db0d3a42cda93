"""What a search says where its --max-minutes are nearly over before its first trial."""

import time

import pytest

from paretoprune.search.run import late_sentence
from paretoprune.search.settings import SearchSettings


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (12.0, ()),
        (5.0, ("15 of the 20 minutes of --max-minutes", "--ensemble-images")),
        (-3.0, ("23 of the 20 minutes of --max-minutes", "no more than one, at the target")),
    ],
)
def test_a_long_beginning_says_what_would_shorten_it(left, said):
    settings = SearchSettings(target_flops="0.4", max_minutes=20.0)
    sentence = late_sentence(settings, time.monotonic() + 60 * left)
    assert bool(sentence) == bool(said)
    for words in said:
        assert words in sentence
