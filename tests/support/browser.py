# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Pages in Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

_MEASURE = """<script>
const wrong = [...document.body.querySelectorAll("*")].filter(one => {
  const box = one.getBoundingClientRect();
  const outside = box.width && (box.right > innerWidth + 0.5 || box.left < 0);
  return outside || (one.clientWidth && one.scrollWidth > one.clientWidth);
});
parent.postMessage(JSON.stringify({
  window: innerWidth,
  page: document.documentElement.scrollWidth,
  wrong: wrong.map(one => one.outerHTML.slice(0, 80)),
}), "*");
</script>"""
# A window of Chromium has at least 500 pixels, a frame any number.
_FRAME = """<iframe src="{page}#open=1" style="width: {width}px; height: 1000px; border: 0"></iframe>
<script>onmessage = event => { document.title = event.data; };</script>"""


def in_browser(page: Path, fragment: str = "") -> str:
    """The page's elements after its scripts ran."""
    assert CHROMIUM is not None
    url = f"{page.as_uri()}#{fragment.replace(' ', '%20')}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    options.append(f"--user-data-dir={page.parent / 'profile'}")
    done = subprocess.run([CHROMIUM, *options, url], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def measured(page: Path, width: int) -> dict[str, Any]:
    """Width of a window and of a page in it, and the elements that lie outside or hide a part of their content."""
    copy, frame = (page.with_name(f"{name}_{page.name}") for name in ("measured", "frame"))
    copy.write_text(page.read_text() + _MEASURE)
    frame.write_text(_FRAME.replace("{page}", copy.name).replace("{width}", str(width)))
    title = re.search(r"<title>(.*?)</title>", in_browser(frame))
    assert title is not None
    return json.loads(html.unescape(title.group(1)))
