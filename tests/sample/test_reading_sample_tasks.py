"""The project's own reader turns sample_tasks/ into the prompts that its card describes."""

import json
from pathlib import Path

from routing import read_tasks

FOLDER = Path(__file__).resolve().parents[2] / "sample_tasks"


def test_prompts_are_those_that_the_card_describes():
    header = json.loads((FOLDER / "tasks.json").read_text(encoding="utf-8"))["tasks"]
    task_set = read_tasks(FOLDER)
    prompts = {prompt.id: prompt for prompt in task_set}
    assert [task.name for task in task_set.tasks] == [task["name"] for task in header]
    n_rows = 0
    for task in header:
        assert task_set.task(task["name"]).features == task["features"]
        assert task_set.task(task["name"]).metric == task["metric"]
        for line in (FOLDER / task["file"]).read_text(encoding="utf-8").splitlines():
            row, n_rows = json.loads(line), n_rows + 1
            prompt = prompts[row["id"]]
            assert prompt.text == f"{task['instruction']}\n{row['input']}\nanswer:"
            assert (prompt.task, prompt.task_type) == (task["name"], task["task_type"])
            assert prompt.target == " " + row["output"]
            assert prompt.options == tuple(" " + option for option in row.get("options", ()))
            assert {answer.strip() for answer in prompt.answers} >= set(row.get("answers", ()))
            assert prompt.extra.get("subtask") == row.get("subtask")
    assert len(task_set) == n_rows
