"""Methods about the tokens that open the TCP listener."""

from typing import Final

from d2m_node.client.method import Method, Params, Result, Scope


class RotateTokensParams(Params, frozen=True, kw_only=True):
    scopes: tuple[Scope, ...] = ()
    """Whose tokens; all if empty."""
    revoke: bool = False
    """The old tokens are void at once, instead of after a while in which both count."""


class TokenView(Result, frozen=True, kw_only=True):
    scope: Scope
    path: str
    """The file that holds the token. The token itself is never sent."""
    expires: int
    """Seconds since 1970."""


ROTATE_TOKENS: Final = Method(
    "tokens.rotate",
    RotateTokensParams,
    list[TokenView],
    "make new tokens for the TCP listener",
    scope=Scope.ADMIN,
)
