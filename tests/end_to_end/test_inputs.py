"""Faults 17 and 19 to 22: inputs that are broken, doubtful, changed, or half written by another process."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertTokenizer

from bunryu.data import nsmc_download
from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.data.corpora import Corpus, Nsmc, Table
from bunryu.data.nsmc_download import fetch_nsmc
from bunryu.encoding import cache
from bunryu.encoding import encoder as encoding
from bunryu.encoding.encoder import Encoded, Encoder
from bunryu.encoding.vocabulary import read_vocabulary
from bunryu.errors import ConfigError, DataError, DownloadError
from helpers.downloading import (
    CONTENT,
    Server,
    files_in,
    one_byte_wrong,
    server,
    truncated,
    unavailable,
    web_page,
)
from helpers.tables import table as half_for_validation

__all__ = ["server"]  # a fixture

# Korpora opens each address once more than it reads or closes it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

NAMES = {0: "부정", 1: "긍정"}
OLD = {"nsmc/ratings_train.txt": b"old train", "nsmc/ratings_test.txt": b"old test"}


# Fault 17: downloads


def with_old_files(root: Path) -> Path:
    for name, content in OLD.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize("way", ["hang", "trickle_body", "trickle_headers"])
def test_fault_17_a_server_that_hangs_or_trickles_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(nsmc_download, "SECONDS_WITHOUT_DATA", 0.15)
    monkeypatch.setattr(nsmc_download, "ATTEMPTS", 2)
    server.answers["/train"] = getattr(server, way)
    with pytest.raises(DownloadError) as failed:
        fetch_nsmc(with_old_files(tmp_path), force=True)
    assert ("timed out" if way == "hang" else "bytes came in") in failed.value.what
    assert failed.value.what.endswith("(attempt 2 of 2)")
    assert files_in(tmp_path) == OLD


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(truncated, "retrieval incomplete", id="truncated"),
        pytest.param(web_page, "a web page, not the corpus (a login page", id="captive portal"),
        pytest.param(one_byte_wrong, "bytes and checksum", id="wrong hash"),
        pytest.param(unavailable, "HTTP Error 503", id="unavailable"),
    ],
)
def test_fault_17_what_is_not_the_published_file_never_takes_its_place(
    server: Server, tmp_path: Path, answer: Any, why: str
) -> None:
    server.answers["/test"] = answer
    with pytest.raises(DownloadError) as failed:
        fetch_nsmc(with_old_files(tmp_path), force=True)
    # file, host and ways out are named
    assert f"ratings_test.txt from {server.url.removeprefix('http://')}: " in failed.value.what
    assert why in failed.value.what
    assert failed.value.where == str(tmp_path / "nsmc")
    assert "corpus.root_dir=" in failed.value.fix
    assert files_in(tmp_path) == OLD


def test_fault_17_a_network_that_comes_back_is_waited_for(server: Server, tmp_path: Path) -> None:
    server.answers["/train"] = server.failing(3, unavailable)
    fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == {f"nsmc/ratings_{split}.txt": raw for split, raw in CONTENT.items()}


def test_fault_17_without_a_network_the_error_comes_at_once_and_says_what_to_do(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_name(*args: object, **options: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(DownloadError, match="Temporary failure in name resolution") as failed:
        fetch_nsmc(tmp_path, force=False)
    assert "or start with corpus=sample" in failed.value.fix
    assert files_in(tmp_path) == {}


def test_fault_17_with_the_files_present_no_network_is_touched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, raw in CONTENT.items():
        path = tmp_path / f"nsmc/ratings_{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    corpus = Nsmc("nsmc", str(tmp_path), False, "test", 42, NAMES).read()
    assert (len(corpus.train), len(corpus.test), corpus.differences) == (2, 2, [])
    assert server.asked == []


# Fault 19: files


def table(train: Path, **changes: Any) -> Table:
    """A Table that validates on its training file."""
    return half_for_validation(str(train), **{"validation": str(train), **changes})


GOOD = "text\tlabel\n좋다\t1\n나쁘다\t0\n"
READ_RIGHTLY = {
    "byte-order mark": GOOD.encode("utf-8-sig"),
    "CRLF": GOOD.replace("\n", "\r\n").encode(),
    "UTF-16 with its mark": GOOD.encode("utf-16"),
    "no newline at the end": GOOD.rstrip().encode(),
    "quoted": 'text\tlabel\n"좋다"\t"1"\n"나쁘다"\t0\n'.encode(),
}


@pytest.mark.parametrize("name", READ_RIGHTLY)
def test_fault_19_what_can_be_read_is_read_rightly(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tsv").write_bytes(READ_RIGHTLY[name])
    corpus = table(tmp_path / "a.tsv").read()
    assert [(e.text, e.label) for e in corpus.train] == [("좋다", "1"), ("나쁘다", "0")]
    assert (corpus.accounts["train"].read, corpus.accounts["train"].used) == (2, 2)


@pytest.mark.parametrize(
    ("content", "error", "where", "fix"),
    [
        pytest.param(GOOD.encode("cp949"), DataError, ":2", "corpus.encoding=cp949", id="cp949"),
        pytest.param(
            GOOD.encode("utf-16-le"), DataError, ":2", "corpus.encoding=utf-16-le", id="UTF-16 unmarked"
        ),
        pytest.param("좋다\t1\n나쁘다\t0\n".encode(), ConfigError, ":1", "header", id="no header"),
        pytest.param(b"", DataError, "", "", id="empty"),
    ],
)
def test_fault_19_what_cannot_be_read_is_refused_with_its_place_and_fix(
    tmp_path: Path, content: bytes, error: type[Exception], where: str, fix: str
) -> None:
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(error) as refused:
        table(tmp_path / "a.tsv").read()
    assert refused.value.where.endswith(f"a.tsv{where}")  # type: ignore[attr-defined]
    assert fix in refused.value.fix  # type: ignore[attr-defined]


BAD_ROWS = {
    "NUL": ("나\0쁘\t0", "NUL character"),
    "blank line": ("", "blank line"),
    "short row": ("짧다", "1 fields instead of 2"),
    "long row": ("길다\t0\t0", "3 fields instead of 2"),
    "stray quote": ('"열고\t0', "stray quote"),
    "empty label": ("글\t ", "empty label"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_fault_19_a_bad_row_is_rejected_by_file_and_line_and_counted(tmp_path: Path, name: str) -> None:
    row, reason = BAD_ROWS[name]
    (tmp_path / "a.tsv").write_text(f"{GOOD}{row}\n최고\t1\n", "utf-8")
    (tmp_path / "b.tsv").write_text("text\tlabel\n다른 글\t1\n딴 글\t0\n", "utf-8")
    corpus = table(tmp_path / "a.tsv", validation=str(tmp_path / "b.tsv")).read()
    account = corpus.accounts["train"]
    assert [e.text for e in corpus.train] == ["좋다", "나쁘다", "최고"]
    assert (account.read, account.used, account.rejected) == (4, 3, {reason: 1})
    assert account.rejected_rows == [f"a.tsv:4: {reason}"]
    assert corpus.place("train", corpus.train[2]) == "a.tsv:5"
    # said on the console, and refused where strictness is asked for
    (flaw,) = corpus.flaws()
    assert flaw == f"a.tsv: 1 of 4 rows rejected (1 {reason}); first: a.tsv:4: {reason}"
    assert corpus.warnings[0] == flaw
    with pytest.raises(DataError, match=r"a\.tsv:4"):
        corpus.refuse_flaws()


# Fault 20: documents and labels

TRAIN = ["text\tlabel", *(f"글 {n}\t{n % 2}" for n in range(4))]  # lines 1 to 5
TEST = ["text\tlabel", "새 글\t0", "딴 글\t1"]  # lines 1 to 3
FLAWS = {
    "empty": (["\t0"], [], "empty documents: 1 in train; first: a.tsv:6"),
    "white space": ([], [" \u3000\t1"], "empty documents: 1 in test; first: b.tsv:4"),
    "duplicate": (["글 2\t0"], [], "duplicate documents: 1 in train; first: a.tsv:4 and a.tsv:6"),
    "overlap": (
        [],
        ["글 1\t1", "글 1\t1"],
        "documents that also stand in train: 2 in test; first: b.tsv:4 and a.tsv:3",
    ),
}


def read(folder: Path, train: list[str], test: list[str], **changes: Any) -> Corpus:
    (folder / "a.tsv").write_text("\n".join(train), "utf-8")
    (folder / "b.tsv").write_text("\n".join(test), "utf-8")
    return table(folder / "a.tsv", test=str(folder / "b.tsv"), validation="test", **changes).read()


@pytest.mark.parametrize("name", FLAWS)
def test_fault_20_doubtful_documents_are_counted_placed_and_refused_if_strict(
    tmp_path: Path, name: str
) -> None:
    train, test, line = FLAWS[name]
    corpus = read(tmp_path, TRAIN + train, TEST + test)
    assert line in corpus.flaws()
    assert line in corpus.warnings
    assert line in corpus.facts()["warnings"]
    with pytest.raises(DataError) as refused:
        corpus.refuse_flaws()
    assert f"\n  - {line}" in refused.value.what
    assert "strict_data=false" in refused.value.fix
    assert (len(corpus.train), len(corpus.test)) == (4 + len(train), 2 + len(test))  # kept otherwise


def test_fault_20_conflicting_duplicates_are_told_apart_from_equal_ones(tmp_path: Path) -> None:
    corpus = read(tmp_path, [*TRAIN, "글 2\t1", "글 2\t0", "글 2\t1", "글 3\t1"], TEST)
    assert corpus.flaws() == [
        "duplicate documents: 4 in train; first: a.tsv:4 and a.tsv:6",
        "documents with several labels: 1 in train; first: a.tsv:4 and a.tsv:6",
    ]
    counts = corpus.facts()["splits"]["train"]
    assert (counts["duplicate_documents"], counts["conflicting_documents"]) == (4, 1)


def test_fault_20_duplicate_ids_are_counted_and_refused_if_strict(tmp_path: Path) -> None:
    train = ["id\ttext\tlabel", "1\t가\t0", "2\t나\t1", "1\t다\t1"]
    corpus = read(tmp_path, train, ["id\ttext\tlabel", "1\t라\t0", "2\t마\t1"])
    assert corpus.flaws() == ["a.tsv: 1 of 3 rows repeat an id"]
    with pytest.raises(DataError, match=r"a\.tsv: 1 of 3 rows repeat an id"):
        corpus.refuse_flaws()


def test_fault_20_documents_of_test_and_validation_in_train_both_show(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text("text\tlabel\n글 0\t0\n새것\t1\n", "utf-8")
    (tmp_path / "b.tsv").write_text("text\tlabel\n글 3\t0\n새 글\t1\n", "utf-8")
    (tmp_path / "a.tsv").write_text("\n".join(TRAIN), "utf-8")
    files = {"validation": str(tmp_path / "c.tsv"), "test": str(tmp_path / "b.tsv")}
    corpus = table(tmp_path / "a.tsv", **files).read()
    assert corpus.flaws() == [
        "documents that also stand in train: 1 in validation, 1 in test; first: c.tsv:2 and a.tsv:2"
    ]
    facts = corpus.facts()
    assert (facts["validation_documents_in_train"], facts["test_documents_in_train"]) == (1, 1)


def test_fault_20_a_pair_is_one_document_and_empty_if_either_part_is(tmp_path: Path) -> None:
    rows = ["text\tpair\tlabel", "가\t나\t0", "가\t다\t1", "나\t가\t1", "가\t\t0"]
    corpus = read(tmp_path, rows, ["text\tpair\tlabel", "가\t라\t0", "가\t나\t1"], pair_column="pair")
    assert corpus.flaws() == [
        "empty documents: 1 in train; first: a.tsv:5",
        "documents that also stand in train: 1 in test; first: b.tsv:3 and a.tsv:2",
    ]


def test_fault_20_a_split_of_one_class_is_told_or_refused(tmp_path: Path) -> None:
    corpus = read(tmp_path, TRAIN, ["text\tlabel", "새 글\t1", "딴 글\t1"])
    assert corpus.flaws() == ["test has only the label ['1']"]
    with pytest.raises(DataError, match=r"train has only the label \['0'\]: there is nothing to classify"):
        read(tmp_path, ["text\tlabel", "가\t0", "나\t0"], TEST)
    # a train of two classes of which a limit leaves one
    many = ["text\tlabel", *(f"글 {n}\t0" for n in range(50)), "글 51\t1"]
    limited = read(tmp_path, many, TEST).limited(1)
    assert "train has only the label ['0']" in limited.flaws()


def test_fault_20_unknown_labels_are_refused_by_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test has and train .* has not: \['7'\]; first: b\.tsv:4"):
        read(tmp_path, TRAIN, [*TEST, "글\t7"])
    (tmp_path / "nsmc").mkdir()
    for split, row in (("train", "5\t글\t2\n"), ("test", "")):
        text = f"id\tdocument\tlabel\n1\t{split} 가\t0\n2\t{split} 나\t1\n{row}"
        (tmp_path / f"nsmc/ratings_{split}.txt").write_text(text, "utf-8")
    corpus = Nsmc("nsmc", str(tmp_path), False, "test", 42, NAMES).read()
    with pytest.raises(DataError, match=r"ratings_train\.txt:4: unknown label '2'"):
        corpus.refuse_flaws()


def test_fault_20_a_corpus_without_flaws_passes_strictness(tmp_path: Path) -> None:
    corpus = read(tmp_path, TRAIN, TEST)
    assert corpus.warnings == []
    corpus.refuse_flaws()
    assert json.loads(json.dumps(corpus.facts())) == corpus.facts()


# Fault 21: caches by content

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "가"]
TEXTS = ["a b c a b", "b", "", "c c 가 a b c"]
PAIRS = ["c", "a a a a a a", "b b", "b c"]


def tokenizer(words: list[str] = WORDS) -> Any:
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)}, do_lower_case=False)


def encode(
    folder: Path, texts: list[str], pairs: list[str] | None, words: Any = None, cleaner: Cleaner = NO_CLEANING
) -> tuple[Encoded, bool]:
    encoder = Encoder(words or tokenizer(), cleaner, folder, overwrite=False)
    return encoder.encode(texts, pairs, [0] * len(texts), range(len(texts)))


def caches(folder: Path) -> set[str]:
    return {path.name for path in (folder / "encodings").iterdir()}


def test_fault_21_one_byte_changed_in_a_text_makes_another_cache(tmp_path: Path) -> None:
    encode(tmp_path, TEXTS, PAIRS)
    before = caches(tmp_path)
    assert len(before) == 2  # one of the texts, one of the second sentences
    for texts, pairs in (([*TEXTS[:3], TEXTS[3][:-1] + "d"], PAIRS), (TEXTS, [*PAIRS[:3], "b d"])):
        known = caches(tmp_path)
        encoded, cached = encode(tmp_path, texts, pairs)
        assert not cached
        assert len(caches(tmp_path) - known) == 1  # only of the column that changed
        theirs = tokenizer()(texts, pairs)["input_ids"]
        lengths = encoded.lengths(99)
        rows = [
            encoded.batch(np.array([n]), 99, int(lengths[n]), 0)["input_ids"][0].tolist() for n in range(4)
        ]
        assert rows == theirs
    assert before < caches(tmp_path)


def test_fault_21_one_byte_changed_in_a_vocabulary_makes_another_cache(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS), "utf-8")
    encode(tmp_path, TEXTS, PAIRS, tokenizer(read_vocabulary(path)))
    assert encode(tmp_path, TEXTS, PAIRS, tokenizer(read_vocabulary(path)))[1]
    path.write_bytes(path.read_bytes().replace(b"\nb\n", b"\nB\n"))
    encoded, cached = encode(tmp_path, TEXTS, PAIRS, tokenizer(read_vocabulary(path)))
    assert not cached
    assert encoded.ids.tolist()[:5] == [5, 1, 7, 5, 1]  # b is unknown now
    assert len(caches(tmp_path)) == 4


@pytest.mark.parametrize(
    "cleaner",
    [Cleaner(allowed="abc "), Cleaner(remove_emoji=True), Cleaner(remove_urls=True), Cleaner(max_repeats=2)],
    ids=str,
)
def test_fault_21_another_cleaner_makes_another_cache(tmp_path: Path, cleaner: Cleaner) -> None:
    encode(tmp_path, TEXTS, PAIRS)
    assert not encode(tmp_path, TEXTS, PAIRS, cleaner=cleaner)[1]
    assert len(caches(tmp_path)) == 4


def test_fault_21_another_encoder_version_makes_another_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(tmp_path, TEXTS, PAIRS)
    monkeypatch.setattr(encoding, "VERSION", encoding.VERSION + 1)
    assert not encode(tmp_path, TEXTS, PAIRS)[1]
    assert len(caches(tmp_path)) == 4


@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["texts", "pairs"])
def test_fault_21_another_length_takes_the_same_cache_cut_as_the_tokenizer_cuts(
    tmp_path: Path, pairs: list[str] | None
) -> None:
    encode(tmp_path, TEXTS, pairs)
    before = files_in(tmp_path)
    encoded, cached = encode(tmp_path, TEXTS, pairs)
    assert cached
    for length in range(4, 14):
        theirs = tokenizer()(TEXTS, pairs, truncation=True, max_length=length, padding="max_length")
        ours = encoded.batch(np.arange(4), length, length, 0)
        assert {name: value.tolist() for name, value in ours.items()} == dict(theirs)
    assert files_in(tmp_path) == before


# Fault 22: processes that build one cache

BUILDER = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from bunryu.encoding import cache

folder, killed_at = Path(sys.argv[1]), sys.argv[2]
ids = np.arange(50_000, dtype=np.uint16)

def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)

def half(path, array):
    path.write_bytes(array.tobytes()[: array.nbytes // 2])
    print("half written", flush=True)
    time.sleep(60)

if killed_at == "ids half written":
    np.save = half
elif killed_at == "checksums":
    cache.sha256 = die
elif killed_at == "rename":
    os.rename = die
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    cache.store_arrays(folder, ids, np.array([0, 50_000]))
    arrays = cache.load_arrays(folder)
    assert arrays is None or (arrays[0].tolist() == ids.tolist() and arrays[1].tolist() == [0, 50_000])
"""


