"""The page is served to this machine, asks for nothing, and outlives bad requests."""

import http.server
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import runs

pytestmark = pytest.mark.proc
PREDICT = "/gradio_api/run/predict"


def ask(served, path, body=None, **headers):
    """(status, text) of a request; (0, '') if the connection was closed."""
    data = (
        body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    )
    headers = {"Content-Type": "application/json"} | headers
    request = urllib.request.Request(served.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return 0, ""


@pytest.fixture(scope="module")
def slider(served):
    """How the page asks for the point of its sliders: a function of the first one."""
    config = json.loads(ask(served, "/config")[1])
    names = {c["id"]: c["type"] for c in config["components"]}
    found = next(
        d
        for d in config["dependencies"]
        if names[d["targets"][0][0]] == "slider" and names[d["inputs"][0]] == "state"
    )
    rest = [0.5] * (len(found["inputs"]) - 2)

    def body(value, session="one"):
        data = [None, value, *rest]
        return {"fn_index": found["id"], "data": data, "session_hash": session}

    return body


def shown(text):
    """The words and the picture of an answer."""
    html = json.loads(text)["data"][1]
    return re.search(r"<p>(.*?)</p>", html)[1], re.search(r'src="(.*?)"', html)[1]


def test_it_listens_to_this_machine_alone(served):
    port = int(served.url.rpartition(":")[2])
    assert served.url.startswith("http://127.0.0.1:")
    with socket.create_connection(("127.0.0.1", port)):
        pass
    listening = subprocess.run(
        [sys.executable, "-c", LISTENING, str(served.command.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(listening.stdout) == [["0100007F", port]]


LISTENING = """
import json, os, sys
pid = sys.argv[1]
links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")
         if os.path.islink(f"/proc/{pid}/fd/{n}")]
inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
found = []
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").read().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:  # 0A is LISTEN
            host, port = fields[1].split(":")
            found.append([host, int(port, 16)])
print(json.dumps(found))
"""


def test_the_same_request_has_the_same_answer(served, slider):
    first, second = (shown(ask(served, PREDICT, slider(0.3))[1]) for _ in range(2))
    assert first == second
    assert shown(ask(served, PREDICT, slider(-1.2))[1])[1] != first[1]


@pytest.mark.parametrize("value", ["x", None, 1e9, {"path": "/etc/passwd"}, [1]])
def test_bad_values_get_an_error_and_the_page_lives_on(served, slider, value):
    status, text = ask(served, PREDICT, slider(value))
    assert status in (0, 400, 422, 500) and "root:" not in text
    assert ask(served, PREDICT, slider(0.3))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        {"fn_index": -1, "data": []},
        {"fn_index": 10**9, "data": []},
        {"fn_index": 0, "data": "x"},
        {"data": []},
        [],
    ],
    ids=str,
)
def test_requests_that_are_none_get_an_error(served, slider, body):
    assert ask(served, PREDICT, body)[0] in (0, 400, 404, 422, 500)
    assert ask(served, PREDICT, slider(0.3))[0] == 200


def test_large_requests_are_refused_unread(served, slider):
    assert ask(served, PREDICT, b"x" * 2**22)[0] in (0, 413)
    assert ask(served, PREDICT, slider(0.3))[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=http://127.0.0.1:9/x",
        "/gradio_api/file=http:/127.0.0.1:9/x",
        "/gradio_api/file=%68ttp://127.0.0.1:9/x",
        "/gradio_api/file=HTTP://127.0.0.1:9/x",
        "/gradio_api/file=ftp://127.0.0.1:9/x",
        "/gradio_api/proxy=http://127.0.0.1:9/x",
        "/gradio_api/component_server",
        "/gradio_api/vibe-code/",
        "/gradio_api/queue/join",
        "/gradio_api/queue/data",
        "/gradio_api/call/slid",
        "/static/../../../../etc/passwd",
        "/docs",
        "/openapi.json",
        "/login",
        "/monitoring",
    ],
)
def test_nothing_but_the_page_is_answered(served, path):
    for body in (None, {"fn_index": 0, "data": []}):
        status, text = ask(served, path, body)
        assert status in (403, 404, 405) and "root:" not in text, text


@pytest.fixture
def elsewhere():
    """A server of this machine, and what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_nothing_is_fetched_whatever_a_request_names(served, slider, elsewhere):
    url, asked = elsewhere
    for address in (url, url.replace("127.0.0.1", "localhost")):
        assert ask(served, f"/gradio_api/file={address}/x")[0] == 404
    config = json.loads(ask(served, "/config")[1])
    file = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
    for value in (file, {"url": url}, [file], {"image": file}, [[{"a": file}]]):
        for dependency in config["dependencies"]:
            data = [value] * max(1, len(dependency["inputs"]))
            body = {"fn_index": dependency["id"], "data": data, "session_hash": "s"}
            body["event_data"] = {"index": [1, 1], "value": file}
            assert ask(served, PREDICT, body)[0] == 400
            body["data"] = [None] * len(dependency["inputs"])
            ask(served, PREDICT, body)
    assert asked == []
    assert ask(served, PREDICT, slider(0.3))[0] == 200


@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n"])
def test_a_body_of_unknown_length_is_not_read(served, slider, length):
    port = int(served.url.rpartition(":")[2])
    head = b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    kind = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + length + kind + b"FFFFFFF\r\n")
        assert connection.recv(100).split()[1] in (b"400", b"411")
    assert ask(served, PREDICT, slider(0.3))[0] == 200


def test_a_request_that_nests_too_deeply_is_refused(served, slider):
    body = b'{"data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    assert ask(served, PREDICT, body)[0] == 400
    assert ask(served, PREDICT, slider(0.3))[0] == 200


def test_it_is_no_other_host(served):
    assert ask(served, "/", Host="example.com")[0] == 400
    assert ask(served, "/", Host="localhost")[0] == 200


def test_many_may_ask_at_once_among_bad_requests(served, slider):
    values = [round(-2.0 + 0.1 * i, 2) for i in range(40)]
    alone = [shown(ask(served, PREDICT, slider(v))[1]) for v in values]

    def one(i):
        if i % 5 == 0:
            ask(served, PREDICT, slider("x", f"bad{i}"))
        return shown(ask(served, PREDICT, slider(values[i], f"s{i}"))[1])

    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(one, range(len(values))))
    assert together == alone


def test_it_wanted_nothing_from_elsewhere(served, slider):
    page = ask(served, "/")[1]
    assert ask(served, PREDICT, slider(0.3))[0] == 200
    links = re.findall(r'(?:src|href)="(?:https?:)?//([^"/]+)', page)
    assert set(links) <= {served.url.removeprefix("http://")}
    assert served.errors == ""


def explore(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "jvae", "explore", *map(str, arguments)],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
        timeout=runs.TIMEOUT,
    )


def test_a_port_that_is_taken_is_one_line(served, run):
    port = served.url.rpartition(":")[2]
    ended = explore(run, f"--port={port}", "--no_browser")
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert f"cannot listen at 127.0.0.1:{port}" in line and "--port" in line


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [((), 2, "WORKDIR is missing"), (("nowhere",), 4, "nowhere")],
)
def test_what_cannot_be_explored_is_one_line(served, arguments, status, words):
    ended = explore(*arguments, "--port=0", "--no_browser")
    assert ended.returncode == status
    (line,) = ended.stderr.strip().splitlines()
    assert words in line
