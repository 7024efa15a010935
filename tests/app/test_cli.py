"""The command line: what it prints, how it ends, and what it does not import."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from app.commands.terminal import bytes_in_words, printable
from routing import open_trace, save_trace
from tests.tiny import save_tiny
from tests.traces import null_trace, planted_trace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "olmoe", max_position_embeddings=256)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "asked.jsonl"
    rows = [
        {"text": f"is {n} even?", "target": " yes", "options": [" yes", " no"], "task": "even", "metric": "accuracy"}
        for n in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments], env={"COLUMNS": "200"})


def test_record_info_verify_pack(model: Path, tasks: Path, tmp_path: Path) -> None:
    recorded = run("record", model, "--tasks", tasks, "--out", tmp_path / "trace", "--batch-size", 4, "--runners-up", 2)
    assert recorded.exit_code == 0, recorded.output
    assert "6 prompts of 1 tasks" in recorded.output
    assert "tokens/s" in recorded.output
    assert re.search(r"even\s+other\s+accuracy\s+6\s+[01]\.\d{3}", recorded.output)
    trace = open_trace(tmp_path / "trace")
    assert trace.n_ranks == 4
    assert trace.provenance.tasks == str(tasks)
    assert trace.provenance.seed == 0

    told = run("info", tmp_path / "trace").output
    assert "3 layers, top-2 of 8 experts, 2 runners-up" in told
    assert "replay in 3 layers" in told
    assert len(told.splitlines()) < 30

    checked = run("verify", tmp_path / "trace")
    assert (checked.exit_code, checked.output.split()[0]) == (0, "sound")

    packed = run("pack", tmp_path / "trace", tmp_path / "packed")
    assert packed.exit_code == 0
    assert open_trace(tmp_path / "packed").n_tokens == trace.n_tokens
    assert run("verify", tmp_path / "packed").exit_code == 0


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = save_trace(planted_trace(seed=0, n_tasks=2), tmp_path / "trace")
    chunk = next((path / "trace.zarr" / "experts").rglob("c/0/*/*"))
    content = bytearray(chunk.read_bytes())
    content[7] ^= 1
    chunk.write_bytes(content)
    checked = run("verify", path)
    assert checked.exit_code == 1
    assert "unsound" in checked.output


def test_what_recording_costs_is_measured_on_request(model: Path, tasks: Path, tmp_path: Path) -> None:
    done = run(
        "record", model, "--tasks", tasks, "--out", tmp_path / "trace", "--measure-overhead", "--level", "assignments"
    )
    assert done.exit_code == 0, done.output
    overhead = open_trace(tmp_path / "trace").provenance.overhead
    assert overhead["level"] == "assignments"
    assert overhead["low"] <= overhead["ratio"] <= overhead["high"]
    assert "measured here" in run("info", tmp_path / "trace").output
    assert [each.name for each in tmp_path.iterdir()] == ["trace"]  # what was measured on is gone


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("record", "{model}", "--tasks", "/no/such/file.jsonl"), "no/such/file"),
        (("record", "./no-model", "--tasks", "{tasks}"), "no model folder"),
        (("record", "{model}", "--tasks", "{empty}"), "empty"),
        (("info", "{folder}"), "is no trace"),
        (("verify", "{folder}"), "is no trace"),
        (("pack", "{folder}", "{folder}/packed"), "is no trace"),
    ],
)
def test_errors_are_sentences(
    arguments: tuple[str, ...], sentence: str, model: Path, tasks: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").touch()
    names = {"model": model, "tasks": tasks, "empty": tmp_path / "empty.jsonl", "folder": tmp_path}
    done = run(*(each.format(**names) for each in arguments))
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_a_second_recording_into_a_folder_is_refused(model: Path, tasks: Path, tmp_path: Path) -> None:
    asked = ("record", model, "--tasks", tasks, "--out", tmp_path / "trace", "--limit", 1)
    assert run(*asked).exit_code == 0
    again = run(*asked)
    assert again.exit_code == 2
    assert "already holds a trace" in " ".join(again.output.split())


def test_names_cannot_move_the_cursor_or_be_markup(tmp_path: Path) -> None:
    trace = planted_trace(seed=0, n_tasks=1)
    prompts = trace.prompts.assign(task="\x1b[2J[bold]red\u202e")
    parts = {name: getattr(trace, name).values for name in ("experts", "scores", "weights", "logits")}
    evil = type(trace).from_arrays(
        parts.pop("experts"), layer_facts=trace.layer_facts, tokens=trace.tokens, prompts=prompts, **parts
    )
    told = run("info", save_trace(evil, tmp_path / "trace")).output
    assert "\x1b[2J" not in told
    assert "\u202e" not in told
    assert "[bold]red" in told


def test_printable_keeps_texts_and_spells_out_controls() -> None:
    assert printable("naïve 東京 <b>") == "naïve 東京 <b>"
    assert printable("a\x1b[2J\u202eb\x00") == "a\\x1b[2J\\u202eb\\x00"


@pytest.mark.parametrize("n, words", [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")])
def test_sizes_in_words(n: float, words: str) -> None:
    assert bytes_in_words(int(n)) == words


def test_only_recording_imports_torch() -> None:
    program = (
        "import sys, app.cli; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'streamlit')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_an_interrupt_leaves_a_trace_that_can_be_opened(model: Path, tmp_path: Path) -> None:
    rows = [{"text": "word " * 40, "target": " x", "task": "long", "metric": "exact_match"} for _ in range(4000)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # A shell starts what runs in the background with interrupts ignored, and a child inherits that.
    program = """
        import signal, sys
        from app.cli import main
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["routescope", *sys.argv[1:]]
        main()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), "record", str(model), "--tasks", "long.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--out", "trace", "--batch-size", "2"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        log = tmp_path / "trace" / "commits.jsonl"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text().count("crc32") >= 3) and time.monotonic() < deadline:
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        try:
            output, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 130, output
    assert "Traceback" not in output
    trace = open_trace(tmp_path / "trace")
    assert trace.n_tokens > 0
    assert not trace.provenance.complete
    assert f"The {trace.n_tokens:,} tokens recorded so far can be opened" in " ".join(output.split())
    assert "not finished" in " ".join(run("info", tmp_path / "trace").output.split())


def test_findings_are_told_in_sentences_and_in_json(tmp_path: Path) -> None:
    save_trace(planted_trace(seed=1, popular={(2, 3): 4.0}, n_tasks=3), tmp_path / "run")
    told = run("findings", tmp_path / "run")
    assert told.exit_code == 0, told.output
    assert re.search(r"^ 1 L02·E3 takes [\d.]+ \[", told.output, re.MULTILINE)
    assert "in the app: /load?layers=L02&experts=L02.E3" in told.output
    assert "false-discovery rate of 5%" in told.output
    document = json.loads(run("findings", tmp_path / "run", "--json").output)
    first = document["findings"][0]
    assert (first["kind"], first["view"], first["link"]) == ("uneven", "load", "/load?layers=L02&experts=L02.E3")
    assert first["effect_low"] < first["effect"] < first["effect_high"]
    assert first["q_value"] <= document["false_discovery_rate"]


def test_findings_keep_silent_where_nothing_holds(tmp_path: Path) -> None:
    save_trace(null_trace(seed=0, n_tasks=3), tmp_path / "null")
    assert "Nothing holds up" in run("findings", tmp_path / "null").output
    assert json.loads(run("findings", tmp_path / "null", "--json").output)["findings"] == []
    refused = run("findings", tmp_path / "nowhere")
    assert refused.exit_code == 2
