import base64

import pytest

from kecs.ecs import pages
from kecs.ecs.errors import InvalidParameterException


def walk(operation, items, descending=False, **params):
    """Return all pages."""
    found = []
    token = None
    while True:
        asked = {**params, **({"nextToken": token} if token else {})}
        page, token = pages.page(operation, items, asked, descending=descending)
        found.append(page)
        if token is None:
            return found


def test_pages_have_the_sizes_of_the_api_reference():
    items = [f"item-{number:03}" for number in range(250)]

    assert [len(page) for page in walk("ListClusters", items)] == [100, 100, 50]
    assert [len(page) for page in walk("ListServices", items[:25])] == [10, 10, 5]
    assert [len(page) for page in walk("ListTasks", items[:25], maxResults=20)] == [20, 5]
    assert [item for page in walk("ListTasks", items) for item in page] == items


def test_revisions_are_ordered_by_number_both_ways():
    items = ["web:10", "web:2", "api:1"]

    assert walk("ListTaskDefinitions", items, maxResults=1) == [["api:1"], ["web:2"], ["web:10"]]
    assert walk("ListTaskDefinitions", items, True, maxResults=1) == [["web:10"], ["web:2"], ["api:1"]]


def test_items_that_come_and_go_between_pages_are_neither_repeated_nor_skipped():
    first, token = pages.page("ListTasks", ["b", "d", "f"], {"maxResults": 2})
    rest, end = pages.page("ListTasks", ["a", "e", "f"], {"maxResults": 2, "nextToken": token})

    assert (first, rest, end) == (["b", "d"], ["e", "f"], None)


@pytest.mark.parametrize(
    "token", ["x", "%%%", "é", base64.b64encode(b"[1]").decode(), base64.b64encode(b'["a", 1]').decode()]
)
def test_a_token_that_is_none_is_refused(token):
    with pytest.raises(InvalidParameterException):
        pages.page("ListTasks", ["a"], {"nextToken": token})


def test_a_token_belongs_to_its_question():
    _, token = pages.page("ListTasks", ["a", "b"], {"maxResults": 1, "cluster": "one"})

    pages.page("ListTasks", ["a", "b"], {"maxResults": 5, "cluster": "one", "nextToken": token})
    with pytest.raises(InvalidParameterException):
        pages.page("ListTasks", ["a", "b"], {"cluster": "two", "nextToken": token})
    with pytest.raises(InvalidParameterException):
        pages.page("ListServices", ["a", "b"], {"cluster": "one", "nextToken": token})


@pytest.mark.parametrize("size", [0, -1, 101])
def test_a_page_size_out_of_range_is_refused(size):
    with pytest.raises(InvalidParameterException):
        pages.page("ListTasks", ["a"], {"maxResults": size})
