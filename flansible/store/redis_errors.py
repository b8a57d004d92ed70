"""Says in words why Redis refuses a command: for the store, and for a broker that is a Redis.

redis-py has a class for some of Redis' refusals, and for the others only the text, which begins with a code in
capitals. A refusal inside a script has that code within its text. Called by `connection.translated` and by
flansible.broker.
"""

from __future__ import annotations

import re

import redis

# Whatever redis-py raises. Those that are no RedisError belong to clients of a cluster, and to forks with live locks.
REDIS_ERRORS: tuple[type[Exception], ...] = (
    redis.RedisError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.ChildDeadlockedError,
    redis.exceptions.IncorrectPolicyType,
)
NO_ANSWER = "does not answer"
_PASSWORD = "refuses the user or password of its URL"
_CLUSTER = "is a cluster, which is not supported: give the address of a single Redis"
# What follows the name of the part: "The record store (Redis) is out of memory".
_BY_CODE = {
    "OOM": "is out of memory (maxmemory)",
    "READONLY": "is a replica that takes no writes: give the address of the primary",
    "MISCONF": "takes no writes, since it cannot write its file (is its disk full?)",
    "NOREPLICAS": "takes no writes: too few replicas are connected (min-replicas-to-write)",
    "MASTERDOWN": "is a replica without a link to its primary: give the address of the primary",
    "LOADING": "is loading its file",
    "BUSY": "is busy with a script",
    "UNKILLABLE": "is busy with a script",
    "NOPERM": "does not permit its user a command or key that is needed (ACL)",
    "NOAUTH": "wants a password: put it into its URL",
    "WRONGPASS": _PASSWORD,
    "DENIED": "runs in protected mode: bind it to an address, or give it a password",
    "CLUSTERDOWN": "is a cluster that is down",
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "TRYAGAIN": _CLUSTER,
}
_CODE = re.compile(rf"(?<!\w)({'|'.join(_BY_CODE)})(?!\w)")
_BY_TEXT = {"max number of clients": "has no connection left (maxclients)", "invalid password": _PASSWORD}
OTHER_REFUSAL = "refused a command; the server's log has the details"


def redis_reason(error: BaseException) -> str:
    """Returns why Redis did not do what was requested, as a predicate."""
    code = getattr(error, "status_code", None)
    found = _CODE.search(f"{code or ''} {error}")
    if found:
        return _BY_CODE[found[1]]
    for part, reason in _BY_TEXT.items():
        if part in str(error):
            return reason
    if isinstance(error, redis.exceptions.AuthenticationError):
        return _PASSWORD
    # A refusal is a reply; all else is a connection that is not made, breaks, or stays silent.
    return OTHER_REFUSAL if isinstance(error, (redis.ResponseError, redis.exceptions.ClusterError)) else NO_ANSWER
