from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.recordings.estimate import Options, estimate, free_disk, free_memory, limit_for
from app.recordings.kept import Request
from app.recordings.outlook import Outlook
from app.recordings.planner import main, outlook
from app.recordings.record_sentences import of_disk, of_memory, of_room
from app.recordings.worker import Ledger, record
from routing import RecordingError, TaskError, open_trace, read_tasks, summary
from tests.app.asked_recordings import outlook_of
from tests.tiny import save_tiny
from tests.tiny_systems import SYSTEMS, TASKS, save_tiny_system


def tasks_in(folder: Path, n_prompts: int, *, tasks=("even", "odd"), **columns) -> Path:
    rows = [
        {"text": f"is number {n} of the many numbers {task}?", "task": task, "metric": "none"} | columns
        for task in tasks
        for n in range(n_prompts)
    ]
    path = folder / f"{'-'.join(tasks)}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(folder: Path, tasks: Path, options: Options, out: Path) -> tuple[int, int]:
    """Rows and bytes of a true recording."""
    request = Request(
        model=str(folder),
        tasks=(str(tasks),),
        out=str(out),
        level=options.level,
        limit=options.limit,
        max_new_tokens=options.max_new_tokens,
        n_runners_up=options.n_runners_up,
        device="cpu",
    )
    record(request, Ledger(out.parent), folder=out.parent)
    found = summary(open_trace(out))
    return found.n_tokens, found.disk_bytes or 0


@pytest.mark.parametrize(
    ("family", "changes", "options"),
    [
        ("olmoe", {}, Options(max_new_tokens=0)),
        ("olmoe", {"num_experts": 32}, Options(level="assignments", max_new_tokens=0, limit=40, n_runners_up=2)),
        ("olmoe", {}, Options(level="counts", max_new_tokens=0)),
        ("switch", {}, Options(max_new_tokens=0)),
        ("hypermoe", {}, Options(max_new_tokens=0)),
        ("pha", {}, Options(max_new_tokens=0)),
        ("task_moe", {}, Options(max_new_tokens=0)),
    ],
)
def test_the_estimate_of_the_disk_is_near_what_a_recording_takes(tmp_path, family, changes, options):
    save, names = (save_tiny_system, TASKS[:2]) if family in SYSTEMS else (save_tiny, ("even", "odd"))
    folder = save(tmp_path / "model", family, **changes)
    tasks = tasks_in(tmp_path, 60, tasks=names)
    size = estimate(outlook(str(folder), read_tasks(tasks)), names, options)
    n_rows, n_bytes = made(folder, tasks, options, tmp_path / "one")
    assert size.n_rows == pytest.approx(n_rows, rel=0.02)
    assert size.disk_bytes == pytest.approx(n_bytes, rel=0.3)


def test_answers_count_as_expected_and_at_most(tmp_path):
    folder = save_tiny(tmp_path / "model", max_position_embeddings=256)
    tasks = tasks_in(tmp_path, 4, tasks=("even",), options=[" yes", " no"], target=" yes", metric="accuracy")
    size = estimate(outlook(str(folder), read_tasks(tasks)), ("even",), Options())
    n_rows, _ = made(folder, tasks, Options(), tmp_path / "one")
    # The chosen option is fed behind the prompt, four bytes or three.
    assert n_rows == pytest.approx(size.n_rows, abs=2)
    free = tasks_in(tmp_path, 4, tasks=("odd",), target=" yes", metric="exact_match")
    size = estimate(outlook(str(folder), read_tasks(free)), ("odd",), Options(max_new_tokens=12))
    n_rows, _ = made(folder, free, Options(max_new_tokens=12), tmp_path / "two")
    # A model with random weights goes on to the limit.
    assert size.n_rows == 4 * (size.most_rows / 4 - 11 + 4)
    assert n_rows == pytest.approx(size.most_rows, abs=4)


def test_a_model_that_is_told_tasks_is_offered_those_that_it_knows(tmp_path):
    folder = save_tiny_system(tmp_path / "model", "task_moe")
    tasks = tasks_in(tmp_path, 3, tasks=(TASKS[0], "unheard"), target=" yes")
    seen = outlook(str(folder), read_tasks(tasks))
    assert [(each.name, each.is_known) for each in seen.tasks] == [(TASKS[0], True), ("unheard", False)]
    assert seen.by_prompt
    assert estimate(seen, (TASKS[0],), Options()).n_rows == 3
    retriever = save_tiny_system(tmp_path / "pha", "pha")
    assert all(each.is_known for each in outlook(str(retriever), read_tasks(tasks)).tasks)


def test_a_row_takes_what_the_format_says():
    size = estimate(outlook_of(), ("even",), Options(n_runners_up=4))
    # A layer: 6 ids of a byte, 6 scores, 2 weights and 16 logits of two; a row: 4 columns of four bytes, 2 of one.
    assert size.row_bytes == 8 * (6 + 2 * (6 + 2 + 16)) + 4 * 4 + 2
    assert (size.n_rows, size.n_decisions) == (5000, 40_000)
    assert estimate(outlook_of(), ("even",), Options(level="assignments")).row_bytes == size.row_bytes - 8 * 16 * 2
    counts = estimate(outlook_of(), ("even",), Options(level="counts"))
    assert counts.disk_bytes < size.disk_bytes / 10


