"""Every error that the clients of Redis and RabbitMQ can raise is ours, with the reason in words."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import amqp.exceptions
import kombu.exceptions
import pytest
import redis.exceptions
from redis._parsers.base import BaseParser

from flansible.broker import broker_errors
from flansible.errors import BrokerUnavailable, StoreUnavailable
from flansible.store import connection

# No transport of ours is called over HTTP: this one is raised by those for SQS and others.
NOT_RAISED = {kombu.exceptions.HttpError}
# As Redis 6.2, 7.0 and 7.4 send them, from their sources and from servers put into these states.
REPLIES = {
    "OOM command not allowed when used memory > 'maxmemory'.": "is out of memory",
    "READONLY You can't write against a read only replica.": "is a replica that takes no writes",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.": "its file",
    "MISCONF Errors writing to the AOF file: No space left on device": "its file",
    "NOREPLICAS Not enough good replicas to write.": "too few replicas",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "without a link to its primary",
    "LOADING Redis is loading the dataset in memory": "is loading its file",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": "is busy",
    "UNKILLABLE Sorry the script already executed write commands against the dataset.": "is busy",
    "NOPERM this user has no permissions to run the 'evalsha' command": "does not permit",
    "NOPERM User dev has no permissions to access one of the keys used as arguments": "does not permit",
    "NOAUTH Authentication required.": "wants a password",
    "WRONGPASS invalid username-password pair or user is disabled.": "refuses the user or password",
    "ERR invalid password": "refuses the user or password",
    "ERR max number of clients reached": "no connection left",
    "DENIED Redis is running in protected mode because protected mode is enabled": "protected mode",
    "CLUSTERDOWN Hash slot not served": "is down",
    "MOVED 3999 127.0.0.1:6381": "not supported",
    "ASK 3999 127.0.0.1:6381": "not supported",
    "CROSSSLOT Keys in request don't hash to the same slot": "not supported",
    "TRYAGAIN Multiple keys request during rehashing of slot": "not supported",
    "ERR unknown command 'EVALSHA'": "refused a command",
    "WRONGTYPE Operation against a key holding the wrong kind of value": "refused a command",
    # Inside a script.
    "ERR Error running script (call to f_12): @user_script:4: @user_script: 4: -OOM command not allowed": "memory",
    "ERR Error running script (call to f_12): @user_script:4: -READONLY You can't write": "is a replica",
    "OOM command not allowed when used memory > 'maxmemory'. script: 12, on @user_script:16.": "is out of memory",
    "MISCONF Errors writing to the AOF file: No space left on device script: 12, on @user_script:4.": "its file",
}
RABBITMQ = {
    403: "refuses the user or password",
    404: "has lost its exchange or a queue",
    405: "another connection uses alone",
    406: "with other settings",
    506: "no resources left",
    530: "no such vhost",
    320: "closed the connection",
    311: "too large",
}


def exceptions_of(module: ModuleType) -> list[type[BaseException]]:
    """The exceptions that a module defines or passes on, without warnings."""
    found = {kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, Exception)}
    return sorted((kind for kind in found if not issubclass(kind, Warning)), key=lambda kind: kind.__qualname__)


def instance(kind: type[BaseException]) -> BaseException:
    text = "1 127.0.0.1:6379" if issubclass(kind, redis.exceptions.AskError) else "what the server said"
    return kind(text)


def as_store(error: BaseException) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught, connection.translated():
        raise error
    return caught.value


def as_broker(error: BaseException) -> BrokerUnavailable:
    with pytest.raises(BrokerUnavailable) as caught, broker_errors.translated("the broker does not answer"):
        raise error
    return caught.value


REDIS_KINDS = exceptions_of(redis.exceptions)
BROKER_KINDS = [*REDIS_KINDS, *exceptions_of(amqp.exceptions), *exceptions_of(kombu.exceptions)]


def test_there_are_classes_to_look_at() -> None:
    assert len(REDIS_KINDS) > 25 and len(BROKER_KINDS) > 65


@pytest.mark.parametrize("kind", REDIS_KINDS, ids=lambda kind: kind.__name__)
def test_each_error_class_of_redis_py_is_ours_in_the_store(kind: type[BaseException]) -> None:
    found = as_store(instance(kind))
    assert found.reason and found.reason in str(found)


@pytest.mark.parametrize("kind", BROKER_KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_each_error_class_of_the_brokers_clients_is_ours(kind: type[BaseException]) -> None:
    if kind in NOT_RAISED:
        return
    assert as_broker(instance(kind)).reason


@pytest.mark.parametrize("reply", REPLIES)
def test_each_refusal_of_redis_has_its_reason_in_words(reply: str) -> None:
    error: Any = BaseParser.parse_error(reply)
    assert isinstance(error, redis.RedisError)
    for found in (as_store(error), as_broker(error)):
        assert REPLIES[reply] in found.reason
        assert found.reason in str(found)


def test_each_code_that_redis_py_knows_is_among_these_replies() -> None:
    known = {code for code in BaseParser.EXCEPTION_CLASSES if code not in ("ERR", "EXECABORT", "NOSCRIPT")}
    assert known - {"ASK", "MOVED"} <= {reply.partition(" ")[0] for reply in REPLIES}


@pytest.mark.parametrize("code", amqp.exceptions.ERROR_MAP)
def test_each_refusal_of_rabbitmq_is_called_a_refusal(code: int) -> None:
    error = amqp.exceptions.error_for_code(code, "REFUSED - the server's words", (50, 10), amqp.exceptions.ChannelError)
    found = as_broker(error)
    assert RABBITMQ.get(code, "refused a request") in found.reason
    assert "the server's words" in str(found) and found.reason in str(found)
    wrapped = kombu.exceptions.OperationalError(str(error))
    wrapped.__cause__ = error
    assert as_broker(wrapped).reason == found.reason


def test_silence_is_no_refusal() -> None:
    for error in (TimeoutError("timed out"), ConnectionRefusedError(111, "Connection refused")):
        assert as_store(error).reason == as_broker(error).reason == "does not answer"
    assert as_store(redis.exceptions.TimeoutError("Timeout reading from socket")).reason == "does not answer"


def test_a_fault_of_our_own_is_not_taken_for_a_refusal() -> None:
    for translated in (connection.translated(), broker_errors.translated("")):
        with pytest.raises(KeyError), translated:
            raise KeyError("ours")


def test_only_a_thread_that_sends_is_interrupted_when_rabbitmq_blocks_it() -> None:
    broker_errors.on_blocked("a consumer goes on")
    with pytest.raises(BrokerUnavailable, match="memory or disk"), broker_errors.translated(""):
        broker_errors.on_blocked("connection blocked")
    broker_errors.on_blocked("a consumer goes on")
