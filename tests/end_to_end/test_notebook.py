"""The Korean notebook: its form, and all its cells run on the sample corpus."""

from __future__ import annotations

import ast
import html
import json
import re
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from bunryu import cli
from bunryu.runs.run import Run
from bunryu.serving.middleware import HostPolicy

PATH = Path(__file__).parents[2] / "notebooks" / "nsmc_tutorial_ko.ipynb"

# In a hosted notebook a browser comes by such a name: the proxy's, of two generations.
PROXIES = ["8000-gpu-t4-s-1ab2c3-a.us-west4-1.prod.colab.dev", "1ab2c3-8000-colab.googleusercontent.com"]
# Stands for the hosted notebook's own library: prints the port that it was to show.
HOSTED = """\
import types

colab = types.ModuleType("google.colab")
colab.output = types.SimpleNamespace(
    serve_kernel_port_as_iframe=lambda port, height: print("frame of port", port)
)
sys.modules["google.colab"] = colab
"""
PROBE = f"""\
for host in {PROXIES}:
    request = urllib.request.Request(f"http://127.0.0.1:{{PORT}}/", headers={{"Host": host}})
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(answer.status, answer.headers["Content-Security-Policy"].split("frame-ancestors ")[1])
"""


def read() -> nbformat.NotebookNode:
    return nbformat.read(PATH, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def source(name: str) -> str:
    return str(code_cells(read())[name].source)


def test_it_is_valid_stored_without_outputs_and_names_no_path_of_a_machine() -> None:
    text, notebook = PATH.read_text("utf-8"), read()
    nbformat.validate(json.loads(text))
    assert re.findall(r"/(?:home|Users|root|work|tmp|mnt|usr|opt|var)/\S*|[A-Z]:\\\\\S*", text) == []
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook).values():
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id
    assert re.findall(r"pip\b.*", source("setup")) == ["pip install -q -e ."]  # not torch, which is there


def test_its_parts_are_the_tutorials_in_its_order() -> None:
    order = []
    for cell in read().cells:
        order += [cell.id] if cell.cell_type == "code" else re.findall(r"^## (.+)", cell.source, re.MULTILINE)
    assert order == [
        "1. 환경 설정", "setup", "2. 인자 설정", "arguments", "3. 말뭉치", "corpus",
        "4. 토크나이저와 인코딩된 예시", "examples", "5. 학습", "training", "6. 평가", "evaluation",
        "7. 웹 데모", "demo", "stop",
    ]  # fmt: skip


def test_its_arguments_compose_as_they_stand_and_with_all_that_is_commented_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code_cells(read())["arguments"].metadata.tags == ["parameters"]
    values: dict[str, list[str]] = {}
    exec(source("arguments"), values)
    arguments = values["ARGUMENTS"]
    assert arguments == ["experiment=nsmc_kcbert", "corpus.validation=0.05", "output_root=outputs"]
    commented = re.findall(r'^ +# "(.+?)",', source("arguments"), re.MULTILINE)
    assert len(commented) == 5
    for more in (arguments, ["experiment=nsmc_small", *arguments[1:], *commented]):
        assert cli.run(["train", "--cfg", "job", *more]) == 0
        assert "  validation: 0.05\n" in capsys.readouterr().out


def test_the_names_it_allows_are_no_wider_than_the_hosted_notebooks_proxy() -> None:
    (names,) = re.findall(r"^COLAB = (\[.+\])$", source("demo"), re.MULTILINE)
    hosts = HostPolicy(loopback=True, names=tuple(ast.literal_eval(names)))
    others = ["colab.dev", "prod.colab.dev.example.org", "example.org"]
    assert [hosts.allow(name) for name in PROXIES + others] == [True, True, False, False, False]


