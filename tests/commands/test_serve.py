"""``bunryu serve``: the command line, what is not served, and the way it starts and ends."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bunryu import cli
from bunryu.commands import serve
from bunryu.errors import ConfigError
from bunryu.inference.predictor import load_predictor
from bunryu.models.metadata import ParitySample
from bunryu.runs.run import Run
from helpers.serving import Answer, FakePredictor, post, queued_texts
from helpers.small_models import write_pair_model


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "the following arguments are required: run"),
        (["RUN", "--port", "65536"], "argument --port: '65536' is not a number from 0 to 65535"),
        (["RUN", "--wait", "nan"], "argument --wait: 'nan' is not a number"),
        (["RUN", "--queue", "1"], "argument --queue: '1' is not a number from 256"),
        (["RUN", "--deadline", "0"], "argument --deadline: '0' is not a number from 0.1"),
        (["RUN", "--runtime", "tf"], "argument --runtime: invalid choice"),
        (["RUN", "--host", "0.0.0.0"], "others can reach 0.0.0.0, and nothing would keep them out"),
        (["RUN", "--host", "::"], "others can reach ::, and nothing would keep them out"),
        (["RUN", "--host", "no.such.name.invalid"], "no address 'no.such.name.invalid'"),
        (["RUN", "--host", ""], "no address ''"),
        (["RUN", "--token", "short"], "a token has at least 16 characters"),
        (["RUN", "--token", "with blanks and more"], "all ASCII and no blanks"),
        (["RUN", "--token", "토큰토큰토큰토큰토큰토큰토큰토큰토큰"], "all ASCII and no blanks"),
        (["RUN", "--allow-host", "https://a.example"], "'https://a.example' is no host name"),
        (["RUN", "--allow-host", "*"], "'*' is no host name"),
        (["RUN", "--allow-host", "*.com"], "'*.com' is no host name"),
        (["RUN", "--allow-host", "a.example; script-src *"], "is no host name"),
    ],
)
def test_command_lines_that_cannot_work(
    capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    assert cli.run(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert "  fix:   " in error


def test_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUNRYU_TOKEN", raising=False)
    assert serve._token(None) is None
    assert serve._token("a-token-of-some-length") == "a-token-of-some-length"
    drawn = {serve._token("") for _ in range(2)}
    assert [len(str(token)) for token in drawn] == [32, 32]
    monkeypatch.setenv("BUNRYU_TOKEN", "from-the-environment")
    assert [serve._token(given) for given in (None, "")] == ["from-the-environment"] * 2
    assert serve._token("a-token-of-some-length") == "a-token-of-some-length"
    monkeypatch.setenv("BUNRYU_TOKEN", "short")
    with pytest.raises(ConfigError, match="BUNRYU_TOKEN"):
        serve._token(None)


@pytest.mark.parametrize(
    ("address", "token", "url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:80/"),
        ("0.0.0.0", "a/b&c", "http://127.0.0.1:80/?token=a%2Fb%26c"),
        ("::1", None, "http://[::1]:80/"),
        ("::", None, "http://[::1]:80/"),
        ("192.0.2.1", "abc", "http://192.0.2.1:80/?token=abc"),
    ],
)
def test_the_address_to_open(address: str, token: str | None, url: str) -> None:
    assert serve._url(serve.ip_address(address), 80, token) == url


def test_unknown_tokens_of_the_samples_saved_with_the_model_are_told(tmp_path: Path) -> None:
    predictor = load_predictor(write_pair_model(tmp_path / "model"), "m", device="cpu")
    assert "unknown" not in serve._start_message(predictor, 0.0, "http://here")
    samples = [ParitySample("x y z a", "b", ())]
    predictor.metadata = replace(predictor.metadata, parity=samples)
    lines = serve._start_message(predictor, 0.0, "http://here").splitlines()
    assert lines[2] == "  http://here"
    assert lines[4] == "  warning: 75% of its samples' tokens are unknown to the vocabulary"


def test_a_port_in_use_is_noticed_before_a_model_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.run(["serve", "no-such-run", "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert "cannot listen: address already in use" in error
    assert f"where: 127.0.0.1 port {port}" in error
    assert "--port 0 picks a free one" in error


def test_what_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "bunryu serve: " in capsys.readouterr().err


def test_a_model_that_answers_otherwise_than_when_it_was_saved_is_refused(
    capsys: pytest.CaptureFixture[str], trained: Run, tmp_path: Path
) -> None:
    model = shutil.copytree(trained.path / "model", tmp_path / "model")
    metadata = json.loads((model / "bunryu.json").read_text("utf-8"))
    metadata["parity"][0]["logits"][0] += 0.01
    (model / "bunryu.json").write_text(json.dumps(metadata), "utf-8")
    assert cli.run(["serve", str(model), "--port", "0"]) == 1
    error = capsys.readouterr().err
    assert "the loaded model is not the one that was saved: a logit is off by 0.01" in error


@pytest.fixture
def _process_restored() -> Iterator[None]:
    """Undo what the command does to its process, with which it usually ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    gc.unfreeze()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_process_restored")
