"""How every GET is handled: as FastAPI does, and HEAD with it, which it leaves out."""

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send


class GetRoute(APIRoute):
    """A route whose GET answers HEAD too; the server leaves the body out.

    Not as one of the route's methods: OpenAPI's document would have every operation twice.
    """

    @property
    def allowed(self) -> list[str]:
        """The methods that are answered."""
        methods = self.methods or set()
        return sorted(methods | {"HEAD"} if "GET" in methods else methods)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is for this route."""
        found, child = super().matches(scope)
        if found is Match.PARTIAL and scope["method"] in self.allowed:
            found = Match.FULL
        return found, child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise 405 with the methods that there are."""
        if scope["method"] not in self.allowed:
            raise HTTPException(405, headers={"Allow": ", ".join(self.allowed)})
        await self.app(scope, receive, send)
