"""From a model of the log to its page in an MLflow registry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from abtest.experiment import Url


class ModelLink(NamedTuple):
    """A registered version."""

    name: str
    version: str
    url: str
    """Its page."""


Links = Mapping[str, ModelLink]
"""Model version of the log -> what it is in the registry; those that it does not know are absent.
"""
NO_LINKS: Links = MappingProxyType({})


def checked(registry: str) -> str:
    """The address of a registry, without a slash at its end.

    Raises:
        ValueError: It is none, or has a password in it.
    """
    try:
        return msgspec.convert(registry, Url).rstrip("/")
    except msgspec.ValidationError:
        raise ValueError(
            "--registry: want http://HOST or https://HOST, without a password"
        ) from None


def model_link(registry: str, name: str, version: str) -> ModelLink:
    """A version's link.

    >>> model_link("http://mlflow.test", "a shop", "3").url
    'http://mlflow.test/#/models/a%20shop/versions/3'
    """
    url = f"{registry}/#/models/{quote(name, safe='')}/versions/{version}"
    return ModelLink(name, version, url)
