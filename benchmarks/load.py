"""What the server does under load, on this machine. Run it when nothing else runs.

Posts 50 photos of 64x64 pixels at once, 20 steps. The server answers each or refuses it politely (503 with
Retry-After, then it is posted again), while a prober asks for /api/health. Counts photos per second beside
`Colorizer` on the same photos in batches, in turns, because machines vary; and times one photo of 12
megapixels.

    python benchmarks/load.py [--model DIR] [--photos 50] [--clients 50] [--rounds 5] [--queue 64 16]

Without --model it uses the preset `small` with random weights, which are as fast.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import numpy as np
from PIL import Image

from pages import parser_for
from photochrom import files, model_folder
from photochrom.coloring.colorizer import Colorizer
from photochrom.config import PRESETS, build
from photochrom.diffusion.unet import UNet
from photochrom.model_folder import ModelFolder

STEPS = 20


def gray_photo(size: tuple[int, int], seed: int, format: str) -> bytes:
    """A photo of soft blotches."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, format)
    return buffer.getvalue()


def random_model(folder: ModelFolder) -> None:
    """The preset `small`, untrained."""
    config = build({"model": {"features": PRESETS["small"].features}, "data": {"size": 64}})
    folder.path.mkdir(parents=True)
    files.write_json(folder / model_folder.CONFIG, config.model_dump(mode="json"))
    folder.save_weights(UNet(config.model).state_dict(), config)


def post(port: int, model: str, photo: bytes, format: str = "png") -> tuple[int, float, bytes]:
    """Post one photo. Returns status, Retry-After and answer."""
    fields = {"model": model, "steps": str(STEPS), "format": format}
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode()
        for n, v in fields.items()
    ]
    parts.append(
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n\r\n'
        + photo
        + b"\r\n--x--\r\n"
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request(
        "POST", "/api/colorize", b"".join(parts), {"Content-Type": "multipart/form-data; boundary=x"}
    )
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, float(response.headers.get("Retry-After") or 0), answer


class Prober(threading.Thread):
    """Asks for /api/health twenty times a second, and records the time of each answer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.ended = port, threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self.ended.wait(0.05):
            begun = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            connection.request("GET", "/api/health")
            assert connection.getresponse().status == 200
            connection.close()
            self.seconds.append(time.perf_counter() - begun)


def storm(port: int, model: str, photos: list[bytes], clients: int) -> tuple[float, Counter[int], int]:
    """Post all photos at once, and refused ones again.

    Returns seconds, answers by status, and the number coloured.
    """
    answers: Counter[int] = Counter()
    waiting, lock, coloured = list(photos), threading.Lock(), 0

    def client() -> None:
        nonlocal coloured
        while True:
            with lock:
                if not waiting:
                    return
                photo = waiting.pop()
            status = 503
            while status == 503:
                status, retry_after, answer = post(port, model, photo)
                with lock:
                    answers[status] += 1
                if status == 503:
                    assert retry_after >= 1
                    time.sleep(retry_after)
            with lock:
                coloured += status == 200 and Image.open(io.BytesIO(answer)).size == (64, 64)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun, answers, coloured


def peak_megabytes(process: int) -> float:
    """The most memory that a process has held, if Linux tells."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return float("nan")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def alone(colorizer: Colorizer, photos: list[bytes]) -> float:
    """Seconds of `Colorizer` for all photos in batches, from files to files."""
    begun = time.perf_counter()
    for picture in colorizer([Image.open(io.BytesIO(photo)) for photo in photos], steps=STEPS):
        picture.save(io.BytesIO(), "PNG")
    return time.perf_counter() - begun


def measure(models: Path, name: str, options: argparse.Namespace, queue: int) -> dict[str, Any]:
    """Start a server, storm it in turns with `Colorizer` alone, and stop it."""
    colorizer = Colorizer.load(name, models)
    command = [
        sys.executable,
        "-m",
        "photochrom",
        "serve",
        "--models",
        str(models),
        "--port",
        "0",
        "--queue",
        str(queue),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        port = int(process.stderr.readline().split("127.0.0.1:")[1].split("/")[0])
        photos = [gray_photo((64, 64), seed, "PNG") for seed in range(options.photos)]
        post(port, name, photos[0])  # loads the model
        alone(colorizer, photos)
        before = peak_megabytes(process.pid)
        answers: Counter[int] = Counter()
        rates, shares, probes, coloured = [], [], [], 0
        for _ in range(options.rounds):
            by_itself = alone(colorizer, photos)
            prober = Prober(port)
            prober.start()
            seconds, these, done = storm(port, name, photos, options.clients)
            prober.ended.set()
            prober.join()
            answers += these
            coloured += done
            rates.append(options.photos / seconds)
            shares.append(by_itself / seconds)
            probes += prober.seconds
        after = peak_megabytes(process.pid)
        large = gray_photo((4000, 3000), 0, "JPEG")
        begun = time.perf_counter()
        statuses = {format: post(port, name, large, format)[0] for format in ("jpeg",)}
        twelve = time.perf_counter() - begun
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
    quantiles = statistics.quantiles(probes, n=100)
    posted = options.photos * options.rounds
    return {
        "photos": posted, "at once": options.photos, "clients at once": options.clients,
        "places in the queue": queue,
        "answers by status": dict(answers), "coloured": coloured, "lost": posted - coloured,
        "photos per second": round(statistics.median(rates), 1),
        "share of Colorizer alone": round(statistics.median(shares), 2),
        "least": round(min(shares), 2), "most": round(max(shares), 2),
        "health p50 ms": round(1000 * quantiles[49], 1), "health p99 ms": round(1000 * quantiles[98], 1),
        "health probes": len(probes), "memory before MB": round(before), "memory after MB": round(after),
        "12 megapixels": statuses, "12 megapixels, seconds": round(twelve, 2),
        "exit code after SIGTERM": code,
    }  # fmt: skip


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--model", type=Path, help="a model folder (default: the preset small, not trained)")
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--queue", type=int, nargs="*", default=[64, 16], help="places; one run for each number"
    )
    options = parser.parse_args()
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2
    )
    with tempfile.TemporaryDirectory() as scratch:
        models, name = (
            (options.model.parent, options.model.name) if options.model else (Path(scratch), "small")
        )
        if not options.model:
            random_model(ModelFolder(models / name))
        for queue in options.queue:
            print(json.dumps(measure(models, name, options, queue), indent=1))


if __name__ == "__main__":
    main()
