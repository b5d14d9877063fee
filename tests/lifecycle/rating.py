"""A project with a rating packet, its server, and raters with a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from canvas.pins.images import encode_png
from evaluation.ratings.judgments import RatingRules
from evaluation.ratings.packets import PacketSpec, write_packet
from tests.lifecycle.conftest import Project

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SPEC = PacketSpec(
    pairs=3,
    repeats=1,
    checks=1,
    singles=0,
    pair_questions=("preference",),
    single_questions=(),
    rules=RatingRules(min_checks=1, max_failed_checks=0.0, max_contradictions=1.0),
    seed=0,
)
COLOURS = {"challenger": "seagreen", "paste": "indianred", "spoiled": "black"}
HOSTILE_PROMPT = "a mug](http://127.0.0.1:9/other.png) <img src=http://127.0.0.1:9/x>, {} in a forest"
DIGESTS = {"challenger": "c" * 32, "paste": None, "spoiled": None}


def write_rating_packet(root: Path) -> None:
    """A packet of five items in the project at `root`: the challenger is green, what it meets is not."""
    rows: list[dict[str, Any]] = []
    for pin in ("p1", "p2", "p3", "p4"):
        for model, colour in COLOURS.items():
            rows.append(
                {
                    "candidate_id": f"{pin}.{model}",
                    "item_id": pin,
                    "pin_id": pin,
                    "prompt": HOSTILE_PROMPT.format(pin),
                    "seed": 0,
                    "model": model,
                    "digest": DIGESTS[model],
                    "image": encode_png(Image.new("RGB", (90, 60), colour)),
                }
            )
    originals = {row["pin_id"]: Image.new("RGB", (90, 60), "wheat") for row in rows}
    artifacts = root / "artifacts"
    write_packet(rows, originals, SPEC, artifacts / "packet", artifacts / "packet_key")


@contextmanager
def serve_raters(project: Project, *raters: str, **environment: str) -> Iterator[dict[str, str]]:
    """`python -m lifecycle rate` in the project: rater -> the page of the queue."""
    with (project.root / "rate.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lifecycle", "rate", *raters],
            cwd=project.root,
            env=project.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            pages = {}
            for line in process.stdout:
                name, colon, page = line.strip().partition(": ")
                if not colon:
                    break
                pages[name] = page
            assert pages.keys() == set(raters), project.read("rate.log")
            yield pages
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0


def passwords(project: Project) -> dict[str, str]:
    by_name: dict[str, str] = json.loads(project.read(".mlflow/rating/secrets.json"))["passwords"]
    return by_name


def key(project: Project) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(project.read("artifacts/packet_key/key.json"))
    return content


def browser() -> tuple[str, str] | None:
    """Chromium and its driver, if both are installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


class Rater:
    """Somebody with a browser of their own."""

    def __init__(self, name: str, page: str, password: str, folder: Path) -> None:
        from selenium.webdriver import Chrome, ChromeOptions, ChromeService

        installed = browser()
        assert installed is not None
        options = ChromeOptions()
        options.binary_location, driver = installed
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1400,1000"):
            options.add_argument(f"--{argument}")
        options.add_argument(f"--user-data-dir={folder / name}")
        self.name, self.page = name, page
        self.driver: Chrome = Chrome(options, ChromeService(driver, env=os.environ | {"SE_OFFLINE": "true"}))
        self.driver.set_page_load_timeout(120)
        self.driver.get(page.split("/#")[0].replace("://", f"://{name}:{password}@"))  # the browser keeps the name

    def open(self) -> None:
        """Begin to review the queue."""
        self.driver.get(self.page)
        self.click("//button[contains(., 'Start review')]")

    def image_width(self) -> int:
        """Natural width of the item's image, once it is there and no longer `before`."""
        image = self.wait("//img[contains(@src, 'get-trace-artifact')]")
        until = time.monotonic() + 60
        while not (width := int(self.driver.execute_script("return arguments[0].naturalWidth", image))):
            assert time.monotonic() < until, "the image never came"
            time.sleep(0.05)
        return width

    def item(self) -> str:
        """The image's address, which differs from item to item."""
        return str(self.wait("//img[contains(@src, 'get-trace-artifact')]").get_attribute("src"))

    def answer(self, words: str) -> None:
        """Choose `words`, submit, and wait for the next item or the end."""
        before = self.item()
        self.click("//button[@role='combobox']")
        self.click(f"//*[@role='option'][normalize-space(.)='{words}']")
        self.click("//button[normalize-space(.)='Submit'][not(@disabled)]")
        until = time.monotonic() + 60
        while self.at(before):
            assert time.monotonic() < until, "the next item never came"
            time.sleep(0.02)

    def at(self, item: str) -> bool:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.common.by import By

        try:
            images = self.driver.find_elements(By.XPATH, "//img[contains(@src, 'get-trace-artifact')]")
            return any(image.get_attribute("src") == item for image in images)
        except StaleElementReferenceException:
            return True

    def click(self, path: str) -> None:
        self.wait(path).click()

    def wait(self, path: str) -> Any:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.expected_conditions import element_to_be_clickable
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, 90, 0.05).until(element_to_be_clickable((By.XPATH, path)))

    def close(self) -> None:
        self.driver.quit()
