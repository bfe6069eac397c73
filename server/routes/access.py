"""Tickets: what a browser shows instead of a key where it cannot send a header."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from server.access import TICKET_S, TicketOffice
from server.keys import KEY_SLOT


class Ticket(BaseModel):
    """One ticket."""

    ticket: str = Field(description="Goes into the query of one request: `?ticket=...`.")
    expires_in_s: float = Field(description="How long it may wait for that request.")


def access_routes(tickets: TicketOffice) -> APIRouter:
    """The route that issues tickets."""
    router = APIRouter(prefix="/v1/tickets", tags=["access"])

    @router.post("", status_code=201)
    async def issue(request: Request) -> Ticket:
        """A ticket for one websocket or one download, with what the key of this request opens."""
        ticket = await tickets.issue(request.scope.get(KEY_SLOT))
        return Ticket(ticket=ticket, expires_in_s=TICKET_S)

    return router
