"""Plugins: what they add holds for the search that names them, and for no other."""

import pickle

import pytest

from paretoprune.analysis.scores.registry import all_scores
from paretoprune.search.optimizer.plugins import plugins_loaded, read_plugin
from paretoprune.search.optimizer.search_space import registered_spaces
from paretoprune.spaces.errors import UserError

SCORE = """
import paretoprune as pp

@pp.score("mine")
def mine(network):
    return network.per_atom(lambda weight: weight.flatten(1).norm(dim=1))
"""
SPACE = """
import paretoprune as pp

@pp.policy_space
def narrow(asked):
    return pp.Policy("l2", floor=asked.suggest_int("least", 1, 4))
"""


def plugin(folder, name, text):
    (folder / name).write_text(text)
    return read_plugin(folder / name)


def test_what_a_plugin_adds_holds_for_its_search_alone_and_again_for_the_next(tmp_path):
    score, space = plugin(tmp_path, "a.py", SCORE), plugin(tmp_path, "b.py", SPACE)
    for _ in range(2):
        with plugins_loaded([score]), plugins_loaded([score, space]):
            assert "mine" in all_scores()
            assert [function.__name__ for function in registered_spaces()] == ["narrow"]
        assert "mine" not in all_scores()
        assert registered_spaces() == ()


def test_a_changed_plugin_may_keep_its_names(tmp_path):
    for text in (SCORE, f"{SCORE}# better\n"):
        with plugins_loaded([plugin(tmp_path, "a.py", text)]):
            assert "mine" in all_scores()


def test_a_plugin_that_fails_leaves_nothing(tmp_path):
    broken = plugin(tmp_path, "a.py", f"{SCORE}{SPACE}1 / 0\n")
    with pytest.raises(UserError, match="must import"), plugins_loaded([broken]):
        pass
    assert "mine" not in all_scores()
    assert registered_spaces() == ()


def test_a_plugin_that_adds_nothing_is_refused(tmp_path):
    idle = plugin(tmp_path, "a.py", "import paretoprune as pp\n")
    adds_none = pytest.raises(UserError, match=r"must add a score .*, got .*a\.py that adds none")
    with adds_none, plugins_loaded([idle]):
        pass


def test_what_was_read_is_what_holds_also_where_the_file_is_not(tmp_path):
    read = pickle.loads(pickle.dumps(plugin(tmp_path, "a.py", f"{SCORE}# sent\n")))
    (tmp_path / "a.py").unlink()
    with plugins_loaded([read]):
        assert "mine" in all_scores()
