"""Sets the values of a launch apart from the variables of the request: Ansible must not template them. Pure.

Whoever launches a template may have fewer rights than the run. So their values are data in it, also where the request's
own variables are templates, as they may be with admin's rights.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from flansible.models import AuthorizedRun

_OPTION = "--extra-vars="


def set_apart(run: AuthorizedRun, values: Mapping[str, JsonValue]) -> AuthorizedRun:
    """Moves the values, the last part of the request's variables, to `launch_vars` of the step that uses them."""
    if not values:
        return run
    *before, step = run.steps
    changes: dict[str, Any] = {"launch_vars": dict(values)}
    if step.data_only:
        last = step.extra_vars[-1]
        changes["extra_vars"] = step.extra_vars[:-1]
    else:
        # The variables of admin are the first words of the command line. What comes later may look like them.
        place = len(list(itertools.takewhile(lambda word: word.startswith(_OPTION), step.argv))) - 1
        last = json.loads(step.argv[place].removeprefix(_OPTION))
        changes["argv"] = (*step.argv[:place], *step.argv[place + 1 :])
    if last != values:
        raise ValueError("the values of a launch are not the last variables of its step")
    return run.model_copy(update={"steps": (*before, step.model_copy(update=changes))})
