"""Tasks from files: every form, and a clear word on every fault."""

import gzip
import json
import sys
import types

import pandas as pd
import pytest

from routing import Prompt, Task, TaskError, TaskSet, prompt_text, read_tasks


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def task_folder(tmp_path, *, rows=None, **entry):
    entry = {"name": "sums", "task_type": "maths", "metric": "exact_match", "instruction": "Add.", **entry}
    listing = {"format": "routescope-tasks/1", "tasks": [entry]}
    (tmp_path / "tasks.json").write_text(json.dumps(listing), "utf-8")
    write_lines(tmp_path / "sums.jsonl", rows or [{"input": "1 + 1", "output": "2"}])
    return tmp_path


def test_a_folder_with_a_listing(tmp_path):
    rows = [
        {"id": "a", "input": "1 + 1", "output": "2", "answers": ["2", "two"], "level": 1},
        {"input": "x", "output": 3},
    ]
    tasks = read_tasks(task_folder(tmp_path, rows=rows, features={"needs": "arithmetic"}, max_new_tokens=5))
    assert tasks.task("sums") == Task(
        name="sums", task_type="maths", metric="exact_match", instruction="Add.", max_new_tokens=5,
        features={"needs": "arithmetic"},
    )  # fmt: skip
    first, second = tasks
    assert first == Prompt(
        id="a", text="Add.\n1 + 1\nanswer:", task="sums", task_type="maths", target=" 2", answers=(" 2", " two"),
        extra={"level": 1},
    )  # fmt: skip
    assert (second.id, second.target) == ("sums-0001", " 3")


def test_text_and_target_are_used_verbatim(tmp_path):
    path = write_lines(tmp_path / "mood.jsonl", [{"text": "Good?", "target": "yes", "options": ["yes", "no"]}])
    (prompt,) = read_tasks(path)
    assert (prompt.text, prompt.target, prompt.options) == ("Good?", "yes", ("yes", "no"))
    assert read_tasks(path).task("mood").metric == "accuracy"


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl.gz"])
def test_other_kinds_of_files(tmp_path, kind):
    rows = [
        {
            "question": 'Bank, "river"?\nyes',
            "answer": "land",
            "options": '["land", "money"]',
            "task": "a",
            "task_type": "t",
        },
        {"question": "Café", "answer": "cup", "options": "cup | mug", "task": "b", "task_type": "u"},
    ]
    path = tmp_path / f"words.{kind}"
    if kind == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif kind == "parquet":
        for row, options in zip(rows, (["land", "money"], ["cup", "mug"]), strict=True):
            row["options"] = options
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    tasks = read_tasks(path)
    assert [task.name for task in tasks.tasks] == ["a", "b"]
    assert [prompt.text for prompt in tasks] == ['Bank, "river"?\nyes', "Café"]
    assert [prompt.options for prompt in tasks] == [(" land", " money"), (" cup", " mug")]


def test_columns_are_mapped(tmp_path):
    path = write_lines(tmp_path / "q.jsonl", [{"frage": "Wer?", "antwort": "Ich", "quelle": "Buch"}])
    (prompt,) = read_tasks(path, columns={"input": "frage", "output": "antwort", "source": "quelle"})
    assert (prompt.text, prompt.target, prompt.source, prompt.extra) == ("Wer?", " Ich", "Buch", {})
    with pytest.raises(TaskError, match=r"line 1 has no column 'reply' for output; it has \['antwort'"):
        read_tasks(path, columns={"input": "frage", "output": "reply"})


def test_several_sources_and_a_limit(tmp_path):
    one = write_lines(tmp_path / "one.jsonl", [{"input": str(number), "output": "x"} for number in range(20)])
    two = write_lines(tmp_path / "two.jsonl", [{"input": "y", "output": "x"}])
    tasks = read_tasks([one, two], limit=3, seed=1)
    assert [prompt.task for prompt in tasks] == ["one"] * 3 + ["two"]
    assert read_tasks([one, two], limit=3, seed=1).digest == tasks.digest
    assert read_tasks([one, two], limit=3, seed=2).digest != tasks.digest
    assert len(read_tasks(tmp_path)) == 21


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no rows"),
        (b"\n\n", "holds no rows"),
        (b'{"input": "a"}\n{"input": \n', r"line 2 is not JSON"),
        (b'["a"]\n', "line 1 holds a list"),
        (b'{"input": "caf\xe9"}\n', "line 1 is not UTF-8: byte 0xe9 at 14"),
        (b'{"inputs": "a"}\n', r"line 1 has the columns \['inputs'\], but none of \['text', 'input'\]"),
        (b'{"input": ""}\n', "none of"),
        (b'{"input": {"a": 1}}\n', "line 1 has a dict as input"),
        (b'{"input": "a", "id": "x"}\n{"input": "b", "id": "x"}\n', "'x' occurs more than once"),
        (b'{"input": "a", "output": "c", "options": ["a", "b"]}\n', "none of its options"),
        (b'{"input": "a", "output": "a", "options": ["a", "a"]}\n', "names an option twice"),
        (b'{"input": "a", "metric": "bleu"}\n', "has the metric 'bleu'; known are"),
        (b'{"input": "\\ud800"}\n', "line 1 holds half a surrogate pair"),
        (b'{"input": "a", "options": "[1,"}\n', "start like a JSON list"),
    ],
)
def test_a_faulty_file_is_refused_by_place(tmp_path, content, message):
    path = tmp_path / "task.jsonl"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message):
        read_tasks(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is not a CSV table"),
        ("t.csv", b"input,output\na,b,c,d\n", "is not a CSV table"),
        ("t.csv", b"input,output\n", "holds no rows"),
        ("t.csv", b"input\n\xff\n", "line 2 is not UTF-8"),
        ("t.parquet", b"PAR1 but not quite", "is not a Parquet table"),
        ("t.jsonl.gz", b"\x1f\x8b\x08", "cannot be read"),
        ("t.txt", b"hello", "is no task file"),
    ],
)
def test_a_file_that_is_not_its_kind_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message):
        read_tasks(path)


