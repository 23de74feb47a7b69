"""Every page of the viewer in a real browser, on the running demo."""

from __future__ import annotations

import json
import re
import time
from urllib.parse import quote

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from playwright.sync_api import Page, expect

from .conftest import Site, Visit

KITCHEN = "temperature[house=1,room=kitchen]"
PAGES = [
    ("/", "Overview"),
    ("/streams", "Streams"),
    (f"/stream/{quote(KITCHEN, safe='')}", KITCHEN),
    ("/stream/climate%5Bhouse%3D1%2Croom%3Dkitchen%5D", "climate[house=1,room=kitchen]"),
    ("/stream/lived_in%5Bhouse%3D1%2Croom%3Dkitchen%5D", "lived_in[house=1,room=kitchen]"),
    ("/explain/nothing", "Nothing to explain"),
    ("/compare", "Compare"),
    ("/compare?node=temperature_1m", "Compare"),
    ("/workflows", "Workflows"),
    ("/workflow/demo", "demo"),
    ("/plates", "Plates"),
    ("/tools", "Tools"),
    ("/tool/sliding_mean%401.0.0", "sliding_mean@1.0.0"),
    ("/sessions", "Sessions"),
    ("/dead-letters", "Dead letters"),
    ("/stream/nothing", "No such stream"),
    ("/workflow/nothing", "nothing"),
    ("/tool/nothing", "nothing"),
]
SERIES = """() => {
  const element = document.querySelector('canvas').closest('[id^=c]');
  const option = getElement(Number(element.id.slice(1))).chart.getOption();
  return {points: option.series[0].data, low: option.xAxis[0].min, high: option.xAxis[0].max};
}"""
COVERED = """() => {
  const bar = document.querySelector('[role=img][aria-label^=coverage]'), known = bar?.querySelector('i');
  return known?.title.startsWith('computed: ') && known.clientWidth > 0.9 * bar.clientWidth;
}"""
"""A source is covered up to its watermark. The bar is drawn anew every few seconds."""
LATE = """
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  const late = String(data).includes('javascript_response') ? 2000 : 0;
  setTimeout(() => send.call(this, data), late);
};
"""


@pytest.mark.parametrize(("path", "heading"), PAGES)
def test_opens_without_an_error_or_another_host(visit: Visit, path: str, heading: str) -> None:
    page = visit.open(path, heading)
    page.wait_for_timeout(700)


@pytest.mark.parametrize("path", ["/", "/compare"])
def test_a_browser_that_answers_late_is_no_error(visit: Visit, site: Site, path: str) -> None:
    visit.page.add_init_script(LATE)
    page = visit.open(path, "Overview" if path == "/" else "Compare")
    page.wait_for_timeout(2500)
    page.get_by_role("navigation", name="Pages").get_by_text("Streams").wait_for()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("navigation", name="Pages").get_by_text("Streams").wait_for(state="hidden")
    assert "did not respond" not in site.log.read_text()


@pytest.mark.parametrize(("path", "heading"), PAGES[:3] + PAGES[8:10] + PAGES[13:14])
def test_fits_a_phone(phone: Visit, path: str, heading: str) -> None:
    page = phone.open(path, heading)
    page.wait_for_timeout(400)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")


def test_a_phone_finds_its_way(phone: Visit) -> None:
    page = phone.open("/", "Overview")
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("navigation", name="Pages").get_by_text("Streams").click()
    page.get_by_role("heading", name="Streams", level=1).wait_for()


def test_a_keyboard_finds_its_way(visit: Visit) -> None:
    page = visit.open("/", "Overview")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == "/workflows":
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Workflows", level=1).wait_for()


def test_values_move(visit: Visit) -> None:
    page = visit.open("/stream/power%5Bhouse%3D1%5D", "power[house=1]")
    first = page.locator("table tbody tr td").first.text_content()
    expect(page.locator("table tbody tr td").first).not_to_have_text(first or "", timeout=20_000)
    page.get_by_text("s ago").first.wait_for()


def test_a_value_says_why(visit: Visit) -> None:
    page = visit.open(f"/stream/{quote(KITCHEN, safe='')}", KITCHEN)
    page.get_by_role("link", name="Why?").first.click()
    page.get_by_role("heading", name=f"Why {KITCHEN} is what it is").wait_for()
    page.get_by_text("reads climate[house=1,room=kitchen] (pointwise)").wait_for()
    page.get_by_text("What would change it:").wait_for()
    page.get_by_role("link", name="The stream").click()
    page.get_by_role("heading", name=KITCHEN, exact=True).wait_for()


def test_a_late_reading_changes_the_chart(visit: Visit, site: Site) -> None:
    page = visit.open(f"/stream/{quote(KITCHEN, safe='')}", KITCHEN)
    page.wait_for_function(f"({SERIES})().points.length > 20")
    assert max(point[1] for point in page.evaluate(SERIES)["points"]) < 60
    now = int(time.time() * 1000)
    _publish(site.broker_port, "home/1/kitchen/climate", {"ts": now - 90_001, "temperature": 77.5, "humidity": 40.0})
    page.wait_for_function(f"({SERIES})().points.some((point) => point[0] === {now - 90_001} && point[1] === 77.5)")


