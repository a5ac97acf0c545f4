from types import SimpleNamespace

import pytest

import farlane as fl
from farlane import OptionError, _options
from farlane._future import RETURNED_SAFE, Future


def native(**options):
    return _options.native(_options.merge(options), "f")


def rules(**options):
    return native(**options)["labels"]


@pytest.mark.parametrize(
    ("options", "milli", "models", "memory"),
    [
        ({}, 0, [], None),
        ({"num_gpus": 1}, 1000, [], None),
        ({"num_gpus": 0.25}, 250, [], None),
        ({"gpu": "A100"}, 1000, ["A100"], None),
        ({"gpu": "A100|H100:2"}, 2000, ["A100", "H100"], None),
        ({"gpu": "RTX 4090 : 0.5"}, 500, ["RTX 4090"], None),
        ({"gpu": "A100", "num_gpus": 4}, 4000, ["A100"], None),
        ({"gpu": "A100:4", "num_gpus": 4}, 4000, ["A100"], None),
        ({"gpu_memory": "40GiB"}, 1000, [], 40 << 30),
        ({"gpu": "T4", "gpu_memory": 1024}, 1000, ["T4"], 1024),
        ({"gpu": None, "num_gpus": None}, 0, [], None),
    ],
)
def test_gpus_by_count_model_and_memory(options, milli, models, memory):
    made = native(**options)
    assert (made["milli_gpus"], made["gpu_models"], made["gpu_memory"]) == (milli, models, memory)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_gpus": 1.5}, "write 1 or 2"),
        ({"num_gpus": 0.0001}, "write 0.001 or more"),
        ({"num_gpus": -1}, "num_gpus must be a number between 0 and 64"),
        ({"num_gpus": 65}, "between 0 and 64"),
        ({"num_gpus": True}, "num_gpus"),
        ({"num_gpus": float("nan")}, "num_gpus"),
        ({"gpu": "2"}, "write num_gpus=2"),
        ({"gpu": "A100:two"}, "after ':' comes how many, like 'A100:2', not 'two'"),
        ({"gpu": "A100:"}, "after ':'"),
        ({"gpu": "A100:0"}, "between 0.001 and 64"),
        ({"gpu": "A100:nan"}, "gpu"),
        ({"gpu": "A100||H100"}, "gpu must name models"),
        ({"gpu": ""}, "gpu must name models"),
        ({"gpu": ["A100"]}, "like 'A100' or 'A100|H100:2'"),
        ({"gpu": "A100:2", "num_gpus": 1}, "asks for 2 GPUs and num_gpus for 1; leave one out"),
        ({"gpu_memory": 0}, "more than 0"),
        ({"gpu_memory": "lots"}, "gpu_memory: 'lots' is not a size|gpu_memory: \"lots\" is not a size"),
    ],
)
def test_absurd_gpus_are_refused_with_what_is_right(options, says):
    with pytest.raises(OptionError) as caught:
        native(**options)
    assert any(part in str(caught.value) for part in says.split("|")) or says in str(caught.value)


def test_named_resources_are_whole():
    assert native(resources={"tpu": 8, "license": 1})["resources"] == [("license", 1), ("tpu", 8)]
    for bad, says in [
        ({"license": 0}, "between 1 and 1e"),
        ({"license": 1.5}, "whole number"),
        ({"license": -1}, "license"),
        ({1: 1}, "named by texts"),
        ({"cpus": 1}, "is the option num_cpus"),
        ({"GPU": 1}, "is the option num_gpus"),
        (["license"], "a mapping like"),
    ]:
        with pytest.raises(OptionError, match=says):
            native(resources=bad)


def test_labels_are_rules():
    assert rules(labels={"disk": "nvme"}) == [("disk", "in", ["nvme"])]
    assert rules(labels={"zone": ["b", "a", "b"]}) == [("zone", "in", ["a", "b"])]
    assert rules(labels={"driver": ">=535,<600"}) == [("driver", "version", [">=535,<600"])]
    assert rules(labels={"slots": 2}) == [("slots", "in", ["2"])]
    assert rules(labels={"spot": fl.absent, "rack": fl.present}) == [("spot", "absent", []), ("rack", "present", [])]
    assert rules(not_labels={"zone": "c"}) == [("zone", "not in", ["c"])]
    assert rules(not_labels={"zone": ("d", "c")}) == [("zone", "not in", ["c", "d"])]
    assert rules(not_labels={"spot": fl.present}) == [("spot", "absent", [])]
    both = rules(labels={"zone": ["a", "c"]}, not_labels={"zone": "c"})
    assert both == [("zone", "in", ["a", "c"]), ("zone", "not in", ["c"])]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": {"a": True}}, "write the label's text, like 'true', or fl.present or fl.absent"),
        ({"labels": {"a": None}}, "must be texts like"),
        ({"labels": {"a": []}}, "fl.present takes any"),
        ({"labels": {"a": [1]}}, "must be texts"),
        ({"labels": {"a": {"b": "c"}}}, "must be texts"),
        ({"labels": {"": "a"}}, "keys"),
        ({"labels": ["a"]}, "labels must be a mapping"),
        ({"not_labels": {"a": ">=2"}}, "write a range of versions in labels, like '<2'"),
        ({"not_labels": "a"}, "not_labels must be a mapping"),
    ],
)
def test_rules_that_are_none_are_refused(options, says):
    with pytest.raises(OptionError) as caught:
        native(**options)
    assert says in str(caught.value)


