"""axe-core for the tests of the console: fetched from the npm registry without npm, and held against its checksum.

`make test` calls it with the path of the file to write. NPM_CONFIG_REGISTRY names another registry. Where none is
reached, a laptop goes without (the tests that need it are skipped and say so); with CI set that is a failure.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

import httpx

VERSION = "4.14.1"
# From `dist.integrity` of the registry; it changes with the version.
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
MEMBER = "package/axe.min.js"
SECONDS = 60


def main(target: Path) -> int:
    registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
    url = f"{registry}/axe-core/-/axe-core-{VERSION}.tgz"
    try:
        tarball = httpx.get(url, timeout=SECONDS, follow_redirects=True).raise_for_status().content
    except httpx.HTTPError as error:
        print(f"{url} cannot be had: {error}", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    if base64.b64encode(hashlib.sha512(tarball).digest()).decode() != SHA512:
        print(f"{url} is not what was pinned: its sha512 is another", file=sys.stderr)
        return 1
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(script(tarball))
    partial.replace(target)
    return 0


def script(tarball: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        member = archive.extractfile(MEMBER)
        if member is None:
            raise ValueError(f"{MEMBER} is no file")
        return member.read()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
