"""The console in a real browser: what people do there, on every page in both schemes and narrow.

With SCREENSHOTS=1, it writes the pictures of the documentation to docs/images.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import orjson
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from gateway.account.api_keys import public_id
from gateway.account.copies import spent
from gateway.account.key_fields import NANO
from gateway.account.owners import owner_store
from gateway.account.record_store import COMMAND
from gateway.account.records import Record
from gateway.account.redis_ledger import RedisLedger
from gateway.queue import keys, scripts
from gateway.settings import Settings
from tests.support.programs import program
from tests.support.stack import PATIENCE_SECONDS, PEPPER, ROOT, Stack, until

pytestmark = pytest.mark.slow

IMAGES = ROOT / "docs" / "images"
SCREENSHOTS = os.environ.get("SCREENSHOTS") == "1"
RETRIED = "4f1d0c9a7b3e4c2d8e6f5a1b2c3d4e5f"  # a call that was answered at the second attempt
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
# Name of a view, which is that of its picture -> address. More are found on the way.
VIEWS = {
    "calls": "/calls?owner=search",
    "usage": "/usage?range=30d",
    "keys": "/keys",
    "owners": "/owners",
    "models": "/models",
    "queue": "/queue",
    "live": "/live",
    "batches": "/batches",
}
OTHERS = {
    "sign-in": "/sign-in",
    "new-key": "/keys/new",
    "owner": "/owners/search",
    "new-owner": "/owners/new",
    "model": "/models/openai/gpt-4o-mini",
    "error": "/nowhere",
    "nothing": "/calls?status=lost&model=none",
}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = program("chromium", "chromium-browser")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def operator_key(stack: Stack) -> str:
    """An operator key, with keys, owners and calls to look at."""
    owners = owner_store(stack.redis)
    for owner, name in (("search", "Search"), ("support", "Support")):
        limits = {"limit": NANO, "limit_reset": "monthly"}
        owners.create(owner, {"name": name, **limits}, COMMAND)
    limit = {"limit": NANO // 2, "limit_reset": "monthly"}
    members = {
        public_id(stack.keys.create("search: web", owner="search")): "search",
        public_id(stack.keys.create("search: nightly", owner="search", **limit)): "search",
        public_id(stack.keys.create("support: assistant", owner="support", rpm=60)): "support",
    }
    settings = Settings(key_pepper=PEPPER, redis_url=stack.server.url)
    ledger = RedisLedger(settings, stack.redis)
    ledger.write(calls(members))
    for scope in (*members, *map(keys.owner_scope, set(members.values()))):  # budgets show it
        spend = spent(ledger.totals(scope, int(time.time())), int(time.time()))
        arguments = [b"{}", orjson.dumps(spend)]
        scripts.RESTORE(stack.redis, ["no record", keys.spend(scope)], arguments)
    create_batch(stack)
    return stack.keys.create("operations", operator=True)


def create_batch(stack: Stack) -> None:
    """A batch of some calls, of which one fails."""
    lines = [
        {
            "custom_id": f"call-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "demo/error" if number == 7 else "demo/echo",
                "messages": [{"role": "user", "content": "Hello"}],
            },
        }
        for number in range(20)
    ]
    text = "\n".join(map(json.dumps, lines))
    file = requests.post(
        f"{stack.url}/files",
        files={"file": ("input.jsonl", text)},
        data={"purpose": "batch"},
        headers=stack.headers(),
        timeout=PATIENCE_SECONDS,
    ).json()["id"]
    batch = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    address = f"{stack.url}/batches"
    headers = stack.headers()
    created = requests.post(address, json=batch, headers=headers, timeout=PATIENCE_SECONDS).json()

    def ended() -> bool:
        found = requests.get(f"{address}/{created['id']}", headers=headers, timeout=9).json()
        return found["status"] == "completed"

    until(ended, what="a batch that has ended")


def calls(members: dict[str, str]) -> list[Record]:
    """Some hundred calls of the last month."""
    rng, now = random.Random(7), int(time.time() * 1000)
    models = {"openai/gpt-4o-mini": 0.6, "anthropic/claude-sonnet-5-5": 10.0, "openai/gpt-4o": 5.0}
    made = []
    for number in range(600):
        age = int(rng.random() ** 1.6 * 30 * 86_400_000)
        model = rng.choices(list(models), (8, 5, 3))[0]
        key = rng.choice(list(members))
        failed = rng.random() < 0.05
        provider, _, upstream = model.partition("/")
        prompt, output = int(rng.lognormvariate(6.5, 1)), int(rng.lognormvariate(5.2, 0.8))
        queued = int(rng.lognormvariate(2, 1))
        first = queued + int(rng.lognormvariate(6, 0.5))
        latency = first + 12 * output
        attempt = {"provider_name": provider, "model": upstream, "status": 200, "code": ""}
        overloaded = {**attempt, "status": 503, "code": "upstream_overloaded", "latency_ms": 180}
        attempts = [{**attempt, "latency_ms": latency - queued}]
        if failed:
            attempts = [overloaded, overloaded]
        elif number % 9 == 0:
            attempts = [overloaded, {**attempt, "latency_ms": latency - queued - 180}]
        price = models[model]
        made.append(
            Record(
                id=RETRIED if number == 9 else f"{rng.getrandbits(128):032x}",
                key_id=key,
                owner=members[key],
                created_ms=now - age - latency,
                settled_ms=now - age,
                status="failed" if failed else "completed",
                error_code="upstream_overloaded" if failed else "",
                model=model,
                model_requested=model,
                provider_name=provider,
                upstream_model=upstream,
                streamed=True,
                finish_reason="" if failed else "stop",
                latency_ms=latency,
                queued_ms=queued,
                time_to_first_token_ms=None if failed else first,
                usage={} if failed else {"input": prompt, "output": output},
                usage_source="none" if failed else "provider",
                cost_nano=0 if failed else int(prompt * price * 200 + output * price * 1000),
                prices={
                    "version": "genai-prices",
                    "above": 0,
                    "units": {"prompt": f"{price / 5e6:f}", "completion": f"{price / 1e6:f}"},
                },
                attempts=tuple(attempts),
                priority="standard",
                worker="worker-1",
                user_agent="OpenAI/Python 3.54.0",
            )
        )
    return made


@contextmanager
def waiting_calls(stack: Stack, operator_key: str, limited: str) -> Iterator[None]:
    """Calls that wait because their model is paused, and for the call before them of their key."""
    headers = {"Authorization": f"Bearer {operator_key}"}
    alone = {"headers": {"Authorization": f"Bearer {limited}"}}
    pause = {"json": {"model": "demo/echo"}, "headers": headers, "timeout": PATIENCE_SECONDS}
    assert requests.post(f"{stack.url}/queue/pause", **pause).ok  # type: ignore[arg-type]
    calls = [stack.in_background("fake/slow-20", **alone) for _ in range(3)]
    calls += [stack.in_background("demo/echo") for _ in range(2)]
    url = f"{stack.url}/queue"

    def count() -> int:
        return len(requests.get(url, headers=headers, timeout=PATIENCE_SECONDS).json()["data"])

    until(lambda: count() == 4, what="four calls that wait")
    yield
    assert requests.post(f"{stack.url}/queue/resume", **pause).ok  # type: ignore[arg-type]
    for call in calls:
        assert call.get(timeout=PATIENCE_SECONDS).ok


class Console:
    """A browser on the console; what its pages complain of is a failure."""

    def __init__(self, browser: Browser, stack: Stack, **options: Any) -> None:
        self.context = browser.new_context(viewport=WIDE, **options)
        self.context.set_default_timeout(PATIENCE_SECONDS * 1000)
        self.page: Page = self.context.new_page()
        self.base = stack.url.replace("/inference/v1", "/console")
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: Any) -> None:
        # What a failed request leaves is not one; a policy that was broken is.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self, address: str) -> Page:
        self.page.goto(self.base + address)
        return self.page

    def sign_in(self, key: str) -> Page:
        self.open("/sign-in")
        self.page.get_by_label("API key or operator key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        return self.page

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []


@pytest.fixture
def open_console(browser: Browser, stack: Stack) -> Iterator[Callable[..., Console]]:
    opened: list[Console] = []

    def make(key: str = "", **options: Any) -> Console:
        console = Console(browser, stack, **options)
        opened.append(console)
        if key:
            console.sign_in(key)
            expect(console.page.get_by_role("heading", name="Playground")).to_be_visible()
        return console

    yield make
    for console in opened:
        console.close()


def call_id(page: Page) -> str:
    """The id of the call that the last answer of the playground came from."""
    link = page.get_by_role("link", name="See this call").last
    return (link.get_attribute("href") or "").rpartition("/")[2]


def test_a_person_signs_in_and_out(stack: Stack, open_console: Callable[..., Console]) -> None:
    console = open_console()
    page = console.open("/calls")
    expect(page).to_have_url(re.compile("/sign-in"))
    page.get_by_label("API key or operator key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Incorrect API key")
    page.get_by_label("API key or operator key").fill(stack.key)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/calls$"))  # the page that was asked for
    expect(page.get_by_role("link", name="Keys", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in$"))


def test_a_call_of_the_playground_streams_is_measured_and_is_in_the_account(
    stack: Stack, open_console: Callable[..., Console]
) -> None:
    page = open_console(stack.key).page
    page.get_by_role("combobox", name="Model 1").fill("fake/slow-60")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Message").fill("Count.")
    page.keyboard.press("Control+Enter")
    answer = page.locator(".message.assistant")
    seen: list[int] = []

    def grew() -> bool:
        seen.append(len(answer.inner_text()))
        return len({length for length in seen if length}) >= 3

    until(grew, what="text that grows")
    page.get_by_role("button", name="Stop").click()
    expect(answer).to_contain_text("Stopped.")
    stopped = call_id(page)
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("combobox", name="Model 1").fill("fake/chat")
    page.get_by_label("Message").fill("What comes back?")
    page.get_by_role("button", name="Send").click()
    expect(answer).to_contain_text("See this call")
    expect(page.locator("[data-fact=cost]").first).to_contain_text("$0.00")
    expect(page.locator("[data-fact=first]").first).to_contain_text("s")
    sent = stack.upstream.log()[-1]["body"]["messages"]
    assert [message["role"] for message in sent] == ["system", "user"]
    finished = call_id(page)
    for id, status in ((stopped, "cancelled"), (finished, "completed")):
        address = f"{stack.url}/generations/{id}"
        until(
            lambda address=address, status=status: (
                requests.get(address, headers=stack.headers(), timeout=9).json()["data"]["status"]
                == status
            ),
            what=status,
        )
    page.get_by_role("link", name="See this call").click()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    expect(page.get_by_role("row", name="First token")).to_be_visible()


def test_a_call_that_a_limit_refuses_has_no_page_to_see(
    stack: Stack, open_console: Callable[..., Console]
) -> None:
    page = open_console(stack.keys.create("without budget", limit=0)).page
    page.get_by_role("combobox", name="Model 1").fill("fake/chat")
    page.get_by_label("Message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("quota")
    expect(page.get_by_role("link", name="See this call")).to_have_count(0)


def test_two_models_answer_side_by_side_and_the_code_is_theirs(
    stack: Stack, open_console: Callable[..., Console]
) -> None:
    page = open_console(stack.key).page
    page.get_by_role("button", name="Compare two models").click()
    page.get_by_role("combobox", name="Model 1").fill("fake/chat")
    page.get_by_role("combobox", name="Model 2").fill("demo/error")
    page.get_by_label("Add images").set_input_files(
        {"name": "dot.png", "mimeType": "image/png", "buffer": PIXEL}
    )
    expect(page.get_by_role("img", name="Image 1")).to_be_visible()
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Message").fill("Hello there")
    page.get_by_role("button", name="Send").click()
    first, second = page.locator(".column").all()
    expect(first.locator(".message.assistant")).to_contain_text("See this call")
    expect(second.get_by_role("alert")).to_be_visible()  # the one that failed
    sent = stack.upstream.log()[-1]["body"]
    assert sent["temperature"] == 0.5
    assert [part["type"] for part in sent["messages"][0]["content"]] == ["text", "image_url"]
    page.get_by_role("button", name="Get code").click()
    dialog = page.get_by_role("dialog")
    for language, start in (
        ("curl", "curl -N"),
        ("Python", "import os"),
        ("JavaScript", "import O"),
    ):
        dialog.get_by_role("tab", name=language).click()
        expect(dialog.get_by_role("tabpanel")).to_contain_text(start)
        expect(dialog.get_by_role("tabpanel")).to_contain_text("fake/chat")
    assert stack.key not in page.content()


def test_the_code_that_is_shown_makes_the_same_call(
    stack: Stack, open_console: Callable[..., Console]
) -> None:
    page = open_console(stack.key).page
    page.get_by_role("combobox", name="Model 1").fill("fake/chat")
    page.get_by_label("System prompt").fill('It\'s "quoted"\nand has two lines.')
    page.get_by_label("Max tokens").fill("50")
    page.get_by_label("More parameters").fill('{"seed": 7, "stop": ["a", "b"], "top_k": null}')
    page.get_by_label("Message").fill("What's $HOME `id` in é?")
    page.get_by_role("button", name="Get code").click()
    bodies = []
    for language, command in (("curl", ["sh", "-c"]), ("Python", [sys.executable, "-c"])):
        page.get_by_role("tab", name=language).click()
        code = page.get_by_role("tabpanel").inner_text()
        done = subprocess.run(
            [*command, code],
            env={"INFERENCE_API_KEY": stack.key, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        bodies.append(stack.upstream.log()[-1]["body"])
    first, second = bodies
    assert first == second
    assert first["messages"][1]["content"] == "What's $HOME `id` in é?"
    assert first["messages"][0]["content"] == 'It\'s "quoted"\nand has two lines.'


def test_a_key_is_made_used_and_revoked(
    stack: Stack, operator_key: str, open_console: Callable[..., Console]
) -> None:
    console = open_console(operator_key)
    page = console.open("/keys")
    page.get_by_role("link", name="New key").click()
    page.get_by_label("Name").fill("from the console")
    page.get_by_label("Requests per minute").fill("many")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_text("is no number")).to_be_visible()
    page.get_by_label("Requests per minute").fill("60")
    page.get_by_role("button", name="Create key").click()
    key = page.locator("[data-secret]").inner_text()
    chat = {"model": "fake/chat", "messages": [{"role": "user", "content": "hi"}]}

    def status() -> int:
        headers = {"Authorization": f"Bearer {key}"}
        address = f"{stack.url}/chat/completions"
        return requests.post(address, json=chat, headers=headers, timeout=60).status_code

    assert status() == 200
    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_label("Requests per minute")).to_have_value("60")
    assert key not in page.content()
    page.get_by_text("Revoke for ever…").click()
    page.get_by_role("button", name="Revoke this key").click()
    expect(page.get_by_role("status")).to_contain_text("has been revoked")
    assert status() == 401


def test_calls_appear_as_they_end(
    stack: Stack, operator_key: str, open_console: Callable[..., Console]
) -> None:
    console = open_console(operator_key)
    page = console.open("/calls")
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "true")
    made = stack.ask("fake/chat").headers["X-Generation-Id"]
    expect(page.locator(f"tr[data-call='{made}']")).to_be_visible()


def test_the_live_view_moves_under_load(
    stack: Stack, operator_key: str, open_console: Callable[..., Console]
) -> None:
    console = open_console(operator_key)
    page = console.open("/live")
    state = page.locator("#live-state")
    expect(state).to_have_text("live")
    counted = page.locator("#figures dd.more").first
    seen: list[str] = []

    def moves() -> bool:
        stack.ask("fake/chat")
        seen.append(counted.inner_text())
        return len({text.split()[0] for text in seen}) >= 4

    until(moves, what=f"figures that change: {seen}")
    page.get_by_role("button", name="Hold").click()
    expect(state).to_have_text("held")


def test_a_model_is_paused_its_calls_wait_and_one_is_cancelled(
    stack: Stack, operator_key: str, open_console: Callable[..., Console]
) -> None:
    console = open_console(operator_key)
    page = console.open("/models/demo/echo")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status")).to_contain_text("The model is paused")
    first, second = (stack.in_background("demo/echo") for _ in range(2))

    def waiting() -> bool:
        console.open("/queue")
        return page.get_by_role("button", name="Cancel").count() == 2

    until(waiting, what="both calls in the queue")
    page.get_by_role("button", name="Cancel").first.click()
    expect(page.get_by_role("status")).to_contain_text("has been cancelled")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Nothing is paused.")).to_be_visible()
    statuses = [each.get(timeout=PATIENCE_SECONDS).status_code for each in (first, second)]
    assert sorted(status == 200 for status in statuses) == [False, True]


def test_every_view_is_accessible_in_both_schemes_and_fits_a_phone(
    stack: Stack, operator_key: str, open_console: Callable[..., Console]
) -> None:
    axe, problems = Axe(), []
    console = open_console(operator_key)
    pages = {"playground": "/playground", **VIEWS, **OTHERS}
    pages["key"] = f"/keys/{public_id(stack.key)}"
    pages["call"] = f"/calls/{RETRIED}"
    console.open("/batches")
    batch = console.page.locator("tbody a").first.get_attribute("href") or ""
    pages["batch"] = batch.removeprefix("/console")
    for name, address in pages.items():
        page = console.open(address)
        colors = {"runOnly": ["color-contrast"]}  # all that differs between the schemes
        schemes = [("light", {}), ("dark", colors)]
        for scheme, rules in schemes[: 1 if name in OTHERS else 2]:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            found = axe.run(page, options={"resultTypes": ["violations"], **rules}).response[
                "violations"
            ]
            problems += [
                f"{name}, {scheme}: {each['id']} at {[node['target'] for node in each['nodes']]}"
                for each in found
                if each["impact"] in ("serious", "critical")
            ]
        page.set_viewport_size(NARROW)  # type: ignore[arg-type]
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if overflow > 0:
            problems.append(f"{name}: {overflow} pixels too wide for a phone")
        page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    assert problems == []


@pytest.mark.skipif(not SCREENSHOTS, reason="SCREENSHOTS=1 writes the pictures of the docs")
def test_the_pictures_of_the_documentation(
    stack: Stack, operator_key: str, open_console: Callable[..., Console]
) -> None:
    limited = stack.keys.create("support: triage", owner="support", max_in_flight=1, max_waiting=9)
    console = open_console(operator_key)
    page = console.page

    def shoot(name: str) -> None:
        for scheme in ("light", "dark") if name == "playground" else ("light",):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            suffix = "-dark" if scheme == "dark" else ""
            file = IMAGES / f"console-{name}{suffix}.png"
            page.screenshot(path=file)
            assert file.stat().st_size < 150_000
        page.emulate_media(color_scheme="light")

    page.get_by_role("button", name="Compare two models").click()
    page.get_by_role("combobox", name="Model 1").fill("demo/slow")
    page.get_by_role("combobox", name="Model 2").fill("fake/chat")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Message").fill("What is a queue good for?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("link", name="See this call")).to_have_count(2)
    shoot("playground")
    for name, address in VIEWS.items():
        if name == "live":
            for number in range(60):
                stack.ask("demo/error" if number % 15 == 7 else "fake/chat")
        with waiting_calls(stack, operator_key, limited) if name == "queue" else nullcontext():
            console.open(address)
            shoot(name)
    console.open(f"/calls/{RETRIED}")
    shoot("call")
