"""Builds the documents as a site in site/: `make docs`. A broken link or anchor fails.

The OpenAPI document is made from the code and shown by the Swagger UI that the service has too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

from flansible.web.openapi import openapi31
from flansible.web.routes import ROUTES

TOP = Path(__file__).parents[1]
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Flansible: every field of the API</title>
<link rel="stylesheet" href="swagger-ui/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="swagger-ui/swagger-ui-bundle.js"></script>
<script src="swagger-ui/start.js"></script>
</body>
</html>
"""
# Requests are tried out in a service's own page: /api/docs.
_START = (
    'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, supportedSubmitMethods: []});\n'
)


def main() -> int:
    """Returns zensical's exit code, and adds the OpenAPI document if that is 0."""
    build = [str(Path(sys.executable).parent / "zensical"), "build", "--strict", "--clean"]
    code = subprocess.run(build, cwd=TOP).returncode
    if code == 0:
        _add_openapi(TOP / "site" / "api")
    return code


def _add_openapi(folder: Path) -> None:
    (folder / "openapi.json").write_text(json.dumps(openapi31.document(ROUTES), indent=1), encoding="utf-8")
    (folder / "openapi.html").write_text(_PAGE, encoding="utf-8")
    assets = folder / "swagger-ui"
    assets.mkdir()
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        shutil.copy(str(resources.files("flask_swagger_ui") / "dist" / name), assets)
    (assets / "start.js").write_text(_START, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
