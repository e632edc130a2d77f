"""The report in a real browser: whatever is clicked, nothing is asked of any network, and no text runs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybrid_sweep.results import ResultsFolder

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
SIZE = {"width": 1300, "height": 900}
EVIL = (
    "</script><script>window.ran='script'</script><img src=x onerror=\"window.ran='image'\">"
    "<svg onload=\"window.ran='svg'\"><a href=\"javascript:window.ran='link'\">click</a>"
    "<a href='https://elsewhere.example/'>out</a>{{ 7 * 7 }}${window.ran='template'}"
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed: {', '.join(NAMES)}")


class Visit:
    """One page of a browser, and everything that it asked for, opened or complained of."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.opened: list[str] = []
        context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        context.on("page", lambda page: self.opened.append(page.url))

    def open(self, path: Path) -> None:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#front-plot .main-svg")

    def click_everything(self) -> list[str]:
        """Click every button, box, link and summary there is, by the page's own events; say what they are."""
        kinds = ".modebar-btn, button, summary, input, a, .legendtoggle"
        told = self.page.evaluate(
            """(kinds) => {
                const told = [];
                for (const again of [false, true])  // sorted both ways, boxes on and off
                    for (const each of [...document.querySelectorAll(kinds)]) {
                        told.push(each.getAttribute("data-title") || each.textContent || each.id);
                        each.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
                    }
                return told;
            }""",
            kinds,
        )
        self.page.wait_for_timeout(500)
        return [str(each) for each in told]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:
    context = chromium.new_context(viewport=SIZE, accept_downloads=True)
    context.route("http*://**", lambda route: route.abort())  # a request that is made is told before
    yield Visit(context)
    context.close()


def test_every_button_asks_nothing_of_a_network(visit: Visit, grid60: ResultsFolder) -> None:
    visit.open(grid60.report_path)
    clicked = visit.click_everything()
    assert {"Zoom in", "Reset axes", "Autoscale"} <= set(clicked)
    assert any("download" in each.lower() for each in clicked)
    modebar = [button.get_attribute("data-title") for button in visit.page.locator(".modebar-btn").all()]
    assert not any(
        word in str(title).lower() for title in modebar for word in ("share", "edit", "cloud", "logo")
    )
    elsewhere = [url for url in visit.asked if not url.startswith(("data:", "blob:"))]
    assert elsewhere == [grid60.report_path.as_uri()]
    assert visit.opened == []
    assert visit.said == []


def test_the_test_would_see_a_request(visit: Visit, grid60: ResultsFolder, tmp_path: Path) -> None:
    page = grid60.report_path.read_text().replace("default-src 'none'", "default-src *")
    page = page.replace(
        "</main>", "<button onclick=\"fetch('https://elsewhere.example/')\">x</button></main>"
    )
    (tmp_path / "report.html").write_text(page)
    visit.open(tmp_path / "report.html")
    visit.click_everything()
    assert "https://elsewhere.example/" in visit.asked


def test_no_text_of_a_folder_runs(visit: Visit, sweep: Callable[..., ResultsFolder]) -> None:
    def evil(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "reason": EVIL}  # an id cannot hold it

    spec = {
        "name": EVIL,
        "workload": {"name": EVIL, EVIL: EVIL},
        "space": {"max_predict_steps": [], EVIL: [1]},
    }
    folder = sweep(change=evil, manifest={"spec": spec, "hardware": {EVIL: EVIL}, "versions": {"x": EVIL}})
    folder.export_all()
    visit.open(folder.report_path)
    visit.click_everything()
    visit.page.mouse.move(400, 600)
    assert visit.page.evaluate("window.ran") is None
    assert "window.ran='script'" in visit.page.inner_text("main")  # it is shown, as a text
    assert visit.page.locator("a[href]").count() == 0
    elsewhere = [url for url in visit.asked if not url.startswith(("data:", "blob:"))]
    assert elsewhere == [folder.report_path.as_uri()]
    assert visit.said == []
