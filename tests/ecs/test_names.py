import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.ecs import names
from kecs.ecs.errors import ClientException, InvalidParameterException

ecs_names = st.text("abcXYZ019-_", min_size=1, max_size=255)


@pytest.mark.parametrize("good", ["a", "My_App", "-x-", "a" * 255])
def test_names_that_ecs_allows(good):
    names.check(good, "Cluster")


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "é", "a" * 256, "a\n"])
def test_names_that_ecs_refuses(bad):
    with pytest.raises(InvalidParameterException, match="Cluster name is not valid"):
        names.check(bad, "Cluster")
    with pytest.raises(ClientException):
        names.check(bad, "Family", ClientException)


def test_a_legal_name_stays_as_it_is():
    assert names.kubernetes_name("web") == "web"


def test_a_changed_name_gets_a_hash():
    assert re.fullmatch(r"my-app-[0-9a-f]{8}", names.kubernetes_name("My_App"))
    assert len(names.kubernetes_name("a" * 255)) == 63
    assert re.fullmatch(r"x-[0-9a-f]{8}", names.kubernetes_name("___"))


@given(ecs_names, ecs_names)
def test_two_names_never_become_one(first, second):
    """A Kubernetes name is legal and stands for one name of ECS."""
    one, two = names.kubernetes_name(first), names.kubernetes_name(second)

    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", one)
    assert (one == two) == (first == second)


def test_a_name_that_looks_hashed_is_not_taken_for_another():
    """The mapped form of one name is itself a legal name: it maps to something else."""
    mapped = names.kubernetes_name("My_App")

    assert names.kubernetes_name(mapped) != mapped
