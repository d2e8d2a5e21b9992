"""A real headless Chromium, driven over WebDriver with nothing but the standard library."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",  # containers have no user namespaces; only pages written by the tests are opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@dataclass(frozen=True, kw_only=True)
class Browser:
    """One open session."""

    port: int
    session: str

    def open(self, page: Path, *, width: int, scheme: Literal["light", "dark"] = "light") -> None:
        """Open a file as a phone (below 500 px) or a desktop of that width would."""
        mobile = width < 500
        self._cdp("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=mobile)
        self._cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._call("POST", f"/session/{self.session}/url", {"url": page.resolve().as_uri()})

    def script(self, source: str) -> Any:
        """Return what a piece of JavaScript returns."""
        return self._call("POST", f"/session/{self.session}/execute/sync", {"script": source, "args": []})

    def errors(self) -> list[str]:
        """Return what was written to the console since the last call."""
        entries = self._call("POST", f"/session/{self.session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def screenshot(self) -> bytes:
        """Return a PNG of the whole page."""
        found = self._cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def close(self) -> None:
        """End the browser."""
        self._call("DELETE", f"/session/{self.session}")

    def _cdp(self, command: str, **params: object) -> Any:
        return self._call("POST", f"/session/{self.session}/goog/cdp/execute", {"cmd": command, "params": params})

    def _call(self, method: str, path: str, body: object = None) -> Any:
        return _request(self.port, method, path, body)


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Start ChromeDriver and Chromium, end both afterwards; skip (in CI: fail) where there is none."""
    driver, chromium = shutil.which("chromedriver"), _chromium()
    if driver is None or chromium is None:
        reason = "no chromedriver and Chromium on this machine: the page was not looked at in a real browser"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process,
    ):
        try:
            port = _port(process)
            arguments = [*_FLAGS, f"--user-data-dir={profile}"]
            wanted = {
                "goog:loggingPrefs": {"browser": "ALL"},
                "goog:chromeOptions": {"binary": chromium, "args": arguments},
            }
            opened = _request(port, "POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            browser = Browser(port=port, session=opened["sessionId"])
            try:
                yield browser
            finally:
                browser.close()
        finally:
            process.terminate()


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"started successfully on port (\d+)", line)
        if found:
            return int(found[1])
    raise AssertionError("chromedriver did not start")


def _request(port: int, method: str, path: str, body: object) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())["value"]
    if isinstance(answer, dict) and "error" in answer:
        raise AssertionError(f"{method} {path}: {answer['message']}")
    return answer
