"""The page in a real browser: sliders, clicks, errors, and nothing from outside."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
PICTURE = ".shown img >> visible=true"
WAIT = 15_000
"""Milliseconds that the page may take."""


@pytest.fixture
def page(browser, served):
    """The page, which may ask this machine alone; what else it asks for is kept."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.strayed = []

    def route(route):
        if route.request.url.startswith((served.url, "data:", "blob:")):
            route.continue_()
        else:
            page.strayed.append(route.request.url)
            route.abort()

    page.route("**/*", route)
    page.goto(served.url)
    page.wait_for_selector(PICTURE, timeout=WAIT)
    yield page
    page.close()


def picture(page):
    return page.locator(PICTURE).first.get_attribute("src")


def changed(page, before):
    """The new picture, once it is there."""
    script = "b => [...document.querySelectorAll('.shown img')].some("
    script += "i => i.offsetParent && i.src !== b)"
    page.wait_for_function(script, arg=before, timeout=WAIT)
    return picture(page)


def slide(page, number, value):
    page.locator("input[type=range] >> visible=true").nth(number).fill(str(value))


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def test_sliders_change_the_picture_and_back(page):
    slide(page, 0, 0)
    first = changed(page, picture(page))
    slide(page, 0, 2.5)
    moved = changed(page, first)
    assert moved != first
    slide(page, 0, 0)
    assert changed(page, moved) == first


def test_a_click_on_the_map_decodes_that_place(page):
    before = picture(page)
    chart = page.locator("#map img")
    box = chart.bounding_box()
    chart.click(position={"x": 0.8 * box["width"], "y": 0.25 * box["height"]})
    clicked = changed(page, before)
    values = [
        float(s.input_value())
        for s in page.locator("input[type=range] >> visible=true").all()
    ]
    words = page.locator(".shown p >> visible=true").first.inner_text()
    shown = [float(v) for v in re.findall(r"= (-?[\d.]+)", words)]
    assert shown == pytest.approx(values[: len(shown)], abs=0.006)
    chart.click(position={"x": 0.2 * box["width"], "y": 0.75 * box["height"]})
    assert changed(page, clicked) != clicked


def test_two_examples_are_picked_and_interpolated(page):
    tab(page, "Between two")
    before = picture(page)
    sheet = page.locator("#examples img")
    box = sheet.bounding_box()
    rows = box["height"] / box["width"] * 8
    spot = {"x": 3.5 / 8 * box["width"], "y": 1.5 / rows * box["height"]}
    sheet.click(position=spot)  # the second row, the fourth: example 11
    changed(page, before)
    words = page.locator(".shown p >> visible=true").first
    words.filter(has_text="to 11 (label").wait_for(timeout=WAIT)
    numbers = page.locator("input[type=number] >> visible=true")
    assert [n.input_value() for n in numbers.all()] == ["1", "11"]
    assert "From example 1 (label" in words.inner_text()


def test_a_bad_request_is_said_in_the_page_which_lives_on(page, served):
    tab(page, "Between two")
    page.get_by_label("From").last.fill("99999")
    alert = page.get_by_role("alert")
    alert.filter(has_text="must be a whole number within 0 and 59").wait_for(
        timeout=WAIT
    )
    before = picture(page)
    page.get_by_label("From").last.fill("5")
    changed(page, before)
    alert.wait_for(state="hidden", timeout=WAIT)  # it is said until it is mended
    assert served.command.process.poll() is None


def test_samples_are_drawn_at_a_temperature(page):
    tab(page, "Samples")
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator(PICTURE).first.wait_for(timeout=WAIT)
    hot = picture(page)
    slide(page, 0, 0.2)
    cold = changed(page, hot)
    page.get_by_role("button", name="Draw others").click()
    assert changed(page, cold) != cold
    words = page.locator(".shown p >> visible=true").first.inner_text()
    assert words == "32 samples at temperature 0.2."


def test_pictures_have_words_and_the_page_fits_a_phone(page):
    for image in page.locator("img >> visible=true").all():
        assert len(image.get_attribute("alt") or "") > 10
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    width = page.evaluate("document.scrollingElement.scrollWidth")
    assert width <= 390


def test_the_page_wants_nothing_from_outside(page, served):
    for name in ("Between two", "Samples", "Latent space"):
        tab(page, name)
        page.wait_for_timeout(200)
    assert page.strayed == [] and served.errors == ""
