"""Where a call may run: GPUs, named resources, labels, regions, owners, ceilings, and which other calls it keeps to.

Owns the check of these options and the form that the Rust half takes them in, which holds them against each other.
Leaves every other option to `_options.py`.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Union

from ._errors import OptionError

# farlane_model::GpuRequest and Amount: the bounds are checked there too.
_MOST_GPUS = 64
_MOST_OF_A_RESOURCE = 1_000_000
# Dollars for a core-hour; farlane_model::request, MAX_PRICE.
_DEAREST = 1_000_000
# Grams of CO2e a kWh; farlane_model::request, MAX_CARBON.
_DIRTIEST = 100_000
# What a version range begins with; farlane_model::VersionRange.
_SIGNS = (">", "<", "==", "!=")

_SCOPES = {"node": "node", "nodes": "node", "region": "region", "regions": "region"}


class Presence(enum.Enum):
    """Whether a machine has a label at all; use `fl.present` and `fl.absent`."""

    PRESENT = "present"
    ABSENT = "absent"

    def __repr__(self) -> str:
        return f"fl.{self.value}"


present = Presence.PRESENT
absent = Presence.ABSENT


class Affinity(NamedTuple):
    """Towards calls of the project with this `tag` (`affinity=`), or away from them (`anti_affinity=`)."""

    tag: str
    scope: str = "node"
    """The same "node", or the same "region"."""
    required: bool = True
    """Whether it waits where it cannot have it; else it runs elsewhere."""


Label = Union[str, int, float, Presence, Iterable[str]]
Wish = Union[str, Affinity]


def texts(name: str, value: Any, like: str) -> list[str]:
    """One text, or several."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise OptionError(f"{name} must be texts like {like}, not {value!r}")
    listed = list(value)
    if not all(isinstance(item, str) and item for item in listed):
        raise OptionError(f"{name} must be texts like {like}, not {value!r}")
    return listed


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """One of a few words; the nearest is named where it is none."""
    known = list(known)
    if isinstance(value, str) and value in known:
        return value
    near = difflib.get_close_matches(value, known, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise OptionError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}{hint}")


def gpus(options: Mapping[str, Any]) -> dict[str, Any]:
    """How many, of which models, with how much memory."""
    from ._options import number, size

    asked, wanted, memory = options["num_gpus"], options["gpu"], options["gpu_memory"]
    models, count = _models(wanted)
    if asked is not None:
        asked = number("num_gpus", asked, 0, _MOST_GPUS)
        if count is not None and count != asked:
            raise OptionError(f"gpu={wanted!r} asks for {count:g} GPUs and num_gpus for {asked:g}; leave one out")
        count = asked
    if count is None:
        count = 1.0 if models or memory is not None else 0.0
    milli = round(count * 1000)
    if milli > 1000 and milli % 1000 or count > 0 and milli == 0:
        near = f"{int(count)} or {int(count) + 1}" if count > 1 else "0.001 or more"
        raise OptionError(f"num_gpus must be a fraction of one GPU or a whole number, not {count:g}; write {near}")
    least = None if memory is None else size("gpu_memory", memory)
    if least == 0:
        raise OptionError("gpu_memory must be more than 0; leave it out for any GPU")
    return {"milli_gpus": milli, "gpu_models": models, "gpu_memory": least}


def _models(value: Any) -> tuple[list[str], float | None]:
    """The models of a text like "A100|H100:2", and how many."""
    from ._options import number

    if value is None:
        return [], None
    if not isinstance(value, str) or not value.strip():
        raise OptionError(f"gpu must name models, like 'A100' or 'A100|H100:2', not {value!r}")
    listed, colon, count = value.partition(":")
    models = [model.strip() for model in listed.split("|")]
    if not all(any(c.isalnum() for c in model) for model in models):
        raise OptionError(f"gpu must name models, like 'A100' or 'A100|H100:2', not {value!r}")
    if all(model.isdigit() and len(model) < 3 for model in models):
        raise OptionError(f"gpu names models, like 'A100'; for {value} of any model write num_gpus={value}")
    if not colon:
        return models, None
    try:
        many = float(count)
    except ValueError:
        raise OptionError(f"gpu: after ':' comes how many, like 'A100:2', not {count!r}") from None
    return models, number("gpu", many, 0.001, _MOST_GPUS)


def resources(value: Any) -> list[tuple[str, int]]:
    """Named resources and how much of each."""
    from ._options import whole

    if not isinstance(value, Mapping):
        raise OptionError(f"resources must be a mapping like {{'license': 1}}, not {value!r}")
    own = {"cpu": "num_cpus", "cpus": "num_cpus", "num_cpus": "num_cpus", "gpu": "num_gpus", "gpus": "num_gpus"}
    own.update(num_gpus="num_gpus", memory="memory", scratch="scratch", disk="scratch")
    found = []
    for name, amount in value.items():
        if not isinstance(name, str):
            raise OptionError(f"resources must be named by texts, not {name!r}")
        if name.lower() in own:
            raise OptionError(f"resources: {name!r} is the option {own[name.lower()]}, not a resource that machines name")
        found.append((name, whole(f"resources[{name!r}]", amount, 1, _MOST_OF_A_RESOURCE)))
    return sorted(found)


