"""What requests and answers of a served model look like. Imports FastAPI, so it is imported by `serve` alone."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi
import uvicorn
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from multistep.errors import MultistepError, PlanError
from multistep.tasks.prediction import Prediction
from multistep.tasks.serving.service import Busy, Service
from multistep.tasks.written import likeliest

MOST_INPUTS = 1000  # of a request
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FIELD = "files"  # of a multipart form


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: str
    content: str


class Encoded(BaseModel):
    """A file's bytes."""

    model_config = ConfigDict(extra="forbid")
    base64: str


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inputs: list[str | Encoded | list[str] | list[Turn]] = Field(min_length=1, max_length=MOST_INPUTS)
    top_k: int | None = Field(default=None, ge=1)


class Refused(Exception):
    """A request that is not answered: its HTTP status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class SizeLimit:
    """Refuses bodies of more than so many bytes, whether or not they say their size first."""

    def __init__(self, app: Any, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        seen = 0
        refusal = f"the body has more than {self._most:,} bytes; send fewer inputs at once, or serve with --limit-mb"

        async def counted() -> Any:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise fastapi.HTTPException(413, refusal)
            return message

        declared = dict(scope.get("headers") or ()).get(b"content-length", b"0")
        if scope["type"] == "http" and declared.isdigit() and int(declared) > self._most:
            await JSONResponse({"detail": refusal}, 413)(scope, receive, send)
            return
        await self._app(scope, counted if scope["type"] == "http" else receive, send)


def make_app(service: Service, *, most_bytes: int, ready: str = "") -> Any:
    """The application: POST /predict, GET / and /health, the OpenAPI page under /docs."""

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        if ready:
            print(ready, file=sys.stderr, flush=True)
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    async def predict(request: fastapi.Request) -> JSONResponse:
        try:
            with tempfile.TemporaryDirectory(prefix="multistep-") as folder:
                inputs, top_k = await _read(request, service, Path(folder))
                said = await asyncio.wrap_future(service.submit(inputs))
        except Refused as refused:
            return JSONResponse({"detail": str(refused)}, refused.status)
        except Busy:
            return JSONResponse({"detail": "too many requests are waiting; try again in a moment"}, 503)
        except MultistepError as error:
            return JSONResponse({"detail": str(error)}, 422)
        return JSONResponse({"predictions": [_answer(each, service, top_k) for each in said]})

    async def about() -> dict[str, Any]:
        return {"status": "ok", **service.about, "predict": "/predict", "docs": "/docs"}

    title = f"multistep: {service.about['task']}"
    app = fastapi.FastAPI(title=title, description=f"Answers by {service.about['model']}.", lifespan=lifespan)
    app.add_middleware(SizeLimit, most=most_bytes)
    app.add_api_route(
        "/predict", predict, methods=["POST"], openapi_extra=_described(service), responses=_answers(service)
    )
    for path in ("/", "/health"):
        app.add_api_route(path, about, methods=["GET"], name=f"about{path}")
    return app


async def _read(request: fastapi.Request, service: Service, folder: Path) -> tuple[list[str], int | None]:
    """What is asked, as one would write it on a command line; files are written into the folder. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, service, folder)
    if kind not in ("application/json", "application/x-www-form-urlencoded", ""):  # the third: as curl -d sends it
        raise Refused(415, f"content-type is {kind}; allowed: application/json, multipart/form-data")
    try:
        question = Question.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"][:2])) or "the body"
        raise Refused(422, f"{where}: {first['msg']}; send such as {json.dumps(_example(service))}") from None
    return [_as_input(given, i, service, folder) for i, given in enumerate(question.inputs)], question.top_k


async def _read_form(request: fastapi.Request, service: Service, folder: Path) -> tuple[list[str], int | None]:
    if not service.predictor.files:
        raise Refused(415, f"this model reads {_with_article(service.about['input'])}; send it as JSON")
    found = []
    async with request.form(max_files=MOST_INPUTS) as form:
        top_k = str(form.get("top_k") or "")
        for i, upload in enumerate(form.getlist(FIELD)):
            if isinstance(upload, str):
                raise Refused(422, f"'{FIELD}' holds text; send files")
            path = folder / f"{i}{_suffix(upload.filename or '', service)}"
            path.write_bytes(await upload.read())
            found.append(str(path))
    if not found:
        raise Refused(422, f"the form has no field '{FIELD}' with files in it")
    if top_k and not (top_k.isdigit() and int(top_k) > 0):
        raise Refused(422, f"top_k is {top_k}; allowed: 1 or more")
    return found, int(top_k) if top_k else None


def _suffix(name: str, service: Service) -> str:
    suffix = Path(name).suffix.lower()
    return suffix if suffix in service.predictor.files else ""


