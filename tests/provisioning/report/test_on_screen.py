"""The report in a real browser: nothing sticks out on a phone, in light and in dark, and it is not blank.

Needs Debian's chromium (.ci/packages.txt); skipped where it is not installed.
"""

import html
import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
]

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed (see .ci/packages.txt)")


def browse(tmp_path, content: str, *options: str) -> str:
    page = tmp_path / "page.html"
    page.write_text(content, encoding="utf-8")
    command = [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_no_part_of_the_page_is_wider_than_a_phone(tmp_path, demo_page):
    """Chromium's own windows are at least 500 pixels wide, so the page is laid out in frames."""
    measure = """onload = () => { document.title = [...document.querySelectorAll("iframe")].map(frame => {
        const page = frame.contentDocument.documentElement;
        return frame.width + ":" + (page.scrollWidth - page.clientWidth) + ":" + (page.scrollHeight > 2000);
    }).join(" ") }"""
    frames = "".join(
        f'<iframe width="{width}" height="800" frameborder="0" srcdoc="{html.escape(demo_page)}"></iframe>'
        for width in (360, 420, 1280)
    )
    dom = browse(tmp_path, f"<!doctype html><title>-</title>{frames}<script>{measure}</script>", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert title[1] == "360:0:true 420:0:true 1280:0:true"


@pytest.mark.parametrize("options", [(), ("--force-dark-mode",)], ids=["light", "dark"])
def test_a_screenshot_shows_ink_on_paper(tmp_path, demo_page, options):
    import numpy as np
    from PIL import Image

    shot = tmp_path / "shot.png"
    browse(tmp_path, demo_page, f"--screenshot={shot}", "--window-size=900,1200", "--hide-scrollbars", *options)
    with Image.open(shot) as image:
        brightness = np.asarray(image.convert("L"), np.float32)
    assert brightness.shape == (1200, 900)
    assert brightness.std() > 10
    assert bool(brightness.mean() > 128) == (not options)