def test_weights_count_where_they_lie():
    assert not estimate(outlook_of(), ("even",), Options()).is_on_host
    on_cpu = estimate(outlook_of(), ("even",), Options(device="cpu"))
    assert on_cpu.is_on_host
    assert on_cpu.weight_bytes == 4_000_000  # float32 on a CPU
    assert estimate(outlook_of(), ("even",), Options(dtype="bfloat16", device="cpu")).weight_bytes == 2_000_000
    assert "cuda:0" in of_memory(estimate(outlook_of(), ("even",), Options()), outlook_of(), Options())


def test_a_budget_of_tokens_becomes_a_limit_of_prompts_for_each_task():
    seen = outlook_of()
    assert limit_for(seen, ("even", "odd"), Options(), most_rows=2000) == 30  # 30 and 10 prompts of 50 tokens
    assert estimate(seen, ("even", "odd"), Options(limit=30)).n_rows == 2000
    assert limit_for(seen, ("even", "odd"), Options(), most_rows=99) is None
    assert limit_for(seen, ("even", "odd"), Options(), most_rows=10**9) == 100


def test_what_does_not_fit_is_said_in_a_sentence(tmp_path):
    size = estimate(outlook_of(), ("even",), Options())
    disk, memory = of_room(size, free=1000, memory=1000, folder="runs")
    assert disk.startswith("The disk of runs has 1.0 kB free, but this recording may take")
    assert memory.startswith("This machine has 1.0 kB of memory free")
    assert of_room(size, free=10**15, memory=None, folder="runs") == ("", "")
    assert free_disk(tmp_path / "not" / "yet") > 0
    assert free_memory() is None or free_memory() > 0


def test_routers_that_tell_their_size_in_a_forward_only_leave_the_size_open():
    seen = outlook_of(layers=())
    size = estimate(seen, ("even",), Options())
    assert size.disk_bytes is None
    assert "not known before" in of_disk(size, seen, Options())


def test_an_outlook_travels_as_text(tmp_path):
    assert Outlook.read(outlook_of().written()) == outlook_of()


@pytest.mark.parametrize("what", ["dense", "no weights", "no tokenizer", "no config"])
def test_a_model_that_cannot_be_recorded_is_refused_before_it_is_loaded(tmp_path, what):
    folder, tasks = tmp_path / "model", tasks_in(tmp_path, 2)
    if what == "dense":
        from transformers import LlamaConfig, LlamaForCausalLM

        LlamaForCausalLM(
            LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
        ).save_pretrained(folder)
    else:
        save_tiny(folder, tokenizer=what != "no tokenizer")
        for path in folder.glob({"no weights": "*.safetensors", "no config": "config.json"}.get(what, "-")):
            path.unlink()
    told = {
        "dense": "has no router that can be read",
        "no weights": "holds no safetensors files",
        "no tokenizer": "without a tokenizer",
        "no config": "holds no config.json",
    }
    with pytest.raises(RecordingError, match=told[what]):
        outlook(str(folder), read_tasks(tasks))
    main(tmp_path, {"model": str(folder), "tasks": [str(tasks)]})
    assert told[what] in (tmp_path / "problem.txt").read_text()
    assert not (tmp_path / "outlook.json").exists()


def test_a_part_of_the_tasks_is_recorded_where_it_is_asked_for(tmp_path):
    tasks = read_tasks(tasks_in(tmp_path, 2))
    assert [each.name for each in tasks.only(["odd"]).tasks] == ["odd"]
    assert {each.task for each in tasks.only(["odd"])} == {"odd"}
    with pytest.raises(TaskError, match="no task 'prime'"):
        tasks.only(["prime"])


def test_columns_that_nobody_can_read_are_told_before(tmp_path):
    folder = save_tiny(tmp_path / "model")
    (tmp_path / "asked.jsonl").write_text('{"words": "a"}\n')
    main(tmp_path, {"model": str(folder), "tasks": [str(tmp_path / "asked.jsonl")]})
    assert "asked.jsonl, line 1 has the columns ['words']" in (tmp_path / "problem.txt").read_text()
    (tmp_path / "empty.jsonl").write_text("")
    main(tmp_path, {"model": str(folder), "tasks": [str(tmp_path / "empty.jsonl")]})
    assert "holds no rows" in (tmp_path / "problem.txt").read_text()


def test_a_hub_that_cannot_be_reached_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("app.recordings.planner.ENDPOINT", "https://localhost:1")
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    main(tmp_path, {"model": "nobody/nothing", "tasks": [str(tasks_in(tmp_path, 1))]})
    assert "The model hub cannot be reached from this machine" in (tmp_path / "problem.txt").read_text()
