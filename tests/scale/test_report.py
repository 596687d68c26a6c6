"""The page of an experiment: one file, the answer first, no external resources."""

import re
from dataclasses import replace

import pytest

from distrib.scale.report import make_report
from distrib.scale.result import Sample
from tests.support.browser import assert_sound, focus_chart
from tests.support.scale_results import make_result, make_result_of

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def page_of(tmp_path):
    def write(result):
        file = tmp_path / "scale.html"
        file.write_text(make_report(result), encoding="utf-8")
        return file

    return write


def make_unreliable(result):
    """An experiment whose measured sizes the model misses by more than 15 %."""
    rows = [replace(row, step_seconds=row.step_seconds * (1.4 if row.workers == 2 else 1)) for row in result.sizes]
    return replace(result, sizes=tuple(rows))


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_is_sound(page_of, visit, axe, width, scheme):
    page = visit(page_of(make_unreliable(make_result())), width, scheme)
    assert_sound(page, width, axe, "distrib scale")
    assert page.locator("figure svg").count() == 3
    scrolls = page.eval_on_selector_all(".scroll", "all => all.map(box => box.scrollWidth > box.clientWidth + 1)")
    shown = page.eval_on_selector_all(".scroll", "all => all.map(box => box.matches('.continues-right'))")
    assert shown == scrolls
    if width == 390:
        assert any(shown)


def test_values_by_keyboard(page_of, visit):
    page = visit(page_of(make_result()))
    figure = focus_chart(page, "efficiency")
    seen = []
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
        seen.append(figure.locator(".readout").text_content().split(",")[0])
    assert seen[0] == "workers 1: measured 100"
    starts = ("workers 2: measured ", "workers 4: measured ", "workers 8: predicted ")
    assert all(text.startswith(start) for text, start in zip(seen[1:], starts, strict=True))


def text_before_charts(result):
    body = make_report(result).split("<main>")[1]
    return re.sub("<[^>]*>", "", body[: body.index("<svg")])


def test_the_answer_comes_first():
    text = text_before_charts(make_result())
    assert re.search(r"4 workers: \d\.\d\d times the throughput of 1, an efficiency of \d+\.\d % .* Limited by", text)


def test_date_and_machine_are_shown():
    text = text_before_charts(make_result())
    assert "2026-09-21" in text
    assert "4 hosts (host0, host1, host2 and 1 more)" in text
    assert "linux x86_64, 2 CPUs" in text
    assert "torch 2.13.0" in text


def test_the_headline_agrees_with_the_notes():
    samples = make_result().samples
    busy = [replace(one, measurement=replace(one.measurement, cores_busy=0.94)) for one in samples]
    page = make_report(make_result_of(busy, (1, 2, 4)))
    assert "Limited by the CPU cores (94 % busy)." in page
    assert "94 % busy: they limit the step" in page


def test_an_unreliable_prediction_warns_before_the_charts_and_names_no_batch():
    result = make_unreliable(make_result())
    assert "Unreliable: the model misses the measured sizes" in text_before_charts(result)
    assert "batch for 90 %" not in make_report(result)
    assert "batch for 90 %" in make_report(make_result())


def test_ids_are_used_once():
    ids = re.findall(r' id="([^"]+)"', make_report(make_result()))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("workers", [(2,), ()])
def test_little_was_measured(workers):
    result = make_result(workers=workers)
    assert ("A single size" if workers else "No size could be measured") in make_report(result)


def test_what_users_write_is_escaped():
    failed = Sample(workers=4, repeat=0, error="<script>alert(1)</script>")
    page = make_report(make_result_of([*make_result(workers=(1, 2)).samples, failed], (1, 2, 4)))
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
