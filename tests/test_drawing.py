"""Drawing with less work: the same pixels, ticks that are computed once, and small fonts."""

import io
import re
import zlib

import numpy as np
import pandas as pd
import pytest
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from keras_disrnn.plots import plot_bottlenecks, save_figure
from keras_disrnn.plots.drawing import quick_drawing


def make_figure():
    figure = Figure(figsize=(6, 4), layout="constrained")
    (left, right), (lower, twin) = figure.subplots(2, 2)
    left.plot([0, 1, 2], [1e-7, 2e-7, 5e-7])
    left.set(title="tiny\nnumbers", xlabel="x", ylabel="y")
    image = right.pcolormesh(np.arange(12).reshape(3, 4))
    figure.colorbar(image, ax=right, label="value")
    lower.loglog([1, 10, 1000], [3, 30, 5])
    lower.set(ylabel="a label\nof two lines", aspect="equal")
    twin.plot([0, 1000000], [0, 1])
    twin.twinx().plot([0, 1], [0, 50])
    twin.xaxis.tick_top()
    figure.align_ylabels()
    figure.suptitle("all")
    return figure


def pixels(figure, dpi):
    picture = io.BytesIO()
    figure.savefig(picture, format="rgba", dpi=dpi)
    return np.frombuffer(picture.getvalue(), np.uint8)


def test_quick_drawing_gives_the_same_pixels():
    plain, quick = make_figure(), make_figure()
    with quick_drawing():
        found = [pixels(quick, 60), pixels(quick, 90)]
        # What is known of an axis does not outlive a change of its limits.
        quick.axes[0].set(xlim=(0, 30000), ylabel="changed")
        found.append(pixels(quick, 90))
    expected = [pixels(plain, 60), pixels(plain, 90)]
    plain.axes[0].set(xlim=(0, 30000), ylabel="changed")
    expected.append(pixels(plain, 90))
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_saving_computes_the_ticks_of_a_place_once(tmp_path):
    class Counter(ScalarFormatter):
        calls = 0

        def format_ticks(self, values):
            Counter.calls += 1
            return super().format_ticks(values)

    def plot():
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1])
        axes.set_title("title")
        axes.xaxis.set_major_formatter(Counter())
        return figure

    save_figure(tmp_path / "figure.png", plot)
    # The layout puts the panel in two new places, from the place that it has at first.
    assert Counter.calls <= 4


def test_an_error_of_a_figure_leaves_matplotlib_as_it_was():
    before = Axis._update_ticks, Axis._get_ticklabel_bboxes, subset.load_font
    with pytest.raises(ZeroDivisionError), quick_drawing():
        assert Axis._update_ticks is not before[0]
        1 / 0  # noqa: B018
    assert (Axis._update_ticks, Axis._get_ticklabel_bboxes, subset.load_font) == before


def test_a_pdf_file_has_the_glyphs_of_a_font_alone(tmp_path):
    rows = [("latent", "z1", "z1", 0.1), ("choice", "choice", "z1", 0.2)]
    table = pd.DataFrame(rows, columns=["group", "target", "source", "sigma"])
    table["openness"] = 1 - table["sigma"]
    path = save_figure(tmp_path / "figure.pdf", plot_bottlenecks, table)
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), re.DOTALL)
    fonts = [data for data in map(_inflate, streams) if data.startswith(b"\0\1\0\0")]
    glyphs = set()
    for data in fonts:
        font = TTFont(io.BytesIO(data))
        assert {"glyf", "hmtx", "head"} <= {*font.keys()}
        assert not {"GSUB", "GPOS", "GDEF", "kern"} & {*font.keys()}
        glyphs.update(font.getGlyphOrder())
    assert len(glyphs) < 40
    assert {"z", "one", "minus"} <= glyphs


def _inflate(data):
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""
