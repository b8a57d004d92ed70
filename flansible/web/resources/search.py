"""Search over archived tasks: playbooks, hosts, messages of failures, and output."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from flask import Response, jsonify
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flansible.authorization import visibility
from flansible.errors import Unavailable
from flansible.history import search_words
from flansible.history.archived_search import FoundTask, SearchFilter
from flansible.models.search_replies import SearchPlace
from flansible.web import serialization
from flansible.web.context import web_context
from flansible.web.login.authentication import PrivateResource, current_user
from flansible.web.parsing import MAX_NUMBER, parse_query

_SECONDS = 0.1  # for one page
_MAX_CHARACTERS = 300


def _searchable(text: str) -> str:
    if search_words.parse(text) is None:
        raise ValueError("must have a letter or a digit")
    return text


class SearchQuery(BaseModel):
    """`?q=&in=&limit=&before=` of a search."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str, AfterValidator(_searchable)] = Field(
        min_length=1,
        max_length=_MAX_CHARACTERS,
        description="What to look for: words or names, separated by blanks. All of them must be there, each as a whole "
        "word; case does not matter. No sign has a special meaning.",
        # Of what is not ASCII, letters and digits of any script.
        json_schema_extra={"pattern": r"[A-Za-z0-9]|[^\x00-\x7f]"},
    )
    in_: Literal["records", "output"] = Field(
        "records",
        alias="in",
        description="`records`: playbooks, hosts and messages of failures; `output`: lines of output.",
    )
    limit: int = Field(20, ge=1, le=100, description="Hits per page.")
    before: int | None = Field(
        None, ge=0, le=MAX_NUMBER, description="Cursor: `next_before` of the page before this one."
    )


class SearchResource(PrivateResource):
    """Finished tasks that the caller sees, by their playbook, hosts and messages of failures, or by their output.

    A task is found when it has been archived, half a minute after its end (`archive_after_seconds`). A page may have
    fewer hits than `limit`, or none, even if more pages follow.
    """

    def get(self) -> Response:
        """Search finished tasks"""
        query = parse_query(SearchQuery)
        user, archive = current_user(), web_context().store.archive
        if archive is None:
            message = "This service has no history database to search. An operator has to set DATABASE_URL."
            raise Unavailable(message, code="no_database")
        words = search_words.parse(query.q)
        assert words is not None
        is_output = query.in_ == "output"
        wanted = SearchFilter(words, in_output=is_output)
        if not user.sees_all:
            wanted = SearchFilter(words, user.name, visibility.readers(user), is_output)
        found = archive.search(wanted, query.before, query.limit, time.monotonic() + _SECONDS)
        hits = [_hit(one) for one in found.tasks if visibility.may_see(user, one.status)]
        response = jsonify({"hits": hits, "next_before": found.next_before})
        if found.next_before is not None:
            response.headers.add(*serialization.request_url().next_page(before=found.next_before))
        return response


def _hit(found: FoundTask) -> dict[str, object]:
    places = [SearchPlace.model_validate(place, from_attributes=True) for place in found.places]
    return {
        "task": serialization.reply_fields(found.status),
        "places": [place.model_dump(mode="json") for place in places],
    }
