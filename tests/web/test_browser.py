"""The pages in a real browser, served by a real agent."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from starlette.responses import PlainTextResponse

from exporter.simulator.world import HOSTILE_TEXTS
from tests.process.agent_process import Agent, url_of
from tests.process.fake_api import Api, Inbox, agent_config, fake_api, webhook
from tests.web.browser import chromium, opened, refresh_often, violations

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@dataclass
class Served:
    url: str
    api: Api
    inbox: Inbox


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    """An agent with a delivered and a dead delivery, and fine-tunes with hostile names."""
    folder = tmp_path_factory.mktemp("agent")
    with fake_api() as (api, inbox):
        for number, text in enumerate((*HOSTILE_TEXTS, "x" * 200)):
            api.world.add(
                name=text, dataset=text[:50], status=("completed", "training")[number % 2]
            )
        failing = api.world.add(name="Nadia, Kundendienst", status="training")
        inbox.answer = lambda request: PlainTextResponse(
            "no" if request.path == "/ops" else "ok", 400 if request.path == "/ops" else 200
        )
        config = agent_config(api, webhook(inbox), webhook(inbox, "chat"))
        with Agent(folder, **config).process("--web.enable-lifecycle") as process:
            url = url_of(process)
            process.wait_for_line("baseline taken")
            api.world.set_status(failing.id, "failed")
            process.wait_for_line("delivery dead")
            yield Served(url, api, inbox)


def test_a_failure_appears_without_a_reload(browser, served):
    with opened(browser, f"{served.url}/", **DESKTOP) as page:
        new = served.api.world.add(name="Tom, audiobook", status="training")
        expect(page.locator("#training")).to_contain_text("Tom, audiobook", timeout=15_000)
        served.api.world.set_status(new.id, "failed")
        row = page.locator("#failed li.fail", has_text="Tom, audiobook")
        expect(row).to_contain_text("chat", timeout=15_000)
        assert re.match(r"\(\d+\) Overview", page.title())
        assert "failed=" in (page.locator("link[rel=icon]").get_attribute("href") or "")


def test_a_failure_is_seen_at_once_with_who_was_notified(browser, served):
    for size in (DESKTOP, PHONE):
        with opened(browser, f"{served.url}/", **size) as page:
            row = page.locator("#failed li.fail", has_text="Nadia")
            expect(row).to_be_in_viewport()
            expect(row).to_contain_text("chat")
            expect(row.locator(".d-bad")).to_contain_text("dead")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_are_accessible_and_do_not_scroll_sideways(browser, served, size, scheme):
    paths = ["/fine-tunes", "/fine-tunes?q=none-such", "/notifications", "/config", "/none", "/"]
    with opened(browser, served.url, allowed=("404",), **size, color_scheme=scheme) as page:
        for path in paths:
            page.goto(f"{served.url}{path}")
            assert (path, violations(page)) == (path, [])
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        page.locator("#failed a", has_text="Nadia").click()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_filter_sort_and_story_work_with_links_and_forms(browser, served):
    with opened(browser, f"{served.url}/fine-tunes", **DESKTOP, java_script_enabled=False) as page:
        page.get_by_label("Name or id contains").fill("nadia")
        page.get_by_role("button", name="Filter").click()
        assert "q=nadia" in page.url
        expect(page.locator("#list tbody tr")).to_have_count(1)
        page.get_by_role("link", name="Clear").click()
        page.get_by_role("link", name="Name").click()
        assert "sort=name" in page.url
        expect(page.locator("th[aria-sort=ascending]")).to_have_text("Name")
        page.goto(f"{served.url}/fine-tunes?q=nadia")
        page.get_by_role("link", name="Nadia, Kundendienst").click()
        expect(page.locator("h1")).to_have_text("Nadia, Kundendienst")
        expect(page.locator("#notified")).to_contain_text("400")


def test_hostile_names_are_text(browser, served):
    with opened(browser, f"{served.url}/fine-tunes?sort=name", **DESKTOP) as page:
        expect(page.locator("#list")).to_contain_text("<script>alert('fine-tune')</script>")
        assert page.evaluate("document.querySelectorAll('#main script').length") == 0


def test_a_dead_delivery_is_retried_from_the_page(browser, served):
    with opened(browser, f"{served.url}/notifications?state=dead", **DESKTOP) as page:
        served.inbox.answer = lambda _: PlainTextResponse("ok")
        page.locator("#deliveries tr", has_text="Nadia").get_by_role("button", name="Retry").click()
        page.goto(f"{served.url}/notifications?q=Nadia&receiver=ops")
        expect(page.locator("#deliveries")).to_contain_text("delivered", timeout=15_000)


@pytest.mark.parametrize("javascript", [True, False], ids=["script", "no-script"])
def test_a_fine_tune_is_muted_by_a_click_and_the_mute_is_ended(browser, served, javascript):
    options = {**DESKTOP, "java_script_enabled": javascript}
    with opened(browser, f"{served.url}/fine-tunes?q=Nadia", **options) as page:
        page.get_by_role("link", name="Nadia, Kundendienst").click()
        page.get_by_role("button", name="until it recovers").click()
        expect(page.locator("#mute")).to_contain_text("Muted until it recovers")
        page.get_by_role("link", name="Notifications", exact=True).click()
        row = page.locator("#mutes tbody tr", has_text="Nadia")
        expect(row).to_contain_text("when it recovers")
        row.get_by_role("button", name="End mute").click()
        expect(page.locator("#mutes")).to_contain_text("Nothing is muted")


def test_fine_tunes_are_muted_with_the_keyboard_and_the_page_says_how_many(browser, served):
    with opened(browser, f"{served.url}/notifications", **PHONE) as page:
        page.get_by_text("Mute fine-tunes", exact=True).focus()
        page.keyboard.press("Enter")
        for key in ("Tab", "Tab", "none-such", "Tab", "Tab", "Tab", "Tab", "because", "Enter"):
            page.keyboard.press(key) if key[0].isupper() else page.keyboard.type(key)
        expect(page.locator("#mutes .notice")).to_contain_text("None of the present fine-tunes")
        expect(page.locator("#mutes tbody tr")).to_contain_text("dataset=none-such")
        expect(page.locator("#mutes tbody tr")).to_contain_text("because")
        page.get_by_text("Mute fine-tunes", exact=True).click()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="End mute").click()


def test_focus_open_details_and_selection_survive_a_refresh(browser, served):
    with opened(browser, f"{served.url}/", **DESKTOP) as page:
        page.locator("#strip summary").click()
        link = page.locator("#failed a", has_text="Nadia").first
        link.focus()
        shown = page.locator(".clock time").text_content()
        served.api.world.add(name="Refreshed", status="training")
        expect(page.locator("#training")).to_contain_text("Refreshed", timeout=15_000)
        assert page.locator(".clock time").text_content() != shown
        expect(link).to_be_focused()
        assert page.locator("#strip details").get_attribute("open") is not None


def test_the_keyboard_alone_reaches_everything(browser, served):
    with opened(browser, f"{served.url}/", **DESKTOP) as page:
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Fine-tunes", exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{served.url}/fine-tunes")


def test_a_page_whose_agent_is_gone_says_so(browser, tmp_path):
    with fake_api() as (api, _), Agent(tmp_path, **agent_config(api)).process() as process:
        url = url_of(process)
        process.wait_for_line("baseline taken")
        context = browser.new_context()
        page = context.new_page()
        refresh_often(page)
        page.goto(f"{url}/")
        expect(page.locator("#l-data")).to_have_class(re.compile("completed"))
        process.kill()
        expect(page.locator("#page-stale")).to_be_visible(timeout=30_000)
        expect(page.locator("body")).to_have_class(re.compile("is-stale"))
        context.close()
