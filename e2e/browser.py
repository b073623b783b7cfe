"""A real browser without a screen: Debian's Chromium, driven through WebDriver."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver

from e2e.kube import Kube
from e2e.lab import apt
from e2e.lab import config as lab_config
from e2e.lab.console import Console
from e2e.lab.lab import Lab

DRIVER = "chromedriver"
PACKAGES = ("chromium", "chromium-driver")
PATIENCE_S = 20  # for an element: a page is asked for before the one before it has gone


@contextmanager
def browser(folder: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a profile in this folder; gone, with its processes, afterwards.

    Raises:
        LabError: it is not installed, and Debian's packages cannot be had.
    """
    if shutil.which(DRIVER) is None:
        apt.install(PACKAGES, Lab(lab_config.load(), Console()).programs("apt"))
    options = webdriver.ChromeOptions()
    # Its sandbox refuses root; it opens our own page only.
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,900"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={folder}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which(DRIVER)))
    driver.implicitly_wait(PATIENCE_S)
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def forwarded(kube: Kube, target: str, port: int) -> Iterator[str]:
    """The address of this port of ours, through `kubectl port-forward`."""
    command = (kube.binary, "port-forward", "-n", "hami-system", target, f":{port}")
    env = {**os.environ, **kube.environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as tunnel:
        try:
            line = tunnel.stdout.readline() if tunnel.stdout else ""
            if not line.startswith("Forwarding from "):
                raise RuntimeError(f"kubectl port-forward {target}: {line!r}")
            yield f"http://{line.split()[2]}"
        finally:
            tunnel.kill()
