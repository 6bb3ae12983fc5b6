"""The demo's server, live on this computer: what it sends, whom it asks, and its page in Chromium.

The browser's tests are skipped where there is no Chromium.
"""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from checks import assert_refused

from wespeaker_lap import load_model
from wespeaker_lap.share import demo
from wespeaker_lap.share.gallery import Gallery

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# The verb, in a process that writes down every address it looks up or connects to.
WATCHED = '''
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print(event, args[1] if event == "socket.connect" else args[0], file=sys.stderr)
sys.addaudithook(watch)
from wespeaker_lap.cli import main
main()
'''


def start(*args, temp):
    """Start `wespeaker-lap demo …` and wait until the page is open."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
                   "OMP_NUM_THREADS": "1", "TMPDIR": str(temp)}
    process = subprocess.Popen([sys.executable, "-c", WATCHED, "demo", *map(str, args)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment, start_new_session=True)
    line = process.stdout.readline()
    found = re.fullmatch(r"(http://\S+/) is open; end it with Ctrl-C\n", line)
    assert found, line + process.communicate()[1]
    return SimpleNamespace(process=process, url=found[1])


@pytest.fixture(scope="module")
def material(scored, test_wavs, tmp_path_factory):
    """Recordings by what they are, and a threshold between a pair of each kind."""
    folder = tmp_path_factory.mktemp("material")
    same, other = ([test_wavs[utt] for utt in sorted(test_wavs) if utt[0] == name]
                   for name in "xy")
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    (folder / "broken.wav").write_bytes(b"no audio")
    model = load_model(scored)
    high, low = model.similarity(same[0], same[1]), model.similarity(same[0], other[0])
    assert high > low + 0.02
    return SimpleNamespace(x=same, y=other, silent=str(folder / "silent.wav"),
                           broken=str(folder / "broken.wav"), threshold=(high + low) / 2)


@pytest.fixture(scope="module")
def server(scored, material, tmp_path_factory):
    """A demo under way; told to end, it must end well and must have asked nobody anything."""
    temp = tmp_path_factory.mktemp("temp")
    gallery = tmp_path_factory.mktemp("gallery") / "people.safetensors"
    running = start(scored, "--port", "0", "--threshold", material.threshold,
                    "--gallery", gallery, temp=temp)
    running.gallery = gallery
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield running
    assert list(temp.glob("wespeaker-lap-demo-*/*/*.wav"))
    running.process.terminate()
    _, err = running.process.communicate(timeout=60)
    assert (running.process.returncode, err) == (0, "the demo has ended\n")
    assert not list(temp.glob("wespeaker-lap-demo-*"))  # what was uploaded is gone


@pytest.fixture(scope="module")
def client(server):
    """The page's own interface, without a browser."""
    from gradio_client import Client

    return Client(server.url, verbose=False, analytics_enabled=False)


def test_verify(client, material):
    from gradio_client import handle_file

    for second, verdict in ((material.x[1], "Accepted: one speaker"),
                            (material.y[0], "Rejected: two speakers"),
                            (material.silent, "Second recording: silent"),
                            (material.broken, "Second recording: not readable as audio")):
        told = client.predict(handle_file(material.x[0]), handle_file(second), api_name="/verify")
        assert verdict in told and "/wespeaker-lap-demo-" not in told


def test_the_gallery(client, server, material, scored):
    from gradio_client import handle_file

    told, name, files, spoken, people, saved = client.predict(
        "语 <b>", [handle_file(path) for path in material.x[:2]], None, api_name="/enroll")
    assert "语 &lt;b&gt; is enrolled, with 2 recordings" in told
    assert (name, files, spoken) == ("", None, None) and people["choices"] == [["语 <b>"] * 2]
    fingerprint = load_model(scored).fingerprint()
    found = saved.get("value", saved) if isinstance(saved, dict) else saved
    for path in (server.gallery, found):
        assert Gallery.load(path, fingerprint).names == ["语 <b>"]
    kept = shutil.copy(found, server.gallery.with_name("kept.safetensors"))
    assert "Removed" in client.predict(["语 <b>"], api_name="/remove")[0]
    assert not server.gallery.exists()
    assert "Nobody is enrolled" in client.predict(handle_file(material.x[2]), api_name="/identify")
    assert "Loaded 1 speaker" in client.predict(handle_file(kept), api_name="/load")[0]
    told = client.predict(handle_file(material.x[2]), api_name="/identify")
    assert "语 &lt;b&gt;" in told and "lap-dot" in told
    client.predict(["语 <b>"], api_name="/remove")