def labels(wanted: Any, unwanted: Any) -> list[tuple[str, str, list[str]]]:
    """Rules on labels: key, kind and values."""
    rules = []
    for name, value in (("labels", wanted), ("not_labels", unwanted)):
        if not isinstance(value, Mapping):
            raise OptionError(f"{name} must be a mapping like {{'disk': 'nvme'}}, not {value!r}")
        for key, demand in value.items():
            if not isinstance(key, str) or not key:
                raise OptionError(f"{name} must have texts for keys, not {key!r}")
            rules.append((key, *_demand(name, key, demand)))
    return rules


def _demand(name: str, key: str, value: Any) -> tuple[str, list[str]]:
    there = {"labels": {True: "present", False: "absent"}, "not_labels": {True: "absent", False: "present"}}[name]
    if isinstance(value, Presence):
        return there[value is present], []
    if isinstance(value, bool):
        raise OptionError(f"{name}[{key!r}]: write the label's text, like 'true', or fl.present or fl.absent, not {value!r}")
    if isinstance(value, str) and value.lstrip().startswith(_SIGNS):
        if name == "not_labels":
            raise OptionError(f"not_labels[{key!r}] takes values; write a range of versions in labels, like '<{value.strip('<>=! ')}'")
        return "version", [value]
    if isinstance(value, (int, float)):
        value = str(value)
    values = sorted(set(texts(f"{name}[{key!r}]", value, "'nvme', ['a', 'b'] or '>=1.2,<2'")))
    if not values:
        raise OptionError(f"{name}[{key!r}] must have a value; fl.present takes any")
    return ("in" if name == "labels" else "not in"), values


def company(options: Mapping[str, Any]) -> dict[str, Any]:
    """Its tag, its spread, and which other calls it keeps to or away from."""
    tag, spread = options["tag"], options["spread"]
    if tag is not None and (not isinstance(tag, str) or not tag):
        raise OptionError(f"tag must be a text, not {tag!r}")
    if spread is not None:
        spread = _SCOPES[choice("spread", spread, ("nodes", "regions"))]
    wishes = []
    for name, near in (("affinity", True), ("anti_affinity", False)):
        wishes += [(wish.tag, near, wish.scope, wish.required) for wish in _wishes(name, options[name])]
    return {"tag": tag, "spread": spread, "affinities": wishes}


def _wishes(name: str, value: Any) -> list[Affinity]:
    listed = [value] if isinstance(value, (str, Affinity)) else value
    if isinstance(listed, (bytes, Mapping)) or not isinstance(listed, Iterable):
        raise OptionError(f"{name} must be tags, or fl.Affinity(tag, scope='region'), not {value!r}")
    wishes = []
    for one in listed:
        wish = one if isinstance(one, Affinity) else Affinity(one)
        if not isinstance(wish.tag, str) or not wish.tag:
            raise OptionError(f"{name} must be tags, or fl.Affinity(tag, scope='region'), not {one!r}")
        scope = _SCOPES[choice(f"{name}: scope", wish.scope, ("node", "region"))]
        if not isinstance(wish.required, bool):
            raise OptionError(f"{name}: required must be True or False, not {wish.required!r}")
        wishes.append(Affinity(wish.tag, scope, wish.required))
    return wishes


def kept(value: Any) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Nodes by their ids, and where the data of futures lies: node, its name, its region."""
    from ._future import Future

    listed = [value] if isinstance(value, (str, Future)) else value
    if isinstance(listed, (bytes, Mapping)) or not isinstance(listed, Iterable):
        raise OptionError(f"keep_on must be futures, or texts like a node's id of 64 digits, not {value!r}")
    nodes, data = [], []
    for one in listed:
        if isinstance(one, Future):
            data.append(_lies(one))
        elif isinstance(one, str) and one:
            nodes.append(one)
        else:
            raise OptionError(f"keep_on must be futures, or texts like a node's id of 64 digits, not {one!r}")
    return nodes, data


def _lies(future: Any) -> tuple[str, str, str]:
    if not future.done():
        raise OptionError(
            f"keep_on: task {future.id} has not ended, so nobody knows where its data will lie; wait for its result "
            "first, or keep both calls together with tag= and affinity="
        )
    receipt = future.receipt
    if receipt is None or receipt.node is None:
        raise OptionError(f"keep_on: no machine ran task {future.id}, so it has no data anywhere; leave it out")
    return receipt.node, receipt.node_name, receipt.region


def native(options: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, in the form that the Rust half takes."""
    from ._options import number

    price, carbon = options["max_price"], options["max_carbon"]
    nodes, data = kept(options["keep_on"])
    return {
        **gpus(options),
        "resources": resources(options["resources"]),
        "regions": texts("regions", options["regions"], "'eu-*'"),
        "residency": texts("residency", options["residency"], "'eu-*'"),
        "providers": texts("providers", options["providers"], "a fingerprint of 64 digits"),
        "keep_on": nodes,
        "data": data,
        "labels": labels(options["labels"], options["not_labels"]),
        "max_price_micros": None if price is None else round(number("max_price", price, 0, _DEAREST) * 1_000_000),
        # Grams are whole; a ceiling is not raised by rounding.
        "max_carbon": None if carbon is None else int(number("max_carbon", carbon, 0, _DIRTIEST)),
        **company(options),
    }
