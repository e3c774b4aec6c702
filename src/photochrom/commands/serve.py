"""`photochrom serve`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photochrom.commands.shared import DEVICE, MODELS, Models, say
from photochrom.errors import PhotochromError, UsageError

if TYPE_CHECKING:
    from photochrom.server import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    models: Models = MODELS,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is the whole network.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    reports: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that holds evaluation reports.")
    ] = Path("reports"),
    device: Annotated[str | None, typer.Option(help=DEVICE)] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log every request, with its client and seconds.")
    ] = False,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="PHOTOCHROM_API_KEY",
            help="Answer only clients that send this key.",
            show_envvar=True,
            rich_help_panel="Access",
        ),
    ] = None,
    allow_host: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Answer to this host name too, which a proxy uses; repeatable.",
            rich_help_panel="Access",
        ),
    ] = [],  # noqa: B006
    allow_origin: Annotated[
        list[str],
        typer.Option(
            metavar="URL",
            help="Another site whose pages may use this server: https://NAME; repeatable.",
            rich_help_panel="Access",
        ),
    ] = [],  # noqa: B006
    root_path: Annotated[
        str,
        typer.Option(
            metavar="/PATH", help="Path under which a proxy shows this server.", rich_help_panel="Access"
        ),
    ] = "",
    max_megapixels: Annotated[
        float,
        typer.Option(min=0.01, max=178, help="Largest photo to accept.", rich_help_panel="Limits"),
    ] = 120,
    max_upload: Annotated[
        int,
        typer.Option(min=1, metavar="MB", help="Largest request to accept.", rich_help_panel="Limits"),
    ] = 64,
    queue: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Photos that may wait; refuse more.", rich_help_panel="Limits"),
    ] = 64,
    job_seconds: Annotated[
        float,
        typer.Option(min=0.1, help="Time limit for a photo, with its wait.", rich_help_panel="Limits"),
    ] = 300,
    model_memory: Annotated[
        int,
        typer.Option(min=1, metavar="MB", help="Memory for loaded models.", rich_help_panel="Limits"),
    ] = 2048,
    grace: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds for running work to finish after Ctrl-C.", rich_help_panel="Limits"
        ),
    ] = 20,
) -> None:
    """Serve the web page and the API.

    Colour photos, compare models, inspect dark regions and watch a training, in
    a browser. The server sends nothing elsewhere and keeps no photo.

    [bold]Examples[/bold]
    $ photochrom serve
    $ photochrom serve --models models --port 9000
    $ photochrom serve --allow-host photos.example --root-path /colours
    $ PHOTOCHROM_API_KEY=secret photochrom serve --host 0.0.0.0
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise PhotochromError("serving needs more packages: pip install 'photochrom[serve]'") from None
    from photochrom.coloring.colorizer import pick_device
    from photochrom.server import Settings

    if api_key is not None and not api_key.strip():
        raise UsageError("--api-key is empty: give a key, or leave it out")
    pick_device(device)  # fails here, rather than at the first request
    if host not in LOOPBACK and not api_key:
        say(f"warning: everyone who reaches {host} can use this server; --api-key asks them for a key")
    for origin in allow_origin:
        if not re.fullmatch(r"https?://[^/\s]+", origin):
            raise UsageError(f"--allow-origin {origin}: write https://NAME, without a path")
    if root_path and not re.fullmatch(r"(/[^/\s?#]+)+", root_path):
        raise UsageError(f"--root-path {root_path}: write /NAME, with no slash at the end")
    settings = Settings(
        models=models,
        reports=reports,
        device=device,
        api_key=api_key,
        hosts=(*LOOPBACK, *map(str.lower, allow_host)) if host in LOOPBACK or allow_host else (),
        origins=tuple(allow_origin),
        root_path=root_path,
        max_upload_bytes=max_upload * 2**20,
        max_pixels=int(max_megapixels * 1e6),
        queue_photos=queue,
        job_seconds=job_seconds,
        model_bytes=model_memory * 2**20,
    )
    run(settings, host, port, grace, access_log)


def run(settings: Settings, host: str, port: int, grace: float, access_log: bool) -> None:
    """Serve until SIGINT or SIGTERM, then let running work finish for `grace` seconds at most."""
    import asyncio
    import logging
    import signal
    import socket
    from collections.abc import Iterator
    from contextlib import contextmanager
    from types import FrameType

    import uvicorn

    from photochrom.server import create_app
    from photochrom.server.access_log import AccessLog
    from photochrom.server.service import Service

    app = create_app(settings)
    worker = Service.of(app).worker

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own version raises the signal again at the end, which would make the exit code 143.
            before = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            say(f"Photochrom is at {address} (Ctrl-C stops it)")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            worker.close()
            asyncio.get_running_loop().call_later(grace, worker.give_up)
            await super().shutdown(sockets)

        def stop(self, number: int, frame: FrameType | None) -> None:
            if self.should_exit:
                os._exit(128 + number)  # no file is half written, and unwinding would wait for running work
            self.should_exit = True  # before the line: its reader may send a second signal at once
            os.write(sys.stderr.fileno(), b"stopping once running work is done (again: quit at once)\n")

    logging.basicConfig(format="%(message)s")
    config = uvicorn.Config(
        AccessLog(app) if access_log else app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(grace) + 5,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            mend = "choose another --port" if host in LOOPBACK else "check --host and --port"
            raise PhotochromError(f"cannot listen on {host}:{port}: {error.strerror}; {mend}") from None
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}/"
        Server(config).run(sockets=[listener])
    if not worker.stop():
        os._exit(0)  # a step is stuck; the interpreter would abort in the middle of it
