"""What the benchmarks make of numbers, without measuring any."""

from __future__ import annotations

import pytest

from benchmarks import bench
from benchmarks.capacity import Node, RunCosts, carried, runs_in_memory_of_redis, runs_per_second_of_redis
from benchmarks.costs import Costs
from benchmarks.figures import quantile, ratio, slope, steady_ratio
from benchmarks.footprint import MB, Waiting
from benchmarks.growth import Growth
from benchmarks.live import Delays
from benchmarks.service import Usage
from benchmarks.speed import Row
from benchmarks.tables import TOP, judged, number, splice, table


def test_a_ratio_is_made_pair_by_pair() -> None:
    found = ratio([1.0, 4.0, 3.0], [2.0, 4.0, 2.0])
    assert (found.median, found.low, found.high) == (1.0, 0.5, 1.5)


def test_sides_that_were_measured_unequally_often_have_no_ratio() -> None:
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])


def test_one_disturbed_pair_neither_hides_nor_makes_up_a_regression() -> None:
    ones = [1.0] * 9
    assert steady_ratio([1.2] * 8 + [0.5], ones).verdict == "slower"
    assert steady_ratio([1.0] * 8 + [3.0], ones).verdict == "same"


def test_few_pairs_must_all_agree() -> None:
    assert steady_ratio([1.2, 1.2, 0.9], [1.0] * 3).verdict == "same"
    assert steady_ratio([1.2, 1.2, 1.1], [1.0] * 3).verdict == "slower"


def test_a_change_for_the_better_is_told_too() -> None:
    assert steady_ratio([0.8, 0.9, 0.7], [1.0] * 3).verdict == "faster"


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert quantile([7.0], 0.99) == 7.0


def test_what_is_paid_once_is_no_part_of_a_slope() -> None:
    assert slope((1_000, 0.5), (10_000, 9.5)) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.05123, "0.051"),
        (0.512, "0.51"),
        (5.123, "5.1"),
        (51.2, "51"),
        (5123.4, "5,123"),
        (0, "0"),
        (-0.012, "-0.012"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_mean_something(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_table_is_markdown_and_a_bar_in_a_cell_does_not_break_it() -> None:
    assert table(["work", "API / CLI"], [["a|b", "1"]]) == "| work | API / CLI |\n|---|---|\n| a/b | 1 |\n"


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2"):
        table(["work", "seconds"], [["debug"]])


def test_what_misses_its_goal_is_shown_in_bold() -> None:
    assert [judged(0.2, goal, "0.20") for goal in (0.1, 0.2, None)] == ["**0.20**", "0.20", "0.20"]


PAGE = "# Page\n\n<!-- begin make bench -->\nold\n<!-- end make bench -->\n\nrest\n"


def test_a_table_takes_the_place_of_the_last_one_and_nothing_else_changes() -> None:
    once = splice(PAGE, "make bench", "| new |\\1\n")
    assert once == "# Page\n\n<!-- begin make bench -->\n| new |\\1\n<!-- end make bench -->\n\nrest\n"
    assert splice(once, "make bench", "| new |\\1\n") == once


@pytest.mark.parametrize("page", ["# Page\n", PAGE + PAGE, PAGE.replace("<!-- end make bench -->", "")])
def test_a_page_without_its_one_place_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="needs one place"):
        splice(page, "make bench", "new")


@pytest.mark.parametrize(
    ("file", "name"),
    [("docs/performance.md", "make bench"), ("README.md", "make bench"), ("docs/scaling.md", "make scale")],
)
def test_the_pages_have_their_places(file: str, name: str) -> None:
    splice((TOP / file).read_text(encoding="utf-8"), name, "new")


def test_the_report_tells_each_figure_beside_its_goal() -> None:
    found = bench.Found(
        rows=[
            Row("ad-hoc `debug`", [[0.2, 0.1], [1.0, 1.0], [1.2, 1.2], [1.5, 1.5]], 0.12),
            Row("loop", [[5], [6]], 1),
        ],
        against=[Row("own ansible.cfg", [[0.1], [0.1]], 1.1)],
        growth=[Growth("a loop", {0: 0.1, 1_000: 0.2}, {0: 0.6, 1_000: 0.8})],
        ready_seconds=[2.0, 9.0, 2.5],
        costs={"debug": Costs({"run": 0.05, "web": 0.004}, 0.002, 130.0, 31.0, 10_300.0, 2_400.0, 15_000.0, 5.0)},
        cli_cpu_seconds={"debug": 0.5},
        idle={"web": Usage(pss=150 * MB), "worker": Usage(pss=100 * MB)},
        delays=Delays([0.005] * 48 + [0.06] * 2, [0.002] * 9),
        poll_round_trips=1.0,
    )
    waiting = Waiting(50, 12.0, 42 * MB, 58 * MB, 70 * MB, 86 * MB, 7.0, 5.0)
    lines = bench.report("2026-11-22", found, waiting).splitlines()
    assert lines[0] == "2026-11-22"
    for line in (
        "| ad-hoc `debug` | 0.150 | 1.000 | **0.15** | 0.10 to 0.20 | ≤ 0.12 | 1.20 | 1.50 |",
        "| loop | 5.000 | 6.000 | 0.83 | 0.83 to 0.83 | ≤ 1.00 |  |  |",
        "| a loop | 1,000 | 0.20 | 0.80 | 100 | 200 |",
        "| `flansible up` is ready | 2.5 s | ≤ 3 s |",
        "| memory of the idle service, all processes (PSS) | **250 MB**: web 150, worker 100 | ≤ 220 MB |",
        "| from event to a follower of the events, 9 of them | 2.0 ms, p99 2.0 ms | ≤ 10 ms, p99 ≤ 50 ms |",
        "| CPU of one `debug`, all processes | 0.05 s (run 0.050, web 0.004); CLI 0.50 s |  |",
        "| Redis commands of one status poll | 1 | 1 |",
    ):
        assert line in lines


COSTS = RunCosts(ansible=0.09, worker=0.01, web=0.004, redis=0.002, waiting_bytes=50e6, stored_bytes=20_000)


def test_busy_runs_grow_with_the_cores_and_waiting_ones_with_the_memory() -> None:
    small, large = (carried(Node(cores, 8), COSTS, 100e6) for cores in (2, 4))
    assert (small.busy_per_second, large.busy_per_second) == (pytest.approx(16), pytest.approx(32))
    assert small.waiting == large.waiting == int((8e9 * 0.8 - 100e6) / 50e6)


def test_a_node_has_as_many_workers_as_their_own_share_takes_cores() -> None:
    assert carried(Node(8, 8), COSTS, 0).workers == 1
    assert carried(Node(32, 8), COSTS, 0).workers == 4


def test_a_worker_has_no_more_slots_than_can_be_set() -> None:
    assert carried(Node(2, 200), COSTS, 0).workers == 4


def test_redis_is_bound_by_one_core_and_by_its_memory() -> None:
    assert runs_per_second_of_redis(COSTS) == pytest.approx(400)
    assert runs_in_memory_of_redis(COSTS, 1) == 50_000
