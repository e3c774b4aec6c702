"""What of Windows can be tested elsewhere: we need no module, function or signal that it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.making import smooth

LACKING = """
import os, shutil, signal, sys
# These know Windows.
import fastapi, filelock, matplotlib.pyplot, numpy, PIL.Image, safetensors.torch, scipy, skimage, torch
import uvicorn
import torch.optim.swa_utils, multiprocessing.popen_spawn_posix
for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "readline", "syslog"):
    sys.modules[name] = None
for name in ("fork", "getuid", "geteuid", "getgid", "getpgid", "setsid", "killpg", "fchmod", "fchown",
             "chown", "mkfifo", "uname", "getloadavg", "sched_getaffinity", "O_DIRECTORY", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE",
             "pthread_sigmask", "sigwait"):
    if hasattr(signal, name):
        delattr(signal, name)
def held(path):  # open or mapped, itself or a file below it
    path = os.path.realpath(path)
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink("/proc/self/fd/" + number))
        except OSError:  # closed meanwhile
            pass
    with open("/proc/self/maps") as maps:
        names += [line.split(maxsplit=5)[5].strip() for line in maps if "/" in line]
    return [name for name in names if name == path or name.startswith(path + os.sep)]
def refusing(real):  # Windows neither moves nor deletes what is open
    def change(*paths, **options):
        if not sys._getframe(1).f_code.co_filename.endswith("tempfile.py"):  # which knows how on Windows
            for path in paths:
                if names := held(path):
                    raise PermissionError(13, f"in use: {names}", path)
        return real(*paths, **options)
    return change
if os.path.exists("/proc/self/maps"):
    for name in ("replace", "rename", "unlink", "remove", "rmdir"):
        setattr(os, name, refusing(getattr(os, name)))
    shutil._use_fd_functions = False
opened = os.open
def refuse_folders(path, *arguments, **options):
    if "photochrom" in sys._getframe(1).f_code.co_filename and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return opened(path, *arguments, **options)
os.open = refuse_folders
import photochrom.files
photochrom.files.os = type(os)("os")
photochrom.files.os.__dict__.update(os.__dict__, name="nt")
from photochrom.commands.cli import main
def run(*command):
    try:
        main(command)
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""
WORK = """
run("data", "import", "photos", "--name", "mine", "--size", "32", "--validation", "0.25")
run("data", "import", "photos", "--name", "mine", "--size", "32", "--validation", "0.25", "--overwrite")
run("data", "import", "photos", "--name", "shards", "--size", "32", "--validation", "0.25", "--shards")
run("data", "import", "photos", "--name", "shards", "--size", "32", "--validation", "0.25", "--shards",
    "--overwrite")
run("train", "--data", "mine", "--features", "8,16", "--blocks", "1", "--perceptual", "0", "--epochs", "1",
    "--batch-size", "8")
run("train", "--name", "my_model", "--data", "mine", "--features", "8,16", "--blocks", "1",
    "--perceptual", "0", "--epochs", "2", "--batch-size", "8")
run("train", "--name", "my_model", "--data", "mine", "--features", "8,16,16", "--blocks", "1",
    "--perceptual", "0", "--epochs", "1", "--batch-size", "8", "--encoder", "lite0", "--overwrite")
run("colorize", "photos", "-o", "out", "--model", "my_model", "--steps", "2")
run("models")
run("data", "list")
run("data", "clean")
"""
SERVE = """
from pathlib import Path
from fastapi.testclient import TestClient
from photochrom.server import Settings, create_app
import photochrom.commands.serve
with TestClient(create_app(Settings(models=Path("models")))) as client:
    assert client.get("/api/health").status_code == 200
    listed = client.get("/api/models").json()
    assert [model["training"] for model in listed if model["name"] == "my_model"] == [False]
    with Path("photos/00.png").open("rb") as photo:
        done = client.post("/api/colorize", files={"photo": photo}, data={"model": "my_model", "steps": "2"})
    assert done.status_code == 200, done.text
"""


def test_nothing_needs_what_windows_lacks(tmp_path: Path) -> None:
    """Nor a console that can write every name: it is that of an old Windows, which knows 256 characters."""
    (tmp_path / "photos").mkdir()
    for number in range(24):
        name = "неизвестный ☃.png" if number == 1 else f"{number:02}.png"
        smooth(number).resize((32, 32)).save(tmp_path / "photos" / name)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    code = LACKING + WORK + SERVE
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("cp1252")
    assert (tmp_path / "out" / "неизвестный ☃.png").exists()
    assert b"Traceback" not in done.stderr
