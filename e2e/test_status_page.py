"""The status page in a real browser, with a real token."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import WebDriverWait

from e2e.browser import browser, forwarded
from e2e.kube import wait_until
from e2e.pods import container, pod, slice_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
ROLE = "hami-explain"
WAIT_S = 60


@pytest.fixture
def person(kube, namespace):
    """Makes a token of somebody who may see the page, or may not."""

    def token(name, *, may):
        kube.kubectl("create", "serviceaccount", name, "-n", namespace)
        if may:
            account = f"--serviceaccount={namespace}:{name}"
            kube.kubectl(
                "create", "clusterrolebinding", namespace, f"--clusterrole={ROLE}", account
            )
        return kube.kubectl("create", "token", name, "-n", namespace).strip()

    yield token
    kube.kubectl("delete", "clusterrolebinding", namespace, "--ignore-not-found")


def press(page, button):
    """Send a form and wait for the page that comes in its place."""
    button.click()
    # The next page may be asked for before the answer has brought the cookie.
    WebDriverWait(page, WAIT_S).until(staleness_of(button), "an answer to the form")


def sign_in(page, address, token):
    """Type the token into the form."""
    page.get(f"{address}/status")
    page.find_element(By.ID, "token").send_keys(token)
    press(page, page.find_element(By.TAG_NAME, "button"))


def test_cards_are_bars_and_who_waits_stands_with_the_reason(
    kube, namespace, cards, person, tmp_path
):
    """Two pods on a card are two parts of its bar, as wide as their memory; the third waits."""
    card = cards["hami-worker"][0]
    quarter = card["devmem"] // 4
    for name, memory in (("one", quarter), ("two", quarter), ("three", card["devmem"])):
        here = {"nvidia.com/use-gpuuuid": card["id"]}
        asked = container("c", slice_of(memory=memory))
        kube.create(pod(name, namespace, asked, annotations=here))
        if name != "three":
            kube.wait_running(namespace, name)
    may, may_not = person("reader", may=True), person("stranger", may=False)

    with forwarded(kube, "deploy/hami-scheduler", 9381) as address, browser(tmp_path) as page:
        sign_in(page, address, may_not)
        assert "may not see this page" in page.find_element(By.ID, "refused").text
        sign_in(page, address, may)

        def waits():
            page.get(f"{address}/status?node=worker")
            said = page.find_element(By.TAG_NAME, "body").text
            wanted = (f"{namespace}/three", "CardInsufficientMemory")
            return None if all(w in said for w in wanted) else f"{wanted} in {said!r}"

        wait_until(waits, 120)
        [row] = [r for r in page.find_elements(By.TAG_NAME, "tr") if card["id"] in r.text]
        whole, *parts = row.find_elements(By.TAG_NAME, "rect")
        widths = [part.rect["width"] / whole.rect["width"] for part in parts]
        assert widths == pytest.approx([0.25, 0.25], abs=0.01)
        assert f"{namespace}/one, {namespace}/two" in row.text
        assert "hami-control-plane" not in page.find_element(By.TAG_NAME, "body").text
        [cookie] = page.get_cookies()
        assert cookie["value"] not in may
        assert may not in str(page.execute_cdp_cmd("Storage.getCookies", {}))
        page.save_screenshot(str(tmp_path / "status.png"))
        press(page, page.find_element(By.ID, "leave"))
        assert page.get_cookies() == []
        page.add_cookie({"name": cookie["name"], "value": cookie["value"], "path": "/status"})
        page.get(f"{address}/status")
        assert "sign in again" in page.find_element(By.ID, "refused").text
        # That it was refused at first is what the network's entries say.
        said = [entry for entry in page.get_log("browser") if entry["source"] != "network"]
        assert said == []
