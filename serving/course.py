"""Who is asked for an order, and in which order: the assigned scorer, then the champion."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from serving.asked import GIVEN_ORDER
from serving.running import InForce
from serving.traffic import Traffic
from serving.upstreams import Failed, Question, Reply

LOG = logging.getLogger("querylift.splitter")


class Course(NamedTuple):
    """Who was asked and who answered."""

    assigned: str
    reply: Reply | None
    """None: nobody answered."""
    answered_by: str
    fallback: str
    """Why the assigned scorer did not answer; empty: it did."""


async def run(
    in_force: InForce,
    assigned: str,
    question: Question,
    end: float,
    variant_share: float,
    traffic: Traffic,
) -> Course:
    """Ask until somebody answers.

    Args:
        in_force: Who the champion is, and all scorers.
        assigned: Who is asked first.
        question: To each of them.
        end: Of all of it, by the loop's clock.
        variant_share: Of the time left, what a scorer has that is not the champion.
        traffic: Counts failures.
    """
    champion = in_force.experiments.champion
    now = asyncio.get_running_loop().time
    fallback = ""
    for name in dict.fromkeys((assigned, champion)):
        share = 1.0 if name == champion else variant_share
        try:
            reply = await in_force.upstreams[name].ask(question, share * (end - now()))
        except Failed as failed:
            traffic.failures[name, failed.failure] += 1
            LOG.debug("%s: %s", name, failed)
            fallback = fallback or failed.failure
        else:
            return Course(assigned, reply, name, fallback)
    return Course(assigned, None, GIVEN_ORDER, fallback)
