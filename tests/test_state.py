"""What outlives an engine of 2 ranks: its checkpoint with random states, its gathered weights; also when offloaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def seen(run_ranks, tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("state")
    # the offloaded engine's optimizer is compiled on its first use, which takes minutes on a busy machine
    run_ranks([str(Path(__file__).with_name("rank_state.py")), str(folder)], 2, timeout=580)
    return json.loads((folder / "seen.json").read_text())


def test_a_loaded_engine_has_the_weights_and_random_states_that_were_saved(seen):
    main = seen[0]
    assert main["partitioned"], "otherwise this says nothing about ZeRO-3"
    assert main["changed"] and main["same_weights"]
    assert "model.embed_tokens.weight" in main["names"] and "lm_head.weight" not in main["names"], "tied: written once"
    assert seen[0]["same_draws"] and seen[1]["same_draws"]
    assert seen[0]["draws"] != seen[1]["draws"], "each rank has its own"


def test_a_failure_on_rank_0_reaches_every_rank(seen):
    assert seen[0]["told"] == seen[1]["told"] == "rank 0 could not fetch nothing: 'nothing'"


def test_a_failure_on_another_rank_reaches_every_rank_too(seen):
    assert seen[0]["told_by_1"] == seen[1]["told_by_1"] == "rank 1 could not divide: made to fail"


def test_each_rank_hashes_what_it_wrote_itself(seen):
    first, second = seen[0]["hashed"], seen[1]["hashed"]
    assert "rng_rank00000.pt" in first and "rng_rank00001.pt" in second
    assert len(second) == 3, "weights, optimizer and random states of rank 1"
    assert all("rank_1_" in name or "rank00001" in name for name in second)
    assert sorted([*first, *second]) == seen[0]["manifest"], "and each file is hashed once"


def test_offloaded_gradients_are_measured_dropped_and_stepped_on(seen):
    main = seen[0]
    assert main["norms"][1] == pytest.approx(main["norms"][0], rel=1e-6)
    assert main["untouched"], "a discarded gradient leaves the weights alone"
    assert main["moved"] > 1e-4
    assert main["apart"] < 1e-3 * main["moved"], "DeepSpeed's CPU Adam and torch's AdamW take the same step"
