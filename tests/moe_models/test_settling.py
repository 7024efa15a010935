import torch

from moe_models.recipes.corpus import Row
from moe_models.recipes.settling import settle_routers
from moe_models.recipes.tokenization import train_tokenizer
from tests.moe_models.test_training import small_model


def test_only_uneven_routers_move_and_load_comes_down():
    rows = [Row(task="t", input=f"word{n} and {n * 7} more words here", output=f"word{n}") for n in range(40)]
    tokenizer = train_tokenizer([row.input for row in rows], vocab_size=400, context_length=64)
    model = small_model().eval()
    with torch.no_grad():
        # A router with a favorite: expert 0 gets a push along what every token shares.
        gate = model.model.layers[1].mlp.gate
        gate.weight.normal_(std=0.3)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    done = settle_routers(model, tokenizer, rows, highest=1.2, n_steps=2000, nearness=0.1)
    moved = {name for name, values in model.state_dict().items() if not torch.equal(values, before[name])}
    assert moved == {f"model.layers.{router.layer}.mlp.gate.weight" for router in done}
    assert done
    assert all(router.load_after <= 1.2 < router.load_before for router in done)
    assert settle_routers(model, tokenizer, rows, highest=1.25) == []
