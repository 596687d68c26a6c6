"""The table of ranks: where each runs, what its steps consist of, and which was found to be slow."""

from distrib.observe.rank_table import RankHealth


def start(num_ranks):
    return {"event": "start", "ranks": [{"host": f"node{rank}", "device": "cpu"} for rank in range(num_ranks)]}


def train(compute, *, data=0.001):
    longest = max(compute) + data
    return {
        "event": "train",
        "rank_step_seconds": [longest] * len(compute),
        "rank_data_seconds": [data] * len(compute),
        "rank_compute_seconds": compute,
        "rank_wait_seconds": [longest - data - seconds for seconds in compute],
    }


def health(*events):
    found = RankHealth()
    for event in events:
        found.add(event)
    return found


def test_a_table_of_two_ranks():
    slow = {"event": "warning", "rank": 1, "host": "node1", "slow_at": "compute", "message": "…"}
    assert health(start(2), train([0.01, 0.05]), slow).lines() == [
        "rank  host   step  data  compute  wait  (ms a step)",
        "   0  node0    51     1       10    40",
        "   1  node1    51     1       50     0  slow at compute",
    ]


def test_of_many_ranks_those_that_need_the_longest_are_shown():
    lines = health(start(20), train([0.001 * (20 - rank) for rank in range(20)])).lines()
    assert [line.split()[0] for line in lines[1:-1]] == [str(rank) for rank in range(8)]
    assert lines[-1] == "and 12 faster ranks"


def test_programs_get_all_of_it():
    rows = health(start(3), train([0.01, 0.02, 0.03])).rows
    assert [(row["rank"], row["host"], row["compute_seconds"]) for row in rows] == [
        (0, "node0", 0.01),
        (1, "node1", 0.02),
        (2, "node2", 0.03),
    ]


def test_a_new_attempt_begins_anew():
    assert health(start(2), train([0.01, 0.05]), start(2)).lines() == []


def test_a_single_rank_and_damaged_events_have_no_table():
    assert health(start(1), train([0.01])).lines() == []
    assert health({"event": "train"}).lines() == []
    assert health({"event": "start", "ranks": 3}, {"event": "train", "rank_step_seconds": 1}).lines() == []
    assert health(start(2), {"event": "train", "rank_step_seconds": [1.0, None]}).lines()[2].split() == [
        "1", "node1", "–", "–", "–", "–"
    ]  # fmt: skip
