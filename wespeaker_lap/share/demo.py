"""A page on this computer to try a model with one's own voice: nothing is sent anywhere else."""

import errno
import ipaddress
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

from wespeaker_lap.share.demo_desk import Desk
from wespeaker_lap.share.demo_page import build_page
from wespeaker_lap.share.demo_views import STYLE

EVERY_HOST = ("0.0.0.0", "::")
MAX_UPLOAD = "200mb"
CLOSE_SECONDS = 2  # for requests that are under way when the demo is ended
# A page may ask its own server only, whatever its libraries would like to load.
POLICY = ("default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
          "form-action 'self'; frame-ancestors 'none'; base-uri 'self'")


def serve_demo(make_desk: Callable[[], Desk], name: str, host: str = "127.0.0.1",
               port: int = 7860) -> None:
    """Serve the page until Ctrl-C, or until the process is told to end.

    Args:
        make_desk: gives what does the work, as soon as it is clear that it can be reached.
        name: of the model, for the page.
        host: address to listen at; others than this computer's own are warned of.
        port: to listen at; 0 takes a free one.

    Raises:
        ImportError: Gradio is not installed.
        OSError: the port is in use, or the address is not this computer's.
    """
    # As Ctrl-C: else the recordings would outlast a process that is told to end.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="wespeaker-lap-demo-") as folder, \
                listen(host, port) as listener:
            _serve(make_desk, name, host, listener, Path(folder))
    finally:
        signal.signal(signal.SIGTERM, before)


def _serve(make_desk: Callable[[], Desk], name: str, host: str, listener: socket.socket,
           folder: Path) -> None:
    gradio = _import_gradio(folder)
    import uvicorn  # Gradio brings it

    app = make_app(gradio, make_desk(), name, host, folder)
    if not is_loopback(host):
        logging.warning("%s: whoever reaches this computer can open the page, send it recordings, "
                        "and see, change and save the gallery; nothing is encrypted. Elsewhere "
                        "than here, browsers allow the microphone only over https; uploads work",
                        host)
    config = uvicorn.Config(app, log_level="warning", ws="none", access_log=False,
                            timeout_graceful_shutdown=CLOSE_SECONDS)
    shown = "localhost" if host in EVERY_HOST else f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listener.getsockname()[1]}/ is open; end it with Ctrl-C", flush=True)
    uvicorn.Server(config).run([listener])


def _import_gradio(folder: Path) -> ModuleType:
    """Import Gradio so that it reports nothing, and keeps what it is sent in `folder` only."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1",
                      GRADIO_TEMP_DIR=str(folder))
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"the demo needs Gradio, which cannot be imported ({error}); "
                          f"pip install 'wespeaker-lap[demo]'") from error
    return gradio


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches an address.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Open a port.

    Args:
        host: an address or name of this computer.
        port: 0 for any that is free.

    Raises:
        OSError: it is in use or not allowed, or there is no such address; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OverflowError as error:
        raise OSError(f"port {port}: want 0 to 65535; 0 takes a free one") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "another program uses the port (a demo of before?)"
        elif error.errno == errno.EACCES:
            reason = "the port is not allowed; those from 1024 on are"
        else:
            raise OSError(f"{host}:{port}: cannot listen there ({error}); give --host an address "
                          f"of this computer") from error
        raise OSError(f"{host}:{port}: {reason}; give --port another one, or 0 for any that is "
                      f"free") from error


def make_app(gradio: ModuleType, desk: Desk, name: str, host: str, folder: Path) -> Callable:
    """The web application: Gradio's page behind two guards.

    Args:
        gradio: the module.
        desk, name: as for `serve_demo`.
        host: on a loopback address, requests under other names are refused: a page from elsewhere
            could have its own name point here.
        folder: for temporary files.

    Returns:
        An ASGI application.
    """
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    is_local = is_loopback(host)
    page = build_page(gradio, desk, name, is_local, folder)
    fonts = ["system-ui", "sans-serif"]
    theme = gradio.themes.Default(primary_hue="blue", font=fonts,
                                  font_mono=["ui-monospace", "monospace"])
    app = FastAPI(openapi_url=None)
    gradio.mount_gradio_app(app, page, "/", server_name=host, footer_links=[], run_history=False,
                            show_error=False, max_file_size=MAX_UPLOAD, ssr_mode=False, pwa=False,
                            mcp_server=False, enable_monitoring=False, theme=theme, css=STYLE,
                            allowed_paths=[str(folder)])
    if is_local:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]",
                                                                 "::1", host])
    return with_policy(app)


def with_policy(app: Callable) -> Callable:
    """Let an ASGI application send `POLICY` with all it sends."""
    async def answer(scope: dict, receive: Callable, send: Callable[[dict], Awaitable]) -> None:
        async def send_with_policy(message: dict) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", POLICY.encode()),
                         (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)
        await app(scope, receive, send_with_policy)
    return answer