def test_places_owners_and_ceilings():
    made = native(
        residency="eu-*", providers=["ab" * 32], keep_on="cd" * 32, max_price=0.05, max_carbon=250.9, regions=["eu-west"]
    )
    assert (made["residency"], made["regions"]) == (["eu-*"], ["eu-west"])
    assert (made["providers"], made["keep_on"]) == (["ab" * 32], ["cd" * 32])
    assert (made["max_price_micros"], made["max_carbon"]) == (50_000, 250)
    assert (native()["max_price_micros"], native()["max_carbon"]) == (None, None)
    for bad in (
        {"max_price": -0.01},
        {"max_price": float("nan")},
        {"max_price": "cheap"},
        {"max_carbon": -1},
        {"max_carbon": float("inf")},
        {"residency": 5},
        {"residency": [""]},
        {"providers": b"ab"},
        {"keep_on": [1]},
    ):
        with pytest.raises(OptionError, match=next(iter(bad))):
            native(**bad)


def ended(node, name="rack-1", region="eu-west"):
    future = Future(None)
    future._id = "task-1"
    future._land(RETURNED_SAFE, b"", SimpleNamespace(node=node, node_name=name, region=region))
    return future


def test_a_call_stays_where_the_data_of_futures_lies():
    one, other = ended("ab" * 32), ended("cd" * 32, "rack-2", "us-east")
    made = native(keep_on=one)
    assert (made["keep_on"], made["data"]) == ([], [("ab" * 32, "rack-1", "eu-west")])
    made = native(keep_on=[one, "ef" * 32, other])
    assert made["keep_on"] == ["ef" * 32]
    assert [name for _, name, _ in made["data"]] == ["rack-1", "rack-2"]
    running = Future(None)
    running._id = "task-2"
    with pytest.raises(OptionError, match="task-2 has not ended, .*wait for its result"):
        native(keep_on=running)
    with pytest.raises(OptionError, match="no machine ran task task-1"):
        native(keep_on=[ended(None)])
    with pytest.raises(OptionError, match="keep_on must be futures"):
        native(keep_on=7)


def test_company():
    made = native(tag="web", spread="regions", affinity="db", anti_affinity=["noisy", fl.Affinity("web", "region", required=False)])
    assert (made["tag"], made["spread"]) == ("web", "region")
    assert made["affinities"] == [
        ("db", True, "node", True),
        ("noisy", False, "node", True),
        ("web", False, "region", False),
    ]
    assert native(affinity=fl.Affinity("db"))["affinities"] == [("db", True, "node", True)]
    for bad, says in [
        ({"spread": "region"}, "did you mean 'regions'"),
        ({"spread": 2}, "one of 'nodes', 'regions'"),
        ({"affinity": 5}, "must be tags"),
        ({"affinity": [""]}, "must be tags"),
        ({"anti_affinity": {"db": 1}}, "must be tags"),
        ({"affinity": fl.Affinity("db", "regin")}, "did you mean 'region'"),
        ({"affinity": fl.Affinity("db", required=1)}, "True or False"),
        ({"tag": ""}, "tag"),
    ]:
        with pytest.raises(OptionError, match=says):
            native(**bad)


def test_options_are_asked_for_by_name_and_the_nearest_is_told():
    for wrong, right in (("gpus", "gpu"), ("num_gpu", "num_gpus"), ("label", "labels"), ("max_prise", "max_price")):
        with pytest.raises(OptionError, match=f"did you mean '{right}'"):
            _options.merge({wrong: 1})


def test_the_words_are_in_the_package(client):
    assert repr(fl.absent) == "fl.absent"
    made = client.with_options(gpu="A100|H100:2", labels={"spot": fl.absent})
    made.submit(pow, 2, 3)
    sent = client._shared.native.specs[-1]
    assert (sent["milli_gpus"], sent["labels"]) == (2000, [("spot", "absent", [])])
