"""The public address of LoginRequest, which an operator's own login function gets; see identity/custom_login.py."""

from flansible.identity.custom_login import Headers, LoginRequest

__all__ = ["Headers", "LoginRequest"]
