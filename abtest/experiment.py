"""The experiment file: who is randomised, into which experiments, and which scorer answers.

The file is YAML, and one schema says what may be in it; ``docs/experiment-files.md`` explains it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from abtest.assignment import BUCKETS, check_unit_id
from abtest.findings import faults
from abtest.rule import Rule
from abtest.yaml_file import read_yaml, to_type

# in a pattern, $ alone would take a line break at the end
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)")]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$(?!\n)")]
Salt = Annotated[
    Name, Meta(description="What makes one draw independent of the others. Never used twice.")
]
Instant = Annotated[datetime, Meta(tz=True, description="Date and time with a time zone.")]
Bound = Annotated[int, Meta(ge=0, le=BUCKETS)]
Range = Annotated[
    tuple[Bound, Bound],
    Meta(description="Buckets from the first to before the second, of 0 to 9999."),
]
Share = Annotated[float, Meta(ge=0, le=1)]
UnitId = Annotated[str, Meta(min_length=1, description="As it is hashed; quote numbers.")]
Whole = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Part(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What all parts of the file share: strictness."""


class Scorer(Part, frozen=True, kw_only=True):
    """A service that scores."""

    url: Annotated[Url, Meta(description="Without a path of the API and without a password.")]

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        # reading the port is what checks it
        if not address.hostname or address.port == 0:
            raise ValueError("want http://HOST:PORT")


class Layer(Part, frozen=True, kw_only=True):
    """Experiments in one layer exclude one another; layers are independent."""

    salt: Salt


class Holdout(Part, frozen=True, kw_only=True):
    """Units that are in no experiment at all."""

    salt: Salt
    range: Range


class Step(Part, frozen=True, kw_only=True):
    """A step of a ramp: from an instant on, more buckets."""

    at: Instant
    range: Range


class Variant(Part, frozen=True, kw_only=True):
    """What some units of an experiment get."""

    weight: Annotated[Share, Meta(description="Share of the experiment's units.")]
    scorer: Name


class Shadow(Part, frozen=True, kw_only=True):
    """A copy of some requests goes to a scorer that answers nobody."""

    scorer: Name
    share: Annotated[float, Meta(gt=0, le=1, description="Of the experiment's requests.")]


class Guardrail(Part, frozen=True, kw_only=True):
    """A metric that must not get worse."""

    margin: Annotated[
        float, Meta(gt=0, le=1, description="Largest harm accepted, relative to control.")
    ]


class Experiment(Part, frozen=True, kw_only=True):
    """Variants, who is in them, from when to when, and what decides."""

    layer: Name
    salt: Salt
    phase: Annotated[Whole, Meta(description="Goes up where variants or weights change.")]
    range: Annotated[Range, Meta(description="Of the layer's buckets, until the ramp's first step")]
    ramp: tuple[Step, ...] = ()
    start: Instant
    end: Instant
    killed: Annotated[bool, Meta(description="True: nobody is in.")] = False
    variants: Annotated[
        dict[Name, Variant],
        Meta(
            description="The first is the control; weights cumulate in this order.",
            extra_json_schema={"minProperties": 2},
        ),
    ]
    forced: Annotated[
        dict[UnitId, Name],
        Meta(description="For QA: the variant of a unit by its id. No part of the analysis."),
    ] = {}
    shadow: Shadow | None = None
    primary: Annotated[tuple[Name, ...], Meta(min_length=1, description="Metrics that decide.")]
    guardrails: dict[Name, Guardrail] = {}
    decision: Annotated[
        Rule, Meta(description="Thresholds of the analysis; what is left out is the default.")
    ] = Rule()

    def __post_init__(self) -> None:
        for unit_id in self.forced:
            check_unit_id(unit_id)


class Experiments(Part, frozen=True, kw_only=True):
    """The experiments of a shop."""

    version: Annotated[Whole, Meta(description="Goes up with every change; every record has it.")]
    unit: Annotated[Name, Meta(description="What is randomised, for example client_id.")]
    champion: Annotated[
        Name,
        Meta(description="Scorer that answers where no experiment does and where a variant fails."),
    ]
    scorers: dict[Name, Scorer]
    holdout: Holdout | None = None
    layers: dict[Name, Layer]
    experiments: dict[Name, Experiment]


def read_experiments(path: Path) -> Experiments:
    """The file as it is written, faults included.

    Raises:
        ValueError: It is no such file: the place in it, what is there and what is wanted.
        OSError: It cannot be read.
    """
    return to_type(read_yaml(path), Experiments, path)


def load_experiments(path: Path) -> Experiments:
    """The file, of which every unit's assignment is well defined.

    Raises:
        ValueError: It is no such file, or it has faults; see ``abtest.findings.faults``.
        OSError: It cannot be read.
    """
    experiments = read_experiments(path)
    if found := faults(experiments):
        raise ValueError(f"{path}: " + "; ".join(map(str, found)))
    return experiments


def schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **msgspec.json.schema(Experiments),
    }
