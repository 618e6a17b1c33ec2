"""The Korean notebook: its form, and all its cells run on the sample corpus."""

from __future__ import annotations

import ast
import html
import json
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from bunryu import cli
from bunryu.runs.run import Run
from bunryu.serving.middleware import HostPolicy

PATH = Path(__file__).parents[2] / "notebooks" / "nsmc_tutorial_ko.ipynb"
CODE_CELLS = ["setup", "arguments", "corpus", "examples", "training", "evaluation", "demo", "stop"]

# In a hosted notebook a browser comes by such a name: the proxy's, of two generations.
PROXIES = ["8000-gpu-t4-s-1ab2c3-a.us-west4-1.prod.colab.dev", "1ab2c3-8000-colab.googleusercontent.com"]
# Stands for the hosted notebook's own library: shows which port it was to show.
HOSTED = """\
import sys
import types

colab = types.ModuleType("google.colab")
colab.output = types.SimpleNamespace(
    serve_kernel_port_as_iframe=lambda port, height: print("frame of port", port)
)
sys.modules["google.colab"] = colab
"""
PROBE = """\
for host in {hosts!r}:
    request = urllib.request.Request(f"http://127.0.0.1:{{PORT}}/", headers={{"Host": host}})
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(answer.status, answer.headers["Content-Security-Policy"].split("frame-ancestors")[1])
"""


def read() -> nbformat.NotebookNode:
    return nbformat.read(PATH, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def source(name: str) -> str:
    return str(code_cells(read())[name].source)


def printed(cell: nbformat.NotebookNode) -> str:
    """What a cell wrote."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def shown(cell: nbformat.NotebookNode) -> str:
    """What a cell shows as HTML, the only thing of its kind there."""
    (page,) = (output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {}))
    return str(page)


def test_it_is_valid_and_stored_without_outputs() -> None:
    nbformat.validate(json.loads(PATH.read_text("utf-8")))
    notebook = read()
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    assert list(cells) == CODE_CELLS
    assert len(cells) <= 8
    assert [(cell.outputs, cell.execution_count) for cell in cells.values()] == [([], None)] * len(cells)


def test_its_parts_are_the_tutorials_in_its_order() -> None:
    order = []
    for cell in read().cells:
        order += [cell.id] if cell.cell_type == "code" else re.findall(r"^## (.+)", cell.source, re.MULTILINE)
    assert order == [
        "1. 환경 설정", "setup",
        "2. 인자 설정", "arguments",
        "3. 말뭉치", "corpus",
        "4. 토크나이저와 인코딩된 예시", "examples",
        "5. 학습", "training",
        "6. 평가", "evaluation",
        "7. 웹 데모", "demo", "stop",
    ]  # fmt: skip


def test_no_path_of_a_machine_stands_in_it() -> None:
    text = PATH.read_text("utf-8")
    assert re.findall(r"/(?:home|Users|root|work|tmp|mnt|usr|opt|var)/\S*|[A-Z]:\\\\\S*", text) == []


def test_its_set_up_leaves_the_torch_that_is_there() -> None:
    assert re.findall(r"pip\b.*", source("setup")) == ["pip install -q -e ."]


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
    for experiment in ("experiment=nsmc_kcbert", "experiment=nsmc_small"):
        for more in ([], commented):
            assert cli.run(["train", "--cfg", "job", experiment, *arguments[1:], *more]) == 0
            assert "  validation: 0.05\n" in capsys.readouterr().out


def test_the_names_it_allows_are_those_of_the_hosted_notebooks_proxy() -> None:
    statements = ast.parse(source("demo")).body
    (value,) = (
        s.value for s in statements if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == "COLAB"
    )
    hosts = HostPolicy(loopback=True, names=tuple(ast.literal_eval(value)))
    assert [hosts.allow(name) for name in PROXIES] == [True, True]
    assert [hosts.allow(name) for name in ("colab.dev", "prod.colab.dev.example.org", "example.org")] == [
        False
    ] * 3


@dataclass(frozen=True)
class Kernel:
    """Runs notebooks in a folder of its own."""

    folder: Path

    def execute(self, notebook: nbformat.NotebookNode) -> None:
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(self.folder)}}).execute()

    def execute_cells(self, *sources: str) -> list[nbformat.NotebookNode]:
        """Run cells of these sources; what became of them."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        self.execute(notebook)
        return list(notebook.cells)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """This interpreter as the kernel ``python3``, kept apart from the user's kernels and settings."""
    folder = tmp_path_factory.mktemp("jupyter")
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = folder / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "share"))
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder / name))
        (folder / "working").mkdir()
        yield Kernel(folder / "working")


@dataclass(frozen=True)
class Executed:
    """The notebook after all its cells ran, and where their runs are."""

    cells: dict[str, nbformat.NotebookNode]
    root: Path
    port: int

    @property
    def runs(self) -> list[Run]:
        """The runs in the order in which they were made; their names begin with the time."""
        return [Run(path.parent) for path in sorted(self.root.glob("sample-tiny/*/manifest.json"))]