@dataclass(frozen=True)
class Executed:
    cells: dict[str, nbformat.NotebookNode]
    root: Path
    port: int

    @property
    def runs(self) -> list[Run]:
        """In the order in which they were made, as their names begin with the time."""
        return [Run(path.parent) for path in sorted(self.root.glob("sample-tiny/*/manifest.json"))]

    def printed(self, name: str) -> str:
        outputs = self.cells[name].outputs
        return "".join(output.text for output in outputs if output.output_type == "stream")

    def shown(self, name: str) -> str:
        """What a cell shows as HTML, the only thing of its kind there."""
        outputs = self.cells[name].outputs
        (page,) = (output.data["text/html"] for output in outputs if "text/html" in output.get("data", {}))
        return str(page)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook on a part of the sample corpus, then cells that fail and those of a hosted notebook."""
    folder, root = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("outputs") / "실행 (1)"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    notebook = read()
    arguments = ["limit_rows=72", "batch_size=16", "epochs=2", f"output_root={root}"]
    values = f"OUTPUT_ROOT = {str(root)!r}\nPORT = {port}\nARGUMENTS = {arguments!r}"
    code_cells(notebook)["arguments"].source = values
    further = {
        "failing verb": 'run("bunryu", "train", "epochs=-1")',
        "failing server": f'SERVED, RUN = RUN, Path("nowhere")\n{source("demo")}',
        "hosted demo": f"{HOSTED}\nRUN = SERVED\n{source('demo')}",
        "probe": PROBE,
        "hosted stop": source("stop"),
    }
    for name, code in further.items():
        tags = ["raises-exception"] if name.startswith("failing") else []
        cell = nbformat.v4.new_code_cell(code, id=name.replace(" ", "-"), metadata={"tags": tags})
        notebook.cells.append(cell)
    # With this interpreter as the kernel, apart from the user's kernels and settings.
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = folder / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}), "utf-8")
    (folder / "working").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "share"))
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder / name))
        resources = {"metadata": {"path": str(folder / "working")}}
        NotebookClient(notebook, timeout=120, resources=resources).execute()
    assert list((folder / "working").iterdir()) == [], "something was cloned or written beside the runs"
    return Executed(code_cells(notebook), root, port)


def test_every_cell_runs_and_makes_a_rehearsal_and_a_finished_run(executed: Executed) -> None:
    names = list(code_cells(read()))
    assert [executed.cells[name].execution_count for name in names] == list(range(1, 9))
    outputs = [output for name in names for output in executed.cells[name].outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}  # no stderr
    versions = ["bunryu", version("bunryu"), "torch", version("torch")]
    assert executed.printed("setup").split() == versions  # nothing was installed
    assert [run.manifest["status"] for run in executed.runs] == ["finished"] * 2
    assert [run.config["trainer"]["fast_dev_run"] for run in executed.runs] == [True, False]
    run = executed.runs[1]
    assert run.manifest["total_steps"] == 10  # 72 rows in batches of 16, twice
    training = executed.printed("training")
    assert f"\n실행 디렉터리: {run.path}\n" in training.replace("\r\n", "\n")
    assert re.findall(r"(\d)번째 에폭의 학습률: (.+)", training) == [("1", "1.00e-03"), ("2", "9.00e-04")]


def test_it_says_what_became_of_the_corpus_and_shows_two_encoded_examples(executed: Executed) -> None:
    said = executed.printed("corpus")
    assert "ratings_train.txt: 1,798행을 읽어 1,798행을 썼습니다" in said
    assert "ratings_test.txt: 300행을 읽어 300행을 썼습니다" in said
    assert re.findall(r"^(\w+): 72행", said, re.MULTILINE) == ["train", "validation", "test"]
    examples, log = executed.printed("examples"), (executed.runs[0].path / "train.log").read_text("utf-8")
    assert [example for example in examples.strip().split("\n\n") if example not in log] == []
    pattern = r"example (\d)\n  sentence: .+\n  tokens: (\[CLS\] .+)\n  label: .+\n  ids: (.+)\n"
    found = re.findall(pattern, examples)
    assert [number for number, *_ in found] == ["1", "2"]
    assert all(len(tokens.split()) == len(json.loads(ids)) for _, tokens, ids in found)


def test_it_shows_the_evaluation_page_whole(executed: Executed) -> None:
    folder = executed.runs[1].path / "evaluations" / "test"
    (document,) = re.findall(r'<iframe srcdoc="([^"]*)"', executed.shown("evaluation"))
    assert html.unescape(document) == (folder / "evaluation.html").read_text("utf-8")
    report = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert report["accuracy"] == executed.runs[1].results["test/accuracy"]


def test_its_demo_answers_is_shown_and_ends(executed: Executed) -> None:
    label, _, rest = executed.printed("demo").strip().partition(" ")
    probabilities = ast.literal_eval(rest)
    assert list(probabilities) == ["부정", "긍정"]
    assert label == max(probabilities, key=probabilities.get)
    assert f'src="http://127.0.0.1:{executed.port}/"' in executed.shown("demo")
    assert executed.printed("stop") == executed.printed("hosted-stop") == "서버를 멈췄습니다. 종료 코드 0\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", executed.port), timeout=5)
    # In a hosted notebook it is reached through the proxy.
    assert executed.printed("hosted-demo").splitlines()[1] == f"frame of port {executed.port}"
    frames = (
        "'self' http://localhost:* http://127.0.0.1:* https://colab.research.google.com "
        "https://colab.google.com https://*.googleusercontent.com https://*.prod.colab.dev"
    )
    assert executed.printed("probe").splitlines() == [f"200 {frames}"] * len(PROXIES)


def test_what_fails_fails_its_cell(executed: Executed) -> None:
    for name, why in (
        ("failing-verb", "bunryu train epochs=-1: 종료 코드 2."),
        ("failing-server", "서버가 열리지 않았습니다.\nbunryu serve: no such directory"),
    ):
        (error,) = (output for output in executed.cells[name].outputs if output.output_type == "error")
        assert error.ename == "RuntimeError"
        assert error.evalue.startswith(why)
