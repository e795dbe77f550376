"""The calculator of a model's size: what one turns has the effect the page tells of."""


def test_more_chosen_experts_cost_every_token_and_no_memory(open_lab):
    lab = open_lab("size")
    assert "671B" in lab.drawn()
    assert "36.6B" in lab.drawn()
    lab.slide("num_experts_per_tok", 1)
    assert "671B" in lab.drawn()
    assert "18.7B" in lab.drawn()
    assert lab.goals()[0].startswith("做到了")
    assert not lab.goals()[1]


def test_the_cache_listens_to_the_width_of_the_latent(open_lab):
    lab = open_lab("size")
    lab.slide("num_attention_heads", 64)
    assert "70.3 KB" in lab.drawn()
    lab.slide("kv_lora_rank", 192)
    assert "31.2 KB" in lab.drawn()
    assert lab.goals()[1].startswith("做到了")


def test_presets_are_models(open_lab):
    lab = open_lab("size")
    lab.preset("V2-Lite")
    assert "15.7B" in lab.drawn()
    lab.choose("width", 2)
    assert "31.4 GB" in lab.drawn()
    lab.preset("V3")
    assert "671B" in lab.drawn()
