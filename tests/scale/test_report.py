"""The HTML of an experiment: one file, the answer first, no external resources."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from distrib.scale.report import make_report
from distrib.scale.result import Sample
from tests.support.scale_results import make_result, make_result_of


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_it_is_one_file_with_three_charts():
    tags = Tags()
    tags.feed(make_report(make_result()))
    assert tags.names.count("svg") == 3
    assert "script" not in tags.names
    assert all(link.startswith(("#", "data:")) for link in tags.links)


def text_before_charts(result):
    body = make_report(result).split("<body>")[1]
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
    result = make_result()
    rows = [replace(row, step_seconds=row.step_seconds * (1.4 if row.workers == 2 else 1)) for row in result.sizes]
    result = replace(result, sizes=tuple(rows))
    assert "Unreliable: the model misses the measured sizes" in text_before_charts(result)
    assert "batch for 90 %" not in make_report(result)
    assert "batch for 90 %" in make_report(make_result())


def test_ids_are_used_once():
    ids = re.findall(r'<(?:clipPath|path) id="([^"]+)"', make_report(make_result()))
    clip_paths = [name for name in ids if name.startswith("p")]
    assert len(clip_paths) == len(set(clip_paths))


@pytest.mark.parametrize("workers", [(2,), ()])
def test_little_was_measured(workers):
    result = make_result(workers=workers)
    assert ("A single size" if workers else "No size could be measured") in make_report(result)


def test_what_users_write_is_escaped():
    failed = Sample(workers=4, repeat=0, error="<script>alert(1)</script>")
    page = make_report(make_result_of([*make_result(workers=(1, 2)).samples, failed], (1, 2, 4)))
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
