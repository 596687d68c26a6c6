"""What is sent through the tree of ranks arrives, by rank, and no rank has more than a few neighbors."""

import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from distrib.train.process.rank_tree import FAN_OUT, RankTree, place
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.timeout(120)


def depth(rank, world_size, fan_out):
    parent = place(rank, world_size, fan_out)[0]
    return 0 if parent is None else 1 + depth(parent, world_size, fan_out)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 9))
def test_every_rank_has_one_place_in_the_tree(world_size, fan_out):
    places = [place(rank, world_size, fan_out) for rank in range(world_size)]
    assert [rank for rank, (parent, _, _) in enumerate(places) if parent is None] == [0]
    assert places[0][1] == world_size
    for rank, (_, size, subtrees) in enumerate(places):
        assert len(subtrees) <= fan_out
        assert [value for first, end in subtrees for value in range(first, end)] == [*range(rank + 1, rank + size)]
        for first, end in subtrees:
            assert places[first][:2] == (rank, end - first)


def test_a_thousand_ranks_are_five_levels_deep():
    assert max(depth(rank, 1024, FAN_OUT) for rank in range(1024)) == 5


def exchange(rank, world_size):
    tree = RankTree(dist.group.WORLD, fan_out=2)
    seen = []

    def combine(rows):
        seen.append(rows.tolist())
        return [float(rows.sum()), -1.0]

    answer = tree.combine([rank, 10.0 * rank], 2, combine)
    sums = tree.sums([1.0, rank / 3])
    objects = tree.gather_objects({"rank": rank, "text": "x" * (1000 * rank)})
    joined = tree.combine_objects(f"{rank}", "".join)
    passed = [tree.pass_object(objects, to) for to in range(world_size)]
    shared = tree.broadcast_object("from the first" if rank == 0 else None)
    return {"seen": seen, "answer": answer, "sums": sums, "joined": joined, "shared": shared} | {
        "objects": None if objects is None else [value["rank"] for value in objects],
        "passed": [each is not None for each in passed],
    }


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_values_of_all_ranks_reach_rank_0_and_its_answer_all_ranks(world_size):
    results = run_ranks(exchange, world_size)
    ranks = [*range(world_size)]
    assert results[0]["seen"] == [[[float(rank), 10.0 * rank] for rank in ranks]]
    assert results[0]["objects"] == ranks
    for rank, result in enumerate(results):
        assert result["answer"] == [11.0 * sum(ranks), -1.0]
        assert result["sums"] == results[0]["sums"]
        assert result["sums"] == pytest.approx([world_size, sum(ranks) / 3])
        assert result["joined"] == "".join(map(str, ranks))
        assert result["shared"] == "from the first"
        assert result["passed"] == [to == rank for to in ranks]
        assert rank == 0 or (result["seen"] == [] and result["objects"] is None)