@pytest.fixture(scope="module")
def executed(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook, run from its first cell to its last on a part of the sample corpus."""
    root = tmp_path_factory.mktemp("outputs") / "실행 (1)"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = ["limit_rows=72", "batch_size=16", "epochs=2", f"output_root={root}"]
    notebook = read()
    cells = code_cells(notebook)
    cells["arguments"].source = f"OUTPUT_ROOT = {str(root)!r}\nPORT = {port}\nARGUMENTS = {arguments!r}"
    kernel.execute(notebook)
    return Executed(cells, root, port)


def test_every_cell_runs_and_none_writes_to_standard_error(executed: Executed) -> None:
    outputs = [output for cell in executed.cells.values() for output in cell.outputs]
    assert [cell.execution_count for cell in executed.cells.values()] == list(range(1, 9))
    assert [output for output in outputs if output.output_type == "error"] == []
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}


def test_what_is_installed_is_not_installed_again(executed: Executed, kernel: Kernel) -> None:
    lines = printed(executed.cells["setup"]).split()
    assert lines == ["bunryu", version("bunryu"), "torch", version("torch")]
    assert not (kernel.folder / "bunryu").exists()  # nothing was cloned


def test_it_makes_a_rehearsal_and_a_finished_run(executed: Executed) -> None:
    rehearsal, run = executed.runs
    assert [rehearsal.manifest["status"], run.manifest["status"]] == ["finished", "finished"]
    assert rehearsal.config["trainer"]["fast_dev_run"] is True
    assert run.config["trainer"]["fast_dev_run"] is False
    assert run.manifest["total_steps"] == 10  # 72 rows in batches of 16, twice
    training = printed(executed.cells["training"])
    assert f"\n실행 디렉터리: {run.path}\n" in training.replace("\r\n", "\n")
    assert re.findall(r"(\d)번째 에폭의 학습률: (.+)", training) == [("1", "1.00e-03"), ("2", "9.00e-04")]


def test_it_says_what_became_of_the_corpus(executed: Executed) -> None:
    said = printed(executed.cells["corpus"])
    assert "ratings_train.txt: 1,798행을 읽어 1,798행을 썼습니다" in said
    assert "ratings_test.txt: 300행을 읽어 300행을 썼습니다" in said
    assert re.findall(r"^(\w+): 72행", said, re.MULTILINE) == ["train", "validation", "test"]


def test_it_shows_two_encoded_examples_as_the_log_has_them(executed: Executed) -> None:
    said = printed(executed.cells["examples"])
    log = (executed.runs[0].path / "train.log").read_text("utf-8")
    found = re.findall(r"example (\d)\n  sentence: (.+)\n  tokens: (.+)\n  label: (.+)\n  ids: (.+)\n", said)
    assert [number for number, *_ in found] == ["1", "2"]
    for number, sentence, tokens, label, ids in found:
        assert (
            f"example {number}\n  sentence: {sentence}\n  tokens: {tokens}\n  label: {label}\n  ids: {ids}\n"
            in log
        )
        assert tokens.split()[0] == "[CLS]"
        assert len(tokens.split()) == len(json.loads(ids))


def test_it_shows_the_evaluation_page_whole(executed: Executed) -> None:
    folder = executed.runs[1].path / "evaluations" / "test"
    (document,) = re.findall(r'<iframe srcdoc="([^"]*)"', shown(executed.cells["evaluation"]))
    assert html.unescape(document) == (folder / "evaluation.html").read_text("utf-8")
    report = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert report["accuracy"] == executed.runs[1].results["test/accuracy"]


def test_its_demo_answers_and_is_shown(executed: Executed) -> None:
    label, _, rest = printed(executed.cells["demo"]).strip().partition(" ")
    probabilities = ast.literal_eval(rest)
    assert list(probabilities) == ["부정", "긍정"]
    assert label == max(probabilities, key=probabilities.get)
    assert sum(probabilities.values()) == pytest.approx(1, abs=2e-4)
    assert f'src="http://127.0.0.1:{executed.port}/"' in shown(executed.cells["demo"])


def test_its_server_has_ended(executed: Executed) -> None:
    assert printed(executed.cells["stop"]) == "서버를 멈췄습니다. 종료 코드 0\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", executed.port), timeout=5)


def test_in_a_hosted_notebook_its_demo_is_reached_through_the_proxy(
    executed: Executed, kernel: Kernel
) -> None:
    run, root = str(executed.runs[1].path), str(executed.root)
    values = f"RUN, OUTPUT_ROOT, PORT = Path({run!r}), {root!r}, {executed.port}"
    hosted = f"{HOSTED}\nimport json\n{values}"
    cells = kernel.execute_cells(
        source("setup"), hosted, source("demo"), PROBE.format(hosts=PROXIES), source("stop")
    )
    assert printed(cells[2]).splitlines()[1] == f"frame of port {executed.port}"
    frames = (
        "'self' http://localhost:* http://127.0.0.1:* https://colab.research.google.com "
        "https://colab.google.com https://*.googleusercontent.com https://*.prod.colab.dev"
    )
    assert re.findall(r"^(\d+)  ?(.+)$", printed(cells[3]), re.MULTILINE) == [
        ("200", frames),
        ("200", frames),
    ]
    assert printed(cells[4]) == "서버를 멈췄습니다. 종료 코드 0\n"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (['run("bunryu", "train", "epochs=-1")'], "bunryu train epochs=-1: 종료 코드 2"),
        (
            ['import json\nRUN, OUTPUT_ROOT, PORT = Path("nowhere"), ".", 0', source("demo")],
            "서버가 열리지 않았습니다.\nbunryu serve: no such directory",
        ),
    ],
    ids=["a verb", "the server"],
)
def test_what_fails_fails_its_cell(kernel: Kernel, cells: list[str], message: str) -> None:
    with pytest.raises(CellExecutionError, match=re.escape(message)) as caught:
        kernel.execute_cells(source("setup"), *cells)
    assert caught.value.ename == "RuntimeError"
