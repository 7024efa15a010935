"""Small backbones for tests of the recipes that stand on one; trained once a session."""

import json
from pathlib import Path

from moe_models.recipes.backbone import main
from tests.moe_models.small_corpus import write_corpus

SIZES = {"hidden_size": 16, "n_encoder_layers": 2, "n_decoder_layers": 2, "n_heads": 2, "feed_forward": 24}
SIZES |= {"vocab_size": 340, "source_length": 64}


def backbone(folder: Path, *, kind: str, corpus: Path, steps: int = 3, extra: tuple[str, ...] = ()) -> Path:
    """Pretrain a tiny backbone and return its folder."""
    out = folder / kind
    told = ["--kind", kind, "--data", str(corpus), "--out", str(out), "--rows", "4", "--window", "24"]
    told += ["--steps", str(steps), "--device", "cpu", "--architecture", json.dumps(SIZES)]
    assert main([*told, "--log-every", "1", "--check-every", "100", *extra]) == 0
    return out


def corpus_and_backbone(folder: Path, *, kind: str) -> tuple[Path, Path]:
    """Write the small corpus and pretrain a backbone on it."""
    corpus = write_corpus(folder / "corpus")
    return corpus, backbone(folder, kind=kind, corpus=corpus)
