"""Pages for people: one file each, without a script or a style from elsewhere.

So the policy that goes with them forbids both.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from starlette.responses import Response

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


def html_page(name: str) -> Response:
    """A page of ``static``, with a policy under which nothing but itself can run."""
    html = files("serving").joinpath(f"static/{name}").read_text(encoding="utf-8")
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in _INLINE.findall(html)
    }
    policy = (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; "
        f"script-src 'sha256-{hashes['script']}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    return Response(html, headers=headers, media_type="text/html")