def _as_input(given: Any, number: int, service: Service, folder: Path) -> str:
    """An input as its text, or as the path of a file that has been written. A client's paths are never opened."""
    where, unit = f"inputs.{number}", service.about["input"]
    reads = f"this model reads {_with_article(unit)}"
    if service.predictor.files:
        if not isinstance(given, Encoded | str):
            raise Refused(422, f'{where}: {reads}; send {{"base64": "..."}}, or a form with files')
        text = given.base64 if isinstance(given, Encoded) else given
        try:
            content = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
        except (binascii.Error, ValueError):
            raise Refused(422, f"{where}: not base64, which the bytes of {_with_article(unit)} are sent as") from None
        path = folder / str(number)
        path.write_bytes(content)
        return str(path)
    if isinstance(given, Encoded):
        raise Refused(422, f"{where}: bytes, but {reads}")
    if any(isinstance(part, str) and not part.strip() for part in ([given] if isinstance(given, str) else given)):
        raise Refused(422, f"{where}: a blank text, of which nothing can be said")
    if isinstance(given, str):
        return given
    if all(isinstance(each, Turn) for each in given):
        if unit != "prompt":
            raise Refused(422, f"{where}: turns of a conversation, but {reads}")
        return json.dumps([each.model_dump() for each in given if isinstance(each, Turn)], ensure_ascii=False)
    if not service.paired or len(given) != 2:
        raise Refused(422, f"{where}: a list of texts, but {reads}")
    return json.dumps(given, ensure_ascii=False)


def _with_article(unit: str) -> str:
    return f"an {unit}" if unit[0] in "aeiou" else f"a {unit}"


def _answer(said: Prediction | str, service: Service, top_k: int | None) -> dict[str, Any]:
    if isinstance(said, str):
        unit = service.about["input"]
        why = said.partition(": ")[2] if service.predictor.files else said  # without the path of our own copy
        return {"error": f"{unit}: {why}" if service.predictor.files else why}
    found: dict[str, Any] = {"prediction": float(said.output) if service.predictor.numeric else said.output}
    if said.probability is not None:
        found["probability"] = said.probability
    if top_k and said.others:
        found["top"] = [{"label": label, "probability": share} for label, share in likeliest(said, top_k)]
    return found


# The OpenAPI page -------------------------------------------------------------------------------------


def _example(service: Service) -> dict[str, Any]:
    """A request that this model answers."""
    if service.predictor.files:
        return {"inputs": [{"base64": "the file's bytes in base64"}]}
    if service.about["input"] == "prompt":
        return {"inputs": [[{"role": "user", "content": "What is the capital of France?"}]]}
    text = "The capital of France is [MASK]." if service.about["task"] == "fill-mask" else "A joy from start to finish."
    asked: dict[str, Any] = {"inputs": [[text, "What a film!"] if service.paired else text]}
    return asked | ({"top_k": 2} if service.classes else {})


def _described(service: Service) -> dict[str, Any]:
    schema = Question.model_json_schema()
    definitions = schema.pop("$defs", {})
    inlined = json.dumps(schema)
    for name, definition in definitions.items():
        inlined = inlined.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(definition))
    content: dict[str, Any] = {"application/json": {"schema": json.loads(inlined), "example": _example(service)}}
    if service.predictor.files:
        binary = {"type": "array", "items": {"type": "string", "format": "binary"}}
        fields = {FIELD: binary, "top_k": {"type": "integer", "minimum": 1}}
        content["multipart/form-data"] = {"schema": {"type": "object", "properties": fields, "required": [FIELD]}}
    return {"requestBody": {"required": True, "content": content}}


def _answers(service: Service) -> dict[int | str, dict[str, Any]]:
    """The real answer to the example, where asking takes no time."""
    found: dict[str, Any] = {"description": "What is said of each input, in order; `error` where nothing can be."}
    if not service.predictor.files and service.about["input"] != "prompt":
        asked = _example(service)
        inputs = [given if isinstance(given, str) else json.dumps(given) for given in asked["inputs"]]
        said = [_answer(each, service, asked.get("top_k")) for each in service.submit(inputs).result()]
        found["content"] = {"application/json": {"example": {"predictions": said}}}
    refusals = {413: "The body is too large.", 422: "The request makes no sense.", 503: "Too many requests wait."}
    return {200: found, **{status: {"description": said} for status, said in refusals.items()}}


def run(service: Service, host: str, port: int, *, most_bytes: int) -> None:
    """Serve until Ctrl-C or SIGTERM. Port 0 takes any that is free. Raises PlanError where the port cannot be had."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        service.close()
        raise PlanError(
            f"{host}, port {port}: cannot listen there ({error}); name another with --host, --port"
        ) from None
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    ready = f"multistep: {service.about['model']} answers at {address}/predict (docs: {address}/docs); Ctrl-C ends"
    if host not in LOOPBACK:
        ready += "\nmultistep: other machines can reach it, and nobody is asked for a password"
    config = uvicorn.Config(make_app(service, most_bytes=most_bytes, ready=ready), log_level="warning")
    with listener:
        uvicorn.Server(config).run(sockets=[listener])
