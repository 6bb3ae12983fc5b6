"""Commands of the package without its start: one process has imported it and forks for each call.

A page's commands are many and small, and most of their time is the import of torch. `start` gives a
folder with a `python` and a `wespeaker-lap` that hand their arguments, folder, environment and
standard streams to that process. All else that `python` is asked for is done by this interpreter.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRELOADED = ("wespeaker_lap.cli", "wespeaker_lap.engine.train", "wespeaker_lap.engine.plan",
             "wespeaker_lap.engine.extract", "wespeaker_lap.engine.probe", "torch._dynamo",
             "wespeaker_lap.share.pack", "wespeaker_lap.share.page",
             "wespeaker_lap.share.attention", "wespeaker_lap.share.corpus_page")
CLIENT = """\
#!{python} -SE
import json, os, socket, sys
name, args = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python":
    if args[:2] != ["-m", "wespeaker_lap"]:
        os.execv({python!r}, [{python!r}, *args])
    args = args[2:]
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([args, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int(server.recv(16) or b"1"))
"""


@contextmanager
def start(folder: Path) -> Iterator[Path]:
    """Start the process; it ends with the block.

    Args:
        folder: for the socket and the two programs; a short path.

    Yields:
        The folder of the programs.
    """
    address = str(folder / "socket")
    for name in ("python", "wespeaker-lap"):
        (folder / name).write_text(CLIENT.format(python=sys.executable, address=address))
        (folder / name).chmod(0o755)
    process = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield folder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def serve(address: str) -> None:
    """Import what commands need, once, then fork for every call."""
    for name in PRELOADED:
        importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            answer(connection)
        connection.close()


def answer(connection: socket.socket) -> None:
    """Be the program that was called, and send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, _, _ = socket.recv_fds(connection, 8, 3)
    size, request = int.from_bytes(header, "big"), b""
    while len(request) < size:
        request += connection.recv(size - len(request))
    args, folder, environment = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, code = ["wespeaker-lap", *args], 0
    try:
        sys.modules["wespeaker_lap.cli"].main()
    except SystemExit as done:
        code = done.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(str(code).encode())
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