def test_zoom_loads_a_smaller_window_and_live_returns(visit: Visit) -> None:
    page = visit.open(f"/stream/{quote(KITCHEN, safe='')}", KITCHEN)
    page.wait_for_function(f"({SERIES})().points.length > 20")
    before = page.evaluate(SERIES)
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_function(f"(({SERIES})().high - ({SERIES})().low) < {(before['high'] - before['low']) * 0.6}")
    page.get_by_role("button", name="Live").click()
    page.wait_for_function(f"(({SERIES})().high - ({SERIES})().low) > {(before['high'] - before['low']) * 0.9}")


def test_search_and_filters(visit: Visit) -> None:
    page = visit.open("/streams", "Streams")
    _rows(page, 25)
    page.get_by_label("Search").fill("co2_smooth")
    _rows(page, 5)
    page.get_by_label("Search").fill("no such stream")
    page.get_by_text("No stream matches.").wait_for()
    page.get_by_label("Search").fill("climate[house=1,room=kitchen]")
    page.get_by_role("img", name="coverage").wait_for()
    page.wait_for_function(COVERED)


def test_a_node_of_the_graph_opens_its_streams(visit: Visit) -> None:
    page = visit.open("/workflow/demo", "demo")
    page.wait_for_function("[...document.querySelectorAll('[id^=hs-rate]')].some((text) => text.textContent !== '-')")
    page.get_by_role("link", name="house_temperature: aggregate").click()
    _rows(page, 1)
    page.get_by_role("link", name="house_temperature[house=1]").click()
    page.get_by_role("heading", name="house_temperature[house=1]", level=1).wait_for()


def test_a_view_is_kept_under_a_name(visit: Visit) -> None:
    page = visit.open("/compare?node=temperature_1m", "Compare")
    page.get_by_label("Save this view as").fill("warm rooms")
    page.get_by_label("Save this view as").press("Tab")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="warm rooms").wait_for()
    visit.open("/compare", "Compare")
    page.get_by_role("link", name="warm rooms").click()
    page.get_by_role("link", name="temperature_1m[house=1,room=kitchen]").wait_for()


def test_sessions_break_no_word(phone: Visit) -> None:
    page = phone.open("/sessions", "Sessions")
    page.locator("table").nth(1).locator("tbody tr").nth(5).wait_for()
    heights = page.evaluate("[...document.querySelectorAll('tbody td')].map((cell) => cell.offsetHeight)")
    assert max(heights) < 40  # one line


def test_a_dead_letter_shows_what_came(visit: Visit, site: Site) -> None:
    _publish(site.broker_port, "home/1/kitchen/climate", "<b>no json</b>")
    for _ in range(20):
        page = visit.open("/dead-letters", "Dead letters")
        head = page.get_by_text("json home/1/kitchen/climate").first
        if head.count():
            break
        page.wait_for_timeout(300)
    head.click()
    page.get_by_text("<b>no json</b>").first.wait_for()


def test_what_a_device_sends_is_text(visit: Visit, site: Site) -> None:
    payload = '```\n# heading\n<form action="https://evil.example"><input name="token"></form>\n~~~\n[x](javascript:0)'
    _publish(site.broker_port, "home/1/kitchen/climate", payload)
    for _ in range(20):
        page = visit.open("/dead-letters", "Dead letters")
        head = page.get_by_text("json home/1/kitchen/climate").first
        if head.count() and page.get_by_text('<form action="https://evil.example">').count():
            break
        page.wait_for_timeout(300)
    head.click()
    page.get_by_text('<form action="https://evil.example">').first.wait_for()
    assert page.locator("form").count() == 0
    assert page.locator("input[name=token]").count() == 0
    assert page.get_by_role("heading", name="heading", exact=True).count() == 0
    answer = page.request.get(visit.url + "/dead-letters")
    assert "form-action 'self'" in answer.headers["content-security-policy"]


def test_a_stream_that_is_not_there_says_what_came_instead(visit: Visit, site: Site) -> None:
    _publish(site.broker_port, "home/1/kitchen/climate", "<b>no json</b>")
    page = visit.open("/stream/climate%5Bhouse%3D1,room%3Dnowhere%5D", "No such stream")
    page.get_by_text("there is climate[house=1,room=").wait_for()
    page.get_by_text(re.compile(r"dead letters? since .*hs-stream dead-letters lists them")).wait_for()


def test_what_is_not_there_is_an_answer_of_the_api(visit: Visit) -> None:
    answer = visit.page.request.get(visit.url + "/api/nothing")
    assert answer.status == 404
    assert answer.json()["hint"]


def _rows(page: Page, count: int) -> None:
    expect(page.locator("table tbody tr")).to_have_count(count, timeout=20_000)


def _publish(port: int, topic: str, payload: object) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(topic, payload if isinstance(payload, str) else json.dumps(payload), qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()
