"""Many workers whose trials only sleep: what Tune does with them."""

import os

import pytest

from benchmarks.simulation import accuracy_of, ledger_of, simulate, sleeping


def test_no_two_simulated_trials_tie(tmp_path):
    store = ledger_of(tmp_path, 20)
    jobs = [store.next_trial().to_json() for _ in range(20)]
    accuracies = [accuracy_of(job["policy"], job["target"]) for job in jobs]
    assert len(set(accuracies)) == 20
    assert all(0 <= accuracy < 1 for accuracy in accuracies)
    assert accuracy_of(jobs[0]["policy"], jobs[0]["target"]) == accuracies[0]


@pytest.mark.timeout(300)
def test_a_worker_that_died_is_replaced_while_the_others_end_trial_upon_trial(tmp_path):
    sleep, once = sleeping(0.3), tmp_path / "died"
    seen = tmp_path / "seen"
    seen.mkdir()

    def carry_out(config, shared):
        if config["job"]["number"] == 6 and not once.exists():
            once.touch()
            os._exit(1)
        (seen / str(os.getpid())).touch()
        sleep(config, shared)

    found = simulate(4, 40, carry_out)
    assert once.exists()
    assert found["trials"] == 160
    assert len(list(seen.iterdir())) == 5
