# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a comparison: which names stand where, that none covers another, and the differences."""

from __future__ import annotations

import numpy as np
import pytest

from longshort_verl.evaluation.compare import Comparison, Spread
from longshort_verl.report.comparison import draw_comparison, plot_comparison
from longshort_verl.report.output import label_points, new_figure

ABLATIONS = ["first", "frozen_peer", "importance", "joint", "no_decay", "random", "shared"]


def system(name, accuracy=0.9, tokens=21.0, difference=0.0, saved=0.0, seeds=1):
    """A system whose intervals are one point of accuracy wide, to each side."""
    return Comparison(
        system=name,
        num_seeds=seeds,
        num_problems=100,
        accuracy=Spread(mean=accuracy, low=accuracy, high=accuracy),
        num_tokens=Spread(mean=tokens, low=tokens, high=tokens),
        details={},
        accuracy_interval=(accuracy - 0.01, accuracy + 0.01),
        tokens_interval=(tokens * 0.98, tokens * 1.02),
        difference=difference,
        interval=(difference - 0.01, difference + 0.01),
        saved=saved,
        aes=None,
        aes_interval=None,
        budgets=(0.1, accuracy / 2, accuracy, accuracy),
        area=0.5,
        frontier_gap=None,
        aes_resampled=None,
    )


MAIN = [
    system("solo", 0.69, 162, seeds=3),
    system("exit_0", 0.15, 3),
    system("cold_start", 0.78, 21.7),
    system("pair", 0.90, 21.5, seeds=3),
    system("single", 0.93, 45),
]


@pytest.fixture(scope="module")
def figure():
    """Main systems apart from each other, and ablations that all lie on the pair."""
    ablations = [system(name) for name in ABLATIONS]
    against = [
        system("pair"),
        system("exit_0", difference=-0.7),
        system("single", difference=0.035, saved=-1.1, seeds=3),
    ]
    against += [system(name, difference=0.002 * number, saved=0.05) for number, name in enumerate(ABLATIONS)]
    against[-2] = system("random", difference=-0.48, saved=-0.03)
    return draw_comparison([*MAIN, *ablations], "a $title", against)


def extents(axes):
    return {text.get_text(): text.get_window_extent() for text in axes.texts}


def overlapping(boxes):
    return [(a, b) for a in boxes for b in boxes if a < b and boxes[a].overlaps(boxes[b])]


def test_main_systems_are_named_beside_their_points(figure):
    for axes in figure.axes[:2]:
        boxes = extents(axes)
        assert list(boxes) == ["base (solo)", "exit 0", "cold start", "pair", "single"]
        assert overlapping(boxes) == []
        points = axes.transData.transform(np.concatenate([line.get_xydata() for line in axes.lines]))
        for name, box in boxes.items():
            assert axes.get_window_extent().containsx(box.x0), name
            assert axes.get_window_extent().containsx(box.x1), name
            assert box.count_contains(points) == 0, name
    for one in MAIN:
        name = {"solo": "base (solo)"}.get(one.system, one.system.replace("_", " "))
        place = figure.axes[0].transData.transform((one.num_tokens.mean, one.accuracy.mean))
        box = extents(figure.axes[0])[name]
        nearest = np.clip(place, (box.x0, box.y0), (box.x1, box.y1))
        assert np.hypot(*(place - nearest)) < 50, f"{name} stands far from its point"


def test_the_others_are_gray_there_and_differences_below(figure):
    points, _, differences = figure.axes
    assert sum(line.get_color() == "0.75" for line in points.lines) == 3 * len(ABLATIONS)
    names = [label.get_text() for label in differences.get_yticklabels()]
    assert names[0] == "random, 1 seed"
    assert names[-1] == "single, 3 seeds"
    assert {name.split(",")[0] for name in names} == {"single", *(name.replace("_", " ") for name in ABLATIONS)}
    values = [label.get_text() for label in differences.child_axes[0].get_yticklabels()]
    assert (values[0], values[-1]) == ("-48.0 (-49.0 to -47.0), 103%", "+3.5 (+2.5 to +4.5), 210%")
    colours = [line.get_color() for line in differences.lines[1:-1:2]]
    assert (colours[0], colours[1], colours[-1]) == ("tab:red", "0.4", "tab:green")
    intervals = [list(line.get_xdata()) for line in differences.lines[:-1:2]]
    assert intervals[0] == pytest.approx([-49, -47])
    assert "minus that of pair" in differences.get_title()


def test_a_few_systems_of_any_name_are_all_named(tmp_path):
    systems = [system("solo", 0.5, 100), system("$_{", 0.7, 20, 0.2), system("theirs", 0.7, 20, 0.2)]
    figure = draw_comparison(systems, "", systems)
    assert list(extents(figure.axes[0])) == ["base (solo)", r"\$ {", "theirs"]
    assert overlapping(extents(figure.axes[0])) == [], "they lie on the same point"
    assert "minus that of solo" in figure.axes[2].get_title()
    plot_comparison(systems[:1], tmp_path / "alone.png", title="a $title")
    assert (tmp_path / "alone.png").stat().st_size > 10_000


def test_low_accuracies_fill_the_axes_and_high_ones_end_at_one():
    for accuracy, top in ((0.04, 0.2), (0.93, 1.06)):
        figure = draw_comparison([system("solo", accuracy / 2, 270), system("pair", accuracy, 190)], "", MAIN)
        for axes in figure.axes[:2]:
            bottom, highest = axes.get_ylim()
            assert bottom == 0
            assert accuracy < highest < top


@pytest.mark.parametrize("seed", range(3))
def test_names_of_crowded_points_do_not_overlap(seed):
    figure = new_figure(6, 4)
    axes = figure.subplots()
    places = np.random.default_rng(seed).uniform(0.3, 0.7, (8, 2))
    axes.plot(*places.T, "o")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_points(axes, [(f"system {number}", *place, "black") for number, place in enumerate(places)])
    assert len(axes.texts) == 8
    assert overlapping(extents(axes)) == []
