"""A shopper's tab."""

from __future__ import annotations

from typing import Any

from tests.browser.shop import until

# observers answer in the order in which they were made: when this one has, the snippet's has too
OBSERVED = """() => new Promise((done) => {
  new IntersectionObserver(done).observe(document.documentElement);
})"""
HIDE = """(isHidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class Tab:
    """A page in a browser context, whose clock a test moves."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.warnings: list[str] = []
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type == "warning":
            self.warnings.append(message.text)

    def open(self, url: str) -> Tab:
        self.page.goto(url)
        self.look()
        return self

    def look(self) -> None:
        """Let the browser see what is in view now."""
        self.run(OBSERVED)

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def wait_ms(self, duration_ms: int) -> None:
        self.page.clock.run_for(duration_ms)

    def scroll_to(self, item: str) -> None:
        self.run("(id) => document.getElementById(id).scrollIntoView()", item)
        self.look()

    def hide(self, is_hidden: bool = True) -> None:
        """Headless tabs are always in view, so the page is told otherwise."""
        self.run(HIDE, is_hidden)

    def event(self, action: str, **fields: Any) -> str | None:
        return self.run("([action, fields]) => querylift.event(action, fields)", [action, fields])

    def consent(self, is_given: bool) -> None:
        self.run("(isGiven) => querylift.consent(isGiven)", is_given)
        self.look()

    @property
    def status(self) -> dict[str, Any]:
        return self.run("() => querylift.status()")

    def send(self) -> None:
        """Wait until nothing is queued: what has not been sent by then is never sent."""
        self.wait_ms(2_000)
        until(lambda: not self.status["queued"])
