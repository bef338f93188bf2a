"""What the log holds of a request: the query, and who met which variant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from abtest.assignment import Assignment
from abtest.records import InExperiment, Query, QueryAttributes, Record, exposure, uuid7
from serving.asked import Asked
from serving.course import Course
from serving.privacy import redacted
from serving.running import InForce

_MAX_HITS = 100
"""Items of an answer that the log names: what a shopper may have seen, not thousands."""
_MAX_QUERY = 1_024
"""Characters of a query that are kept; nobody types more."""


def query_records(
    in_force: InForce,
    assignments: Sequence[Assignment],
    client_id: str | None,
    query_id: str,
    wanted: Asked,
    path: str,
    course: Course,
    seconds: float,
) -> list[Record]:
    """The query, and an exposure for each experiment that the unit is in.

    Exposures are written whoever answered, fallbacks included: leaving them out where a variant
    failed would leave out its unluckiest shoppers, and only its own.
    """
    at = datetime.now(UTC)
    version = (course.reply and course.reply.model_version) or None
    # of several experiments the one whose scorer was assigned has chosen; mere holders of the
    # champion fail only if that fails too
    chosen = next((a for a in assignments if a.scorer == course.assigned), None)
    places = course.reply.ranked.places if course.reply and course.reply.ranked else []
    query = Query(
        request_id=uuid7(at),
        query_id=query_id,
        timestamp=at,
        user_query=redacted(wanted.query[:_MAX_QUERY]),
        client_id=client_id,
        query_response_hit_ids=tuple(wanted.keys(places[:_MAX_HITS])),
        query_attributes=QueryAttributes(
            path=path,
            n_items=wanted.count,
            experiment_id=chosen and chosen.experiment_id,
            variant=chosen and chosen.variant,
            scorer=course.assigned,
            answered_by=course.answered_by if course.reply else None,
            model_version=version,
            latency_ms=round(1_000 * seconds, 3),
            is_fallback=bool(course.fallback),
            reason=course.fallback or None,
        ),
    )
    exposures = [
        exposure(
            at,
            client_id,
            query_id,
            InExperiment(
                experiment_id=assignment.experiment_id,
                layer=assignment.layer,
                phase=assignment.phase,
                variant=assignment.variant,
                bucket=assignment.bucket,
                config_version=in_force.split.config_version,
                model_version=version and version[:100],
                is_fallback=bool(course.fallback)
                and (course.reply is None or assignment.scorer == course.assigned),
                is_forced=assignment.is_forced,
            ),
        )
        for assignment in assignments
        if client_id is not None
    ]
    return [query, *exposures]
