"""A service on the bundled checkpoint, and a browser without a network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import Browser, Tab, chromium
from tests.processes import Service, services


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with services(folder, PLAYGROUND="true", RATE_LIMIT_OTHER_PER_MINUTE="1000") as (service,):
        yield service


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(service: Service, browser: Browser) -> Iterator[Tab]:
    """A tab; at its end, all that it loaded came from the service, and nothing was refused."""
    page = browser.page()
    page.size(1280, 900)
    yield page
    page.run("1")  # events until here are noticed
    own = (f"{service.url}/", "data:", "blob:")
    assert [url for url in page.requests if not url.startswith(own)] == []
    assert page.complaints == []
    page.close()
