import torch

from moe_models.recipes.balance import assignment_counts, balance_loss, max_over_mean


def test_counts_and_load_by_hand():
    # Three tokens, top-2 of 4: {0,1}, {0,2}, and {3,2} on a padding token that does not count.
    logits = torch.tensor([[4.0, 3, 0, 0], [4, 0, 3, 0], [0, 0, 3, 4]])
    counts = assignment_counts([logits], torch.tensor([1, 1, 0]), top_k=2)
    assert counts.tolist() == [[2, 1, 1, 0]]
    # Mean 4 / 4 = 1, largest 2.
    assert max_over_mean(counts).tolist() == [2.0]


def test_both_losses_are_top_k_when_all_is_even():
    logits = torch.eye(4).repeat(8, 1) + torch.eye(4).roll(1, 0).repeat(8, 1)
    valid = torch.ones(32)
    for balance in ("per-layer", "pooled"):
        loss = balance_loss([logits, logits], valid, balance=balance, top_k=2)
        torch.testing.assert_close(loss, torch.tensor(2.0))


def test_pooling_hides_what_single_layers_do():
    # Layer 0 gives everything to experts 0 and 1, layer 1 everything to 2 and 3: even together, not one by one.
    first = torch.tensor([[9.0, 9, 0, 0]]).repeat(16, 1)
    second = first.flip(1)
    valid = torch.ones(16)
    pooled = balance_loss([first, second], valid, balance="pooled", top_k=2)
    single = balance_loss([first, second], valid, balance="per-layer", top_k=2)
    torch.testing.assert_close(pooled, torch.tensor(2.0))
    assert single > 3.9
    assert max_over_mean(assignment_counts([first, second], valid, top_k=2)).tolist() == [2.0, 2.0]


def test_padding_changes_neither_loss():
    torch.manual_seed(0)
    logits = [torch.randn(20, 4), torch.randn(20, 4)]
    padded = [torch.cat([layer, torch.full((5, 4), 7.0)]) for layer in logits]
    valid = torch.cat([torch.ones(20), torch.zeros(5)])
    for balance in ("per-layer", "pooled"):
        torch.testing.assert_close(
            balance_loss(padded, valid, balance=balance, top_k=2),
            balance_loss(logits, torch.ones(20), balance=balance, top_k=2),
        )