def test_sigterm_under_load_answers_what_was_accepted_and_exits_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor, token = FakePredictor(), "a-token-of-some-length"
    monkeypatch.setattr(serve, "open_predictor", lambda *_: predictor)
    monkeypatch.setattr(serve, "positive_of", lambda _: None)
    monkeypatch.setenv("BUNRYU_TOKEN", token)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answers: list[Answer] = []

    async def load() -> None:
        await queued_texts(port, least=0)  # it answers, so its own first batch is done
        predictor.gate.clear()
        requests = [
            post(port, {"texts": ["긴 문장"] * 200}, authorization=f"Bearer {token}") for _ in range(8)
        ]
        waiting = asyncio.gather(*requests)
        await queued_texts(port, least=8 * 200)
        idle, writer = await asyncio.open_connection("127.0.0.1", port)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await idle.read() == b""  # it closes idle connections first
        writer.close()
        predictor.gate.set()
        answers.extend(await waiting)

    def run_client() -> None:
        try:
            asyncio.run(asyncio.wait_for(load(), 60))
        except BaseException:
            os.kill(os.getpid(), signal.SIGTERM)  # or the server below would never end
            raise

    client = threading.Thread(target=run_client)
    client.start()
    assert cli.run(["serve", "RUN", "--port", str(port), "--deadline", "300"]) == 0
    client.join()
    assert [(answer.status, len(answer.json["predictions"])) for answer in answers] == [(200, 200)] * 8
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    out, log = capsys.readouterr()
    assert out.splitlines()[2] == f"  http://127.0.0.1:{port}/?token={token}"
    lines = [line for line in map(json.loads, log.splitlines()) if line["path"] == "/predict"]
    assert [(line["status"], line["texts"]) for line in lines] == [(200, 200)] * 8
    assert "token" not in log


@pytest.mark.parametrize("written", ["null", "부정", "1"])
def test_the_label_that_is_positive_is_the_runs(trained: Run, tmp_path: Path, written: str) -> None:
    run = shutil.copytree(trained.path, tmp_path / "run")
    config = (run / "config.yaml").read_text("utf-8")
    (run / "config.yaml").write_text(
        config.replace("\ncorpus:\n", f"\ncorpus:\n  positive: {written}\n"), "utf-8"
    )
    assert serve.positive_of(run) == (None if written == "null" else written)


def test_the_command_says_what_it_serves_and_ctrl_c_ends_it(trained: Run) -> None:
    command = [sys.executable, "-m", "bunryu", "serve", str(trained.path), "--port=0", "--name=영화"]
    command.append("--token=a-token-of-some-length")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [process.stdout.readline().rstrip() for _ in range(4)]
    port = int(re.findall(r":(\d+)/", lines[2])[0])
    answer = model_under(socket.gethostname(), port)
    process.send_signal(signal.SIGINT)
    # not communicate(), which leaves out what readline() has read ahead
    out, log = process.stdout.read(), process.stderr.read()
    process.wait(60)
    process.stdout.close()
    process.stderr.close()
    assert answer == "영화"
    assert lines[0] == f"serving {trained.path.parent.name}/{trained.path.name}: 부정 | 긍정"
    within = r"  texts of at most 128 tokens; torch on cpu, logits as saved within [\de.-]+"
    assert re.fullmatch(within, lines[1])
    assert re.fullmatch(r"  http://127\.0\.0\.1:\d+/\?token=a-token-of-some-length", lines[2])
    assert re.fullmatch(r"(  warning: \d+% of its samples' tokens are unknown to the vocabulary\n)?", out)
    assert (process.returncode, json.loads(log)["path"]) == (0, "/model")


def model_under(host: str, port: int) -> str:
    """The model's name, asked for under a name of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "GET", "/model", headers={"Host": host, "Authorization": "Bearer a-token-of-some-length"}
    )
    name: str = json.load(connection.getresponse())["name"]
    connection.close()
    return name
