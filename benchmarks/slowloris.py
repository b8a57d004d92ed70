"""How honest clients fare beside thousands of slow ones.

Starts a private service with two web workers. Round by round, honest polls from an address of their own are timed
without slow clients and beside them: 300 or 3,000 connections from one or from fifty loopback addresses, with and
without TLS, without a login and by a viewer on /api/preview. All share the machine's cores. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator

import httpx

from benchmarks.service import ADMIN, machine, running
from benchmarks.web import finished_task, hash_password
from tests.helpers.slow_clients import Crowd, basic, held, p99, poll

VIEWER = ("viewer", "a viewer's")


@contextlib.contextmanager
def _service(is_tls: bool) -> Iterator[tuple[int, str, ssl.SSLContext | None]]:
    """Yields the port, the path of a final task's status, and how to speak TLS."""
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, object] = {"web_workers": 2}
        context = None
        if is_tls:
            certificate, key = f"{folder}/tls.pem", f"{folder}/tls.key"
            command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout {key} -out {certificate}"
            subprocess.run(
                [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
            )
            settings |= {"tls_certificate": certificate, "tls_key": key}
            context = ssl.create_default_context(cafile=certificate)
        with running(users=[{"user": VIEWER[0], "password": VIEWER[1], "role": "viewer"}], **settings) as service:
            hash_password(service)
            port = int(service.url.rpartition(":")[2])
            scheme = "https" if is_tls else "http"
            with httpx.Client(
                base_url=f"{scheme}://127.0.0.1:{port}", auth=ADMIN, timeout=120, verify=context or True
            ) as client:
                path = f"/api/ansibletaskstatus/{finished_task(client)}"
            yield port, path, context


def measure(count: int, addresses: int, is_tls: bool, is_viewer: bool, rounds: int, seconds: float) -> str:
    """Returns a row of the table."""
    ratios, alone, beside = [], [], []
    with _service(is_tls) as (port, path, context):
        who = {"path": "/api/preview", "login": basic(VIEWER)} if is_viewer else {}
        crowd = Crowd(port, count, addresses, is_tls=is_tls, **who)
        for _ in range(rounds):
            alone.append(p99(poll(port, path, basic(ADMIN), seconds, context)))
            with held(crowd):
                beside.append(p99(poll(port, path, basic(ADMIN), seconds, context)))
            ratios.append(beside[-1] / alone[-1])
            time.sleep(2)
    name = f"{count:,} from {addresses}{', TLS' if is_tls else ''}{', a viewer on /api/preview' if is_viewer else ''}"
    middle = [statistics.median(found) for found in (alone, beside, ratios)]
    return f"| {name} | {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="of each half of a round")
    parser.add_argument("--counts", type=int, nargs="+", default=(300, 3000))
    parser.add_argument("--addresses", type=int, nargs="+", default=(1, 50))
    given = parser.parse_args()
    print(f"{machine()}, 2 web workers, {given.rounds} rounds of twice {given.seconds:g} s\n")
    print("| slow clients | p99 without (ms) | p99 beside (ms) | ratio |\n|---|---|---|---|", flush=True)
    variants = ((False, False), (True, False), (False, True))
    for (is_tls, is_viewer), count, addresses in itertools.product(variants, given.counts, given.addresses):
        print(measure(count, addresses, is_tls, is_viewer, given.rounds, given.seconds), flush=True)


if __name__ == "__main__":
    main()