def test_missing_things_are_refused(tmp_path):
    with pytest.raises(TaskError, match="does not exist"):
        read_tasks(tmp_path / "none.jsonl")
    with pytest.raises(TaskError, match="neither a tasks.json nor a task file"):
        read_tasks(tmp_path)
    with pytest.raises(TaskError, match="No task file was named"):
        read_tasks([])
    with pytest.raises(TaskError, match="limit is 0"):
        read_tasks(tmp_path, limit=0)


def test_a_listing_that_lists_nothing_sound_is_refused(tmp_path):
    task_folder(tmp_path, file="gone.jsonl")
    with pytest.raises(TaskError, match=r"gone\.jsonl does not exist"):
        read_tasks(tmp_path)
    (tmp_path / "tasks.json").write_text('{"format": "routescope-tasks/9", "tasks": []}')
    with pytest.raises(TaskError, match=r"'routescope-tasks/9', but this RouteScope reads 'routescope-tasks/1'"):
        read_tasks(tmp_path)
    (tmp_path / "tasks.json").write_text('{"tasks": ')
    with pytest.raises(TaskError, match="is no list of tasks"):
        read_tasks(tmp_path)


def test_two_descriptions_of_one_task_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = task_folder(tmp_path / "a"), task_folder(tmp_path / "b", instruction="Subtract.")
    with pytest.raises(TaskError, match="describes the task 'sums' otherwise"):
        read_tasks([one, two])


def test_the_table_keeps_extras_but_not_over_our_own_columns():
    prompts = (
        Prompt(id="a", text="x", task="t", options=(" y", " n"), extra={"hard": 1, "score": 9, "span": {"at": 2}}),
        Prompt(id="b", text="x", task="t", extra={"hard": "very"}),
    )
    table = TaskSet(tasks=(Task(name="t"),), prompts=prompts).table()
    assert table["hard"].tolist() == ["1", "very"]
    assert "score" not in table
    assert json.loads(table["options"].iloc[0]) == [" y", " n"]


def test_task_sets_are_checked():
    with pytest.raises(TaskError, match="no prompts"):
        TaskSet(tasks=(Task(name="t"),), prompts=())
    with pytest.raises(TaskError, match="not one of"):
        TaskSet(tasks=(), prompts=(Prompt(id="a", text="x"),))
    with pytest.raises(TaskError, match="named more than once"):
        TaskSet(tasks=(Task(name="t"), Task(name="t")), prompts=())
    assert prompt_text("Do.", "it") == "Do.\nit\nanswer:"


def test_a_hub_set_needs_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match="`datasets`, which is not installed"):
        read_tasks("hf:squad")


def test_a_hub_set_is_read_with_its_labels(monkeypatch):
    class Rows(list):
        features = {"label": types.SimpleNamespace(names=["bad", "good"]), "question": object()}

    loaded = []

    def load_dataset(name, config, *, split):
        loaded.append((name, config, split))
        return Rows([{"question": "Well?", "label": 1, "answers": {"text": ["good"], "start": [0]}}])

    library = types.SimpleNamespace(load_dataset=load_dataset, get_dataset_split_names=lambda *_: ["train", "test"])
    monkeypatch.setitem(sys.modules, "datasets", library)
    (prompt,) = read_tasks("hf:org/reviews")
    assert (prompt.task, prompt.text, prompt.target, prompt.answers) == ("reviews", "Well?", " good", (" good",))
    read_tasks("hf:glue:sst2")
    read_tasks("hf:imdb:test")
    read_tasks("hf:glue:sst2:train")
    assert loaded == [
        ("org/reviews", None, "test"), ("glue", "sst2", "test"), ("imdb", None, "test"), ("glue", "sst2", "train"),
    ]  # fmt: skip


def test_a_path_that_leads_nowhere_is_told_as_such_whatever_its_ending(tmp_path):
    for name in ("nowhere", "nowhere.jsonl"):
        with pytest.raises(TaskError, match="does not exist"):
            read_tasks(tmp_path / name)
