"""A gang is gathered whole, submitted as one, and says how many it has."""

import itertools

import pytest

import farlane as fl
from farlane import OptionError


def add(a, b):
    return a + b


def test_members_are_one_call_each_in_order(client):
    futures = client.gang(add, [1, 2, 3], [10, 20, 30])
    assert [f._seq for f in futures] == [1, 2, 3]
    assert client._native.specs[-1]["gang"] == 3
    assert not client._native.specs[-1]["gang_anywhere"]
    client._native.run()
    assert client.gather(futures) == [11, 22, 33]


def test_another_size_is_another_spec_and_calls_on_their_own_are_in_none(client):
    remote = fl.remote(gang_regions="any")(add)
    client.gang(remote, [1, 2], [1, 2])
    client.gang(remote, [1], [1])
    client.gang(remote, [3, 4], [1, 2])
    client.submit(remote, 1, 2)
    assert [spec["gang"] for spec in client._native.specs] == [2, 1, 0]
    assert all(spec["gang_anywhere"] for spec in client._native.specs)


def test_an_idempotency_key_is_each_members_own(client):
    client.gang(fl.remote(idempotency_key="night")(add), [1, 2], [1, 2])
    assert [call[4] for call in client._native.calls.values()] == ["night#0", "night#1"]


def test_what_is_no_gang_is_refused_with_the_reason(client):
    for iterables in ((), ([],), (itertools.count(), itertools.count()), (range(257), range(257))):
        with pytest.raises(OptionError, match="gang"):
            client.gang(add, *iterables)
    with pytest.raises(OptionError, match="first argument of gang is a function"):
        client.gang(3, [1])
    with pytest.raises(OptionError, match="at_most_once"):
        client.gang(fl.remote(at_most_once=True)(add), [1], [1])
    with pytest.raises(OptionError, match="gang_regions.*one"):
        client.gang(fl.remote(gang_regions="two")(add), [1], [1])
    assert not client._native.calls
