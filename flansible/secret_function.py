"""The public address of what an operator's own secret function uses; see definitions/secret_source.py."""

from flansible.definitions.secret_source import SecretRequest
from flansible.errors import SecretUnavailable

__all__ = ["SecretRequest", "SecretUnavailable"]
