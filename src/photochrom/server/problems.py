"""Errors as problem details (RFC 9457)."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from photochrom.errors import PhotochromError

log = logging.getLogger("photochrom.server")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Fault(BaseModel):
    """One field of a form that is wrong."""

    field: str
    message: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "there is no model 'model_v9'; there are: model_v1, model_v2",
            }
        },
    )
    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="What is wrong, and how to mend it.")
    errors: list[Fault] | None = Field(None, description="For a form: the fields that are wrong.")


class Problem(HTTPException):
    """An error for the client: a status, and a sentence that says what is wrong and how to mend it."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: dict[str, str] | None = None,
        errors: list[Fault] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.errors = errors

    def details(self) -> ProblemDetails:
        """The error as sent to clients."""
        title = HTTPStatus(self.status_code).phrase
        return ProblemDetails(title=title, status=self.status_code, detail=self.detail, errors=self.errors)


def as_response(error: Exception) -> Response:
    """Any error as `application/problem+json`. An unexpected one is logged, and hidden from the client."""
    if isinstance(error, RequestValidationError):
        faults = [
            Fault(
                field=".".join(map(str, fault["loc"][1:])), message=fault["msg"].removeprefix("Value error, ")
            )
            for fault in error.errors()
        ]
        text = "; ".join(f"{fault.field or 'body'}: {fault.message}" for fault in faults)
        problem = Problem(422, text, errors=faults)
    elif isinstance(error, Problem):
        problem = error
    elif isinstance(error, StarletteHTTPException):
        problem = Problem(error.status_code, str(error.detail), dict(error.headers or {}))
    elif isinstance(error, ClientDisconnect):
        problem = Problem(400, "the client disconnected")  # for completeness: nobody reads it
    elif isinstance(error, PhotochromError):
        problem = Problem(500, str(error))
    else:
        log.error("a request failed", exc_info=error)
        problem = Problem(500, "the server failed; its log says why")
    return JSONResponse(
        problem.details().model_dump(exclude_none=True),
        problem.status_code,
        HEADERS | dict(problem.headers or {}),
        media_type="application/problem+json",
    )
