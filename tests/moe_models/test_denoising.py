import pytest
import torch

from moe_models.recipes.corpus import read_rows, trainable_rows
from moe_models.recipes.denoising import Denoiser, noise_spans
from moe_models.recipes.running_text import DenoisingBatches, documents_of, token_stream
from moe_models.recipes.tokenization import END, MASK, sentinel, train_text_to_text_tokenizer
from tests.moe_models.small_corpus import write_corpus

WINDOWS = torch.arange(100, 112).repeat(3, 1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(monkeypatch, noise):
    """Have these places be noise, whatever is drawn."""
    mask = torch.tensor([noise], dtype=torch.bool)
    starts = mask & ~torch.nn.functional.pad(mask, (1, 0))[:, :-1]
    span = (starts.cumsum(1) - 1).clamp(min=0)
    monkeypatch.setattr("moe_models.recipes.denoising.noise_spans", lambda *_, **__: (mask, span))


def test_a_pair_of_spans_by_hand(monkeypatch):
    # 10 11 [12 13] 14 [15] 16 17: 3 of 8 tokens, in 2 spans.
    planted(monkeypatch, [0, 0, 1, 1, 0, 1, 0, 0])
    denoiser = Denoiser(density=3 / 8, mean_span=1.5, end=0, mask=2, first_sentinel=3)
    window = torch.arange(10, 18)[None]
    source, target = denoiser.pair(window, objective="spans", generator=generator())
    assert source.tolist() == [[10, 11, 3, 14, 4, 16, 17]]
    assert target.tolist() == [[3, 12, 13, 4, 15, 0]]


def test_a_pair_of_infilling_by_hand(monkeypatch):
    planted(monkeypatch, [0, 0, 1, 1, 0, 1, 0, 0])
    denoiser = Denoiser(density=3 / 8, mean_span=1.5, end=0, mask=2)
    source, target = denoiser.pair(torch.arange(10, 18)[None], objective="infilling", generator=generator())
    assert source.tolist() == [[10, 11, 2, 14, 2, 16, 17]]
    assert target.tolist() == [[10, 11, 12, 13, 14, 15, 16, 17, 0]]


def test_a_continuation_is_the_second_half():
    source, target = Denoiser().pair(WINDOWS, objective="continuation", generator=generator())
    assert source.tolist()[0] == list(range(100, 106))
    assert target.tolist()[0] == list(range(106, 112))


@pytest.mark.parametrize("seed", range(5))
def test_a_pair_of_spans_gives_the_window_back(seed):
    denoiser = Denoiser(density=0.4, mean_span=2.0)
    n_tokens, n_spans = denoiser.n_noise(12)
    source, target = denoiser.pair(WINDOWS, objective="spans", generator=generator(seed))
    assert source.shape == (3, 12 - n_tokens + n_spans)
    assert target.shape == (3, n_tokens + n_spans + 1)
    for row in range(3):
        spans, current = {}, None
        for token in target[row, :-1].tolist():
            if token < 100:
                current = spans.setdefault(token, [])
            else:
                current.append(token)
        told = [inner for token in source[row].tolist() for inner in spans.get(token, [token])]
        assert told == WINDOWS[row].tolist()
        assert len(spans) == n_spans


def test_noise_has_its_count_and_every_partition_occurs():
    noise, span = noise_spans(4000, length=6, n_tokens=3, n_spans=2, device=torch.device("cpu"), generator=generator())
    assert (noise.sum(1) == 3).all()
    assert not noise[:, 0].any()
    assert span.max() == 1
    # Of 3 noisy tokens in 2 parts and 3 quiet ones in 2 parts there are 2 · 2 ways, each as likely.
    kinds, counts = noise.unique(dim=0, return_counts=True)
    assert len(kinds) == 4
    assert (counts.double() / 4000 - 0.25).abs().max() < 0.03


def test_too_few_sentinels_and_unknown_objectives_are_refused():
    with pytest.raises(ValueError, match="there are 2 sentinels"):
        Denoiser(n_sentinels=2).pair(torch.zeros(1, 128).long(), objective="spans", generator=generator())
    with pytest.raises(ValueError, match="no objective 'copying'"):
        Denoiser().pair(WINDOWS, objective="copying", generator=generator())


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rows = read_rows(write_corpus(tmp_path_factory.mktemp("data") / "corpus"))
    trainable, _ = trainable_rows(rows)
    tokenizer = train_text_to_text_tokenizer(
        (document for its in documents_of(trainable).values() for document in its),
        vocab_size=420,
        context_length=64,
        n_sentinels=4,
    )
    return trainable, tokenizer


def test_no_document_holds_an_input_with_its_answer(text):
    rows, tokenizer = text
    documents = {document for its in documents_of(rows).values() for document in its}
    # Outputs here are labels and names, all too short for documents of their own.
    assert all(document.endswith("\nanswer:") for document in documents)
    assert not any(row.output == document.strip() for row in rows for document in documents)


def test_special_tokens_have_the_numbers_that_the_denoiser_takes_for_granted(text):
    _, tokenizer = text
    assert tokenizer.convert_tokens_to_ids([END, MASK, sentinel(0), sentinel(3)]) == [0, 2, 3, 6]
    assert tokenizer.mask_token_id == 2
    assert tokenizer.padding_side == "right"
    assert tokenizer.decode([3, 40, 4], skip_special_tokens=True) == tokenizer.decode([40])


def test_batches_are_a_function_of_the_step(text):
    rows, tokenizer = text
    stream = token_stream(rows, tokenizer, seed=0)
    told = {"denoiser": Denoiser(n_sentinels=4), "n_windows": 3, "length": 24}
    shares = {"spans": 0.5, "infilling": 0.5}
    first, second = (DenoisingBatches(stream, shares=shares, seed=1, **told) for _ in range(2))
    assert all(torch.equal(first[7][name], second[7][name]) for name in ("input_ids", "labels"))
    assert not torch.equal(
        first[7]["input_ids"], DenoisingBatches(stream, shares=shares, seed=2, **told)[7]["input_ids"]
    )
    lengths = {first[step]["labels"].shape[1] for step in range(20)}
    assert len(lengths) == 2
