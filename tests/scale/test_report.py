"""The HTML of an experiment: one file, the answer at the top, nothing from elsewhere."""

import re
from html.parser import HTMLParser

import pytest

from distrib.scale.report import make_report
from distrib.scale.results import summarize
from tests.support.scale_results import make_result


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


def test_the_answer_comes_first():
    body = make_report(make_result()).split("<body>")[1]
    text = re.sub("<[^>]*>", "", body[: body.index("<svg")])
    assert re.search(r"4 workers do \d\.\d\d times the work of 1: \d+\.\d % efficient .* Limited by", text)


def test_ids_are_used_once():
    ids = re.findall(r'<(?:clipPath|path) id="([^"]+)"', make_report(make_result()))
    clip_paths = [name for name in ids if name.startswith("p")]
    assert len(clip_paths) == len(set(clip_paths))


@pytest.mark.parametrize("workers", [(2,), ()])
def test_little_was_measured(workers):
    result = make_result(workers=workers)
    assert ("A single size" if workers else "No size could be measured") in make_report(result)


def test_what_users_write_is_escaped():
    result = make_result(workers=(1, 2))
    result["samples"].append({"workers": 4, "repeat": 0, "error": "<script>alert(1)</script>"})
    result["sizes"] = summarize(result["samples"], (1, 2, 4))
    assert "<script>" not in make_report(result)