def fetch(url, **headers):
    """Status, headers and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_the_page_is_this_computers_own(server):
    status, headers, body = fetch(server.url)
    assert status == 200 and "default-src 'self'" in headers["content-security-policy"]
    assert not re.search(r'<(?:link|script)[^>]+(?:href|src)="(?:https?:)?//', body)
    config = json.loads(fetch(f"{server.url}config")[2])
    assert config["analytics_enabled"] is False and not config["stylesheets"]
    assert "fonts.googleapis" not in fetch(f"{server.url}theme.css")[2]
    assert fetch(server.url, Host="example.org")[0] == 400
    assert fetch(f"{server.url}gradio_api/file=/etc/passwd")[0] in (403, 404)


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-fake-device-for-media-stream",
             "--use-fake-ui-for-media-stream"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, server):
    """Open the page at a width; in the end, no request may have gone elsewhere, nor any script
    have failed."""
    requests, errors, contexts = [], [], []

    def open_at(width):
        context = chromium.new_context(viewport={"width": width, "height": 844})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#compare")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert requests and errors == []
    assert [url for url in requests if not url.startswith((server.url, "data:", "blob:"))] == []


def is_upload(answer):
    """Whether the page has sent a file."""
    return answer.request.method == "POST" and "/gradio_api/upload" in answer.url


def give(page, field, *paths):
    """Upload files and wait until the page has them."""
    with page.expect_response(is_upload):
        page.locator(f"#{field} input[type=file]").set_input_files(list(paths))
    page.wait_for_function("id => !document.querySelector(`#${id} input[type=file]`) || "
                           "document.querySelector(`#${id} tr`)", arg=field)


def press(page, button, result, expected):
    """Press a button, wait until its box says what is expected, and return all it says."""
    page.click(f"#{button}")
    box = page.locator(f"#{result} .lap-box", has_text=expected)
    box.wait_for()
    return box.inner_text()


def assert_fits(page):
    """Nothing sticks out to the right."""
    width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]


@pytest.mark.parametrize(("width", "second", "verdict"), [
    (1280, "x", "Accepted: one speaker"), (390, "y", "Rejected: two speakers")])
def test_verify_in_the_browser(open_page, material, width, second, verdict):
    page = open_page(width)
    assert_fits(page)
    give(page, "first", material.x[0])
    give(page, "second", getattr(material, second)[1 if second == "x" else 0])
    press(page, "compare", "verified", verdict)
    assert_fits(page)
    area, line = (page.locator(name).bounding_box() for name in (".lap-area", ".lap-score"))
    assert area["width"] > 200 and area["x"] <= line["x"] <= area["x"] + area["width"]


def test_a_silent_file_in_the_browser(open_page, material):
    page = open_page(390)
    give(page, "first", material.silent)
    press(page, "compare", "verified", "Give two recordings")
    give(page, "second", material.broken)
    told = press(page, "compare", "verified", "First recording: silent")
    assert "Second recording: not readable as audio" in told
    assert "Traceback" not in page.inner_text("body")
    assert_fits(page)


def test_enrol_and_identify_in_the_browser(open_page, material):
    page = open_page(390)
    page.get_by_role("tab", name="Enrol").click()
    for name in "xy":
        page.fill("#name input, #name textarea", f"<b>{name}</b>")
        give(page, "files", *getattr(material, name)[:2])
        press(page, "add", "enrolled", f"<b>{name}</b> is enrolled")
    page.wait_for_function("document.querySelectorAll('#people input').length === 2")
    assert_fits(page)
    page.get_by_role("tab", name="Identify").click()
    give(page, "unknown", material.x[2])
    press(page, "find", "identified", "<b>x</b>")
    assert page.locator(".lap-lane").count() == 2
    assert_fits(page)
    page.get_by_role("tab", name="Enrol").click()
    for box in page.locator("#people input").all():
        box.check()
    press(page, "remove", "enrolled", "Removed: <b>x</b>, <b>y</b>")
    page.wait_for_function("document.querySelectorAll('#people input').length === 0")


def test_the_microphone(open_page):
    """What Chromium records of a device that beeps comes at the model's rate."""
    page = open_page(1280)
    for field in ("first", "second"):
        box = page.locator(f"#{field}")
        box.get_by_label("Record audio").click()  # the field was for files
        box.get_by_role("button", name="Record", exact=True).click()
        page.wait_for_timeout(1200)
        with page.expect_response(is_upload):
            box.get_by_role("button", name="Stop").first.click()
        box.get_by_label("Play", exact=True).wait_for()
    told = press(page, "compare", "verified", "First recording: about")
    assert "Second recording: about" in told
    assert "the model's rate" not in told


@pytest.fixture
def here(monkeypatch, tmp_path):
    """The demo in this process, whose surroundings come back afterwards."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_ctrl_c(lap, scored, here, monkeypatch, tmp_path):
    import uvicorn

    def press_ctrl_c(*_):
        assert len(list(tmp_path.glob("wespeaker-lap-demo-*"))) == 1
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(uvicorn.Server, "run", press_ctrl_c)
    before = signal.getsignal(signal.SIGTERM)
    done = lap("demo", scored, "--port", "0")
    assert (done.code, done.err) == (0, "the demo has ended\n")
    assert signal.getsignal(signal.SIGTERM) == before
    assert not list(tmp_path.glob("wespeaker-lap-demo-*"))


def test_a_port_in_use(lap, here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = lap("demo", "no model", "--port", port)
    assert_refused(done, f"127.0.0.1:{port}: another program uses the port",
                   "give --port another one, or 0 for any that is free")


@pytest.mark.parametrize(("host", "port", "message"), [
    ("127.0.0.1", 70000, "port 70000: want 0 to 65535"),
    ("192.0.2.1", 0, "192.0.2.1:0: cannot listen there"),
    ("no such host", 0, "give --host an address of this computer")])
def test_where_it_cannot_listen(host, port, message):
    with pytest.raises(OSError, match=message):
        demo.listen(host, port)


def test_a_port_that_is_not_allowed(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(OSError, match="those from 1024 on are; give --port another one"):
        demo.listen("127.0.0.1", 80)


def test_without_gradio(lap, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert_refused(lap("demo", "no model", "--port", "0"), "the demo needs Gradio",
                   "pip install 'wespeaker-lap[demo]'")


def test_others_on_the_network_are_warned_of(lap, scored, here, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda *_: None)
    shown = lap("demo", scored, "--host", "0.0.0.0", "--port", "0")
    assert shown.code == 0 and re.match(r"http://localhost:\d+/ is open", shown.out)
    assert "0.0.0.0: whoever reaches this computer" in shown.log
    assert "nothing is encrypted" in shown.log
    assert "whoever" not in lap("demo", scored, "--port", "0").log
