"""Several processes record one trace: each its own part, and the folder opens as a whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from routing import open_trace, verify_trace

PROGRAM = """
    import sys
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from hooks import Recorder
    from routing import Prompt
    from tests.tiny import byte_tokenizer, tiny_model

    rank, out = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = DistributedDataParallel(tiny_model())
    text = ["first text", "second"][rank]
    with torch.no_grad(), Recorder(model, byte_tokenizer(), out=out) as recorder:
        with recorder.labelled([Prompt(id=text, text=text)]):
            model(torch.tensor([byte_tokenizer()(text)["input_ids"]]))
        model(torch.tensor([[9, 8, 7 + rank]]))
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_each_rank_writes_a_part_of_one_trace(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(root), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    children = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "trace")], cwd=root, env=environment) for rank in (0, 1)
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    trace = open_trace(tmp_path / "trace")
    assert verify_trace(tmp_path / "trace") == []
    assert trace.prompts["prompt"].tolist() == [
        "first text",
        "unlabelled-part-00000-000000",
        "second",
        "unlabelled-part-00001-000000",
    ]
    assert trace.n_tokens == len("first text") + len("second") + 6
    assert trace.tokens["token_id"].tolist()[-3:] == [9, 8, 8]
    # The wrapper's own name is no part of the modules' paths.
    assert trace.layer_facts[0].module == "model.layers.0.mlp"
