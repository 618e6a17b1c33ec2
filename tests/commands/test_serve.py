"""``bunryu serve``: the command line, what is not served, and the way it starts and ends."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bunryu import cli
from bunryu.commands import serve
from bunryu.errors import ConfigError
from bunryu.inference.opening import open_predictor
from bunryu.metrics import softmax
from bunryu.runs.run import Run
from helpers.serving import Answer, read_answer, request_bytes


@pytest.fixture
def copied(trained: Run, tmp_path: Path) -> Run:
    """A run to be damaged."""
    return Run(Path(shutil.copytree(trained.path, tmp_path / "run")))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Exit code and message of a command line that does not get to serving."""
    code = cli.run(["serve", *map(str, arguments), "--port", "0"])
    return code, capsys.readouterr().err


# ---- command lines


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "the following arguments are required: run"),
        (["RUN", "--port", "65536"], "argument --port: '65536' is not a number from 0 to 65535"),
        (["RUN", "--port", "web"], "argument --port: 'web' is not a number"),
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


def test_beyond_this_machine_the_fix_is_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = refusal(capsys, "RUN", "--host", "0.0.0.0")
    assert (code, "add --token" in error) == (2, True)


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


def test_a_port_in_use_is_told_before_a_model_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.run(["serve", "no-such-run", "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert "cannot listen: address already in use" in error
    assert f"where: 127.0.0.1 port {port}" in error
    assert "--port 0 picks a free one" in error


# ---- what is not served


def test_what_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert refusal(capsys, tmp_path)[0] == 2


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def test_pickles_are_refused_and_nothing_in_them_runs(
    capsys: pytest.CaptureFixture[str], copied: Run, tmp_path: Path
) -> None:
    canary, model = tmp_path / "canary", copied.path / "model"
    payload = pickle.dumps(Payload(canary))
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(payload)
    code, error = refusal(capsys, copied.path)
    assert (code, "the weights are a pickle" in error) == (1, True)
    (model / "model.safetensors").write_bytes(payload)
    code, error = refusal(capsys, model)
    assert (code, "the model cannot be loaded" in error) == (1, True)
    (model / "model.safetensors").write_bytes(weights)
    checkpoint = tmp_path / "bad.ckpt"
    torch.save({"state_dict": {}, "payload": Payload(canary)}, checkpoint)
    code, error = refusal(capsys, copied.path, "--checkpoint", checkpoint)
    assert (code, "more than tensors and plain values" in error) == (1, True)
    assert not canary.exists()
    pickle.loads(payload)
    assert canary.exists()  # the payload would have worked


def altered(path: Path, change: Any) -> None:
    facts = json.loads(path.read_text("utf-8"))
    change(facts)
    path.write_text(json.dumps(facts), "utf-8")


def test_a_model_that_answers_otherwise_than_when_it_was_saved_is_refused(
    capsys: pytest.CaptureFixture[str], copied: Run
) -> None:
    def nudge(facts: Any) -> None:
        facts["parity"][0]["logits"][0] += 0.01

    altered(copied.path / "model/bunryu.json", nudge)
    code, error = refusal(capsys, copied.path)
    assert code == 1
    assert "the loaded model is not the one that was saved: a logit is off by 0.01" in error


def test_labels_and_shapes_that_do_not_fit_are_refused(
    capsys: pytest.CaptureFixture[str], copied: Run
) -> None:
    config = copied.path / "model/config.json"
    altered(config, lambda facts: facts["id2label"].update({"0": "other"}))
    code, error = refusal(capsys, copied.path)
    assert (code, "the model's labels are ['other'," in error) == (1, True)
    altered(
        config, lambda facts: facts["id2label"].update({"0": "부정"}) or facts.update({"hidden_size": 32})
    )
    assert refusal(capsys, copied.path)[0] == 1


# ---- a real process


def start(run: Path, *arguments: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """A serving process, and the address it printed."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from bunryu.cli import main; main()",
            "serve",
            str(run),
            "--port=0",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    found = re.search(r"http://\S+", "".join(lines))
    assert found is not None, process.communicate()
    return process, found[0]


@pytest.fixture
def process(trained: Run) -> Iterator[tuple[subprocess.Popen[str], str]]:
    started = start(trained.path, "--token", "--deadline=300", BUNRYU_TOKEN="a-token-of-some-length")
    yield started
    started[0].kill()
    started[0].communicate()


def test_sigterm_under_load_answers_what_was_accepted_and_exits_0(
    process: tuple[subprocess.Popen[str], str], trained: Run
) -> None:
    server, url = process
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=a-token-of-some-length", url)
    assert found is not None
    port = int(found[1])
    predictor = open_predictor(trained.path)
    texts = ["아주 긴 영화평입니다 " * 40] * 256
    expected = softmax(predictor.predict(texts[:1]))[0]

    async def load() -> list[Answer]:
        waiting = [asyncio.create_task(ask(port, texts)) for _ in range(8)]
        while True:  # until most are waiting and the others on their way
            with await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/health") as health:
                if json.load(health)["queued_texts"] >= 5 * 256:
                    break
        server.send_signal(signal.SIGTERM)
        return await asyncio.gather(*waiting)

    answers = asyncio.run(asyncio.wait_for(load(), 100))
    out, log = server.communicate(timeout=60)
    assert (server.returncode, out) == (0, "")
    for answer in answers:
        assert answer.status == 200
        rows = [list(prediction["probabilities"].values()) for prediction in answer.json["predictions"]]
        assert len(rows) == 256
        assert np.abs(np.array(rows) - expected).max() < 1e-6
    lines = [json.loads(line) for line in log.splitlines()]
    accepted = [line for line in lines if line["path"] == "/predict"]
    assert [(line["status"], line["texts"]) for line in accepted] == [(200, 256)] * 8
    assert "token" not in log


async def ask(port: int, texts: list[str]) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"texts": texts}, ensure_ascii=False).encode()
    writer.write(request_bytes("/predict", body, authorization="Bearer a-token-of-some-length"))
    answer = await read_answer(reader)
    writer.close()
    return answer


def test_the_command_says_what_it_serves_and_ctrl_c_ends_it(trained: Run) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from bunryu.cli import main; main()", "serve", str(trained.path), "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().rstrip() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    out, log = process.communicate(timeout=60)
    name = f"{trained.path.parent.name}/{trained.path.name}"
    assert lines[0] == f"serving {name}: 부정 | 긍정"
    assert re.fullmatch(
        r"  texts of at most 128 tokens; torch on cpu, logits as saved within [\de.-]+", lines[1]
    )
    assert re.fullmatch(r"  http://127\.0\.0\.1:\d+/", lines[2])
    assert (process.returncode, out, log) == (0, "", "")
