"""Reports in a real browser: on a phone, on a wide screen, light, dark, on paper."""

import shutil

import pytest

from jvae.commands import compare
from jvae.data import datasets
from jvae.evaluation.features import FEATURES_FILE, fit_features, write_features
from jvae.reports.run import evaluate_run
from tests.conftest import TINY

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
QUICK = {"num_samples": 2, "num_examples": 64, "num_images": 10, "batch_size": 64}
ASKED = {"fd_examples": 60, "samplers": ["gmm"], "probe_examples": 200}


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):
    """The report of a run with all its tables, and a comparison of two runs."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("first", "second"):
        shutil.copytree(trained, folder / name)
    splits = datasets.load_splits(TINY["data"])
    features = fit_features(splits.train, splits.test, 10, num_steps=10)
    write_features(features, folder / "first" / FEATURES_FILE)
    evaluate_run(folder / "first", **QUICK, **ASKED)
    evaluate_run(folder / "second", **QUICK)
    out = folder / "comparison.html"
    compare.command([str(folder / "first"), str(folder / "second"), f"--out={out}"])
    (single,) = (folder / "first").glob("evaluation/*/report.html")
    return {"report": single, "comparison": out}


@pytest.fixture(params=["report", "comparison"])
def opened(request, browser, pages):
    """Opens a page at a width in a colour scheme; what it asks for is kept."""
    contexts = []

    def open_page(width, scheme="light"):
        size = {"width": width, "height": 844}
        page = browser.new_page(viewport=size, color_scheme=scheme)
        page.asked = []
        page.on("request", lambda r: page.asked.append(r.url))
        page.goto(pages[request.param].as_uri())
        contexts.append(page)
        return page

    yield open_page
    for page in contexts:
        page.close()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(opened, width):
    page = opened(width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for image in page.locator("img").all():
        assert image.bounding_box()["width"] <= width


def test_tables_of_grades_keep_their_headings_on_a_phone(opened):
    page = opened(390)
    tables = page.locator("table.grades >> visible=true").all()
    assert tables
    for table in tables:
        for heading in table.locator("thead th").all():
            box = heading.bounding_box()
            assert box["width"] > 10 and box["height"] > 5, heading.inner_text()


def test_light_and_dark_pages_can_be_read(opened):
    """Contrast of text and page: at least 7 to 1, 4.5 for what is soft."""
    for scheme in ("light", "dark"):
        page = opened(390, scheme)
        paper = luminance(page, "body", "backgroundColor")
        assert (paper > 0.5) == (scheme == "light")
        for part, least in (("body", 7.0), (".soft", 4.5), ("figcaption", 4.5)):
            ink = luminance(page, part, "color")
            high, low = max(ink, paper), min(ink, paper)
            assert (high + 0.05) / (low + 0.05) >= least, (scheme, part)


def luminance(page, selector, name):
    """The relative luminance of a colour, as WCAG 2 defines it."""
    script = f"s => getComputedStyle(document.querySelector(s)).{name}"
    numbers = page.evaluate(script, selector).strip("rgba()").split(",")[:3]
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
        for v in (int(n) / 255 for n in numbers)
    ]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_links_lead_to_sections_and_nothing_is_fetched(opened):
    page = opened(1280)
    targets = [a.get_attribute("href") for a in page.locator("nav a").all()]
    assert len(targets) >= 4
    for target in targets:
        assert page.locator(target).count() == 1, target
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in page.asked if url.startswith("file:")]) == 1


def test_it_can_be_printed(opened):
    page = opened(1280)
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
