"""The simulated search: halving and the sampler must have something to tell apart."""

from benchmarks.simulation import accuracy_of, ledger_of


def test_no_two_simulated_trials_tie(tmp_path):
    ledger = ledger_of(tmp_path, 20)
    jobs = [ledger.next_job().to_json() for _ in range(20)]
    accuracies = [accuracy_of(job["policy"], job["target"]) for job in jobs]
    assert len(set(accuracies)) == 20
    assert all(0 <= accuracy < 1 for accuracy in accuracies)
    assert accuracy_of(jobs[0]["policy"], jobs[0]["target"]) == accuracies[0]