def builder(folder: Path, killed_at: str = "") -> subprocess.Popen[str]:
    """A process that waits for a line before it builds."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-c", BUILDER, str(folder), killed_at], text=True, **pipes)
    return child


def start(*children: subprocess.Popen[str]) -> None:
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def test_fault_22_four_processes_build_one_cache_and_one_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "encodings" / "one"
    victim, *others = (builder(folder, "ids half written"), *(builder(folder) for _ in range(3)))
    start(victim, *others)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "half written\n"
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=60)
    assert victim.returncode == -signal.SIGKILL
    for child in others:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    (left,) = [path for path in folder.parent.iterdir() if path.name != "one"]
    assert left.name.startswith(".building-")
    assert (left / "new/ids.npy").stat().st_size == 50_000  # the half of it, which is in nobody's way
    arrays = cache.load_arrays(folder)
    assert arrays is not None
    assert arrays[0].tolist() == list(range(50_000))


@pytest.mark.parametrize("point", ["checksums", "rename"])
@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "a cache there"])
def test_fault_22_a_builder_killed_at_any_point_leaves_a_whole_cache_or_none(
    tmp_path: Path, point: str, there: bool
) -> None:
    folder = tmp_path / "encodings" / "one"
    good = np.arange(50_000, dtype=np.uint16), np.array([0, 50_000])
    if there:
        cache.store_arrays(folder, *good)
    child = builder(folder, point)
    start(child)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    arrays = cache.load_arrays(folder)
    # between the old one's leaving and the new one's coming there is none, which is no harm
    assert (arrays is not None) == (there and point == "checksums")
    assert arrays is None or arrays[0].tolist() == good[0].tolist()
    cache.store_arrays(folder, *good)
    arrays = cache.load_arrays(folder)
    assert arrays is not None
    assert arrays[0].tolist() == good[0].tolist()


@pytest.mark.parametrize("name", ["ids.npy", "offsets.npy", "checksums.json"])
def test_fault_22_half_a_file_is_never_trusted(tmp_path: Path, name: str) -> None:
    encode(tmp_path, TEXTS, None)
    (key,) = caches(tmp_path)
    path = tmp_path / "encodings" / key / name
    whole = path.read_bytes()
    cut = [whole[:size] for size in random.Random(1).sample(range(len(whole)), 10)]
    zeroed = [half.ljust(len(whole), b"\0") for half in cut]  # as a power cut may leave it: the right length
    for half in (half for half in [*cut, *zeroed] if half != whole):
        path.write_bytes(half)
        encoded, cached = encode(tmp_path, TEXTS, None)
        assert not cached
        assert encoded.ids.tolist() == [5, 6, 7, 5, 6, 6, 7, 7, 9, 5, 6, 7]
        assert path.read_bytes() == whole


def test_fault_22_what_killed_builders_left_is_removed_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "encodings" / "one"
    ages = {".building-old": 25, ".building-new": 23, "another": 1000}
    for name, hours in ages.items():
        (folder.parent / name / "new").mkdir(parents=True)
        (folder.parent / name / "new/ids.npy").write_bytes(b"half")
        os.utime(folder.parent / name, (time.time() - hours * 3600,) * 2)
    cache.store_arrays(folder, np.zeros(3, dtype=np.uint16), np.array([0, 3]))
    assert caches(tmp_path) == {".building-new", "another", "one"}
