"""Static figures: the same shapes as SVG and PNG, and the notebook views of a result."""

import io
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from run_folders import write_run

from paretoprune.analysis.report.front_plot import front_drawing, ticks
from paretoprune.analysis.report.svg_png import Drawing, Line, Marker, TextLine, to_png, to_svg
from paretoprune.search.api import Result
from paretoprune.search.results.run_summary import summarize_run
from paretoprune.search.storage.run_folder import RunFolder
from paretoprune.spaces.errors import UserError

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "<b>run</b>".replace("/", "")
    write_run(folder, trials=10)
    return Result(summarize_run(RunFolder(folder)).front, folder)


@pytest.mark.parametrize("shape", ["circle", "square", "down", "star", "cross"])
def test_a_marker_is_painted_at_its_position_in_its_colour(shape):
    drawing = Drawing(40, 40, "one", (Marker((12, 28), shape, "#d55e00", 8),))
    image = np.asarray(Image.open(io.BytesIO(to_png(drawing, scale=1))).convert("RGB"))
    assert tuple(image[28, 12]) == (0xD5, 0x5E, 0x00)
    painted = np.argwhere((image != 255).any(axis=2))
    assert np.abs(painted.mean(axis=0) - (28, 12)).max() < 1.0
    assert np.abs(painted - (28, 12)).max() <= 9
    assert (image[5, 35] == 255).all()


def test_a_dashed_line_has_gaps_and_the_right_ends():
    drawing = Drawing(100, 20, "dash", (Line(((10, 10), (90, 10)), "#000000", 2, 5),))
    image = np.asarray(Image.open(io.BytesIO(to_png(drawing, scale=1))).convert("L"))
    row = image[10] < 128
    assert row[11]
    assert not row[17]
    assert not row[:9].any()
    assert not row[92:].any()


def test_both_renderings_have_the_same_size_and_text_is_escaped():
    words = TextLine((10, 20), "<a & b>", anchor="middle")
    drawing = Drawing(120, 50, "<title>", (words,))
    root = ElementTree.fromstring(to_svg(drawing))
    assert (root.get("width"), root.get("height")) == ("120", "50")
    assert root.find(f"{SVG}text").text == "<a & b>"
    assert Image.open(io.BytesIO(to_png(drawing, scale=2))).size == (240, 100)


def test_the_figure_has_a_marker_for_every_network_of_the_front(result):
    root = ElementTree.fromstring(to_svg(front_drawing(result.front, "run")))
    titles = [title.text for title in root.iter(f"{SVG}title")]
    for point in result.front.points:
        assert any(t.startswith(f"trial {point.trial}: ") for t in titles)
    assert sum(t.startswith("control: ") for t in titles) == len(result.front.controls)
    assert "dense" in titles


def test_a_collapsed_point_does_not_squash_the_others(result):
    front = result.front
    lowest = min(front.points, key=lambda point: point.accuracy)
    collapsed = replace(lowest, accuracy=-40.0, trial=999)
    shapes = front_drawing(replace(front, points=(*front.points, collapsed)), "run").shapes
    before = {s.title: s.at for s in front_drawing(front, "run").shapes if isinstance(s, Marker)}
    after = {s.title: s for s in shapes if isinstance(s, Marker)}
    assert all(after[title].at == at for title, at in before.items())
    down = [marker for marker in after.values() if marker.shape == "down"]
    assert [marker.title[:9] for marker in down] == ["trial 999"]
    assert down[0].at[1] == max(marker.at[1] for marker in after.values())


@pytest.mark.parametrize(("low", "high"), [(0, 1.05), (0.9731, 0.9752), (-3, 900), (1e-5, 2e-5)])
def test_ticks_are_round_and_within(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 12
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in found)
    assert np.allclose(np.diff(found), np.diff(found)[0])


def test_the_html_of_a_result_escapes_every_name(result):
    shown = result._repr_html_()
    assert "<svg" in shown
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    for point in result.points:
        assert f"<td>trial {point.trial}</td>" in shown


def test_the_plot_of_a_result_is_written_to_files(result, tmp_path):
    figure = result.plot()
    assert figure._repr_svg_().startswith("<svg")
    for name in ("front.svg", "front.png"):
        figure.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(UserError, match="svg or"):
        figure.save(tmp_path / "front.pdf")


def test_a_result_becomes_a_data_frame_of_all_its_networks(result):
    frame = result.to_pandas()
    assert list(frame.index[: len(result.points) + 1]) == [
        "dense",
        *(f"trial {point.trial}" for point in result.points),
    ]
    assert frame["front"].sum() == len(result.points)
    assert frame.loc["dense", "macs"] == result.dense.macs
    assert frame.loc["control uniform", "policy.allocation"] == "uniform"


def test_without_pandas_the_error_names_the_remedy(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        result.to_pandas()
