"""Files of transformers: what `deepseek_v2` and `deepseek_v3` save is read as the same function, or
refused by the name of a field that we do not compute.

Models with random configurations are built and saved by transformers, read by us and compared on
their logits. What may be refused is written down here without the reader under test. The number of
examples is the profile's; 10,000 of each have been run once.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from dsnotes.config import Config, RopeScaling
from dsnotes.model.deepseek import DeepSeek
from dsnotes.weights.checkpoint import load, save

EXAMPLES = int(os.environ.get("DSNOTES_EXAMPLES", "40"))
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 16
SLOW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    import transformers

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()


def mostly(usual: Any, *rare: Any) -> st.SearchStrategy[Any]:
    """One value, and about one time in thirty one of the others."""
    return st.integers(0, 29).flatmap(
        lambda n: st.sampled_from(rare) if n == 17 else st.just(usual)
    )


ABSENT = object()


def some(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not ABSENT}


@st.composite
def ropes(draw: st.DrawFn) -> tuple[dict[str, Any], set[str]]:
    """The part of a config.json about RoPE, and the fields that we may refuse."""
    suspects = set()
    kind = draw(st.sampled_from(["none", "default", "yarn", "yarn", "yarn", "yarn", "other"]))
    rope: dict[str, Any] = {}
    if kind == "other":
        kind = draw(st.sampled_from(["linear", "dynamic", "llama3", "longrope"]))
        rope = {"factor": 4.0, "original_max_position_embeddings": 8}
        if kind == "llama3":
            rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        if kind == "longrope":
            rope |= {"short_factor": [1.0], "long_factor": [2.0]}
        suspects.add("rope_type")
    if kind == "yarn":
        mscale = draw(mostly((1.0, 1.0), (ABSENT, ABSENT), (1.0, ABSENT), (ABSENT, 0.5), (1.0, 0.5),
                             (0.0, 0.0), (0.5, 0.5), (None, None), (0.707, 0.707)))  # fmt: skip
        attention = draw(mostly(ABSENT, 1.0, 1.3, None))
        fast, slow = draw(st.sampled_from([
            (ABSENT, ABSENT), (32, 1), (1.0, 1.0), (4.0, 0.5), (2.0, 2.0), (0.5, 2.0), (None, None),
            (0.001, 0.0005), (1e4, 2e3),
        ]))  # fmt: skip
        truncate = draw(mostly(ABSENT, True, False))
        rope = some(
            {
                "factor": draw(st.sampled_from([1.0, 2.0, 4, 40.0])),
                "original_max_position_embeddings": draw(st.sampled_from([4, 16, 64, ABSENT])),
                "mscale": mscale[0],
                "mscale_all_dim": mscale[1],
                "attention_factor": attention,
                "beta_fast": fast,
                "beta_slow": slow,
                "truncate": truncate,
            }
        )
        if attention in (ABSENT, None) and mscale not in ((1.0, 1.0), (0.5, 0.5), (0.707, 0.707)):
            suspects.add("mscale")
        if attention == 1.3:
            suspects.add("attention_factor")
        if (fast, slow) == (0.5, 2.0):
            suspects.add("beta_fast")
        if truncate is False:
            suspects.add("truncate")
    spelling = draw(st.sampled_from(["rope_scaling", "rope_parameters"]))
    if kind != "none":
        name = draw(st.sampled_from(["type", "rope_type", "both"]))
        rope |= {n: kind for n in ("type", "rope_type") if name in (n, "both")}
    theta = draw(st.sampled_from([ABSENT, 10000.0, 50000, 1e6, 100.0]))
    raw: dict[str, Any] = {}
    if theta is not ABSENT:
        where = draw(st.sampled_from(["outside", "inside", "both"]))
        if where != "outside" and (rope or spelling == "rope_parameters"):
            rope["rope_theta"] = theta
        if where != "inside" or "rope_theta" not in rope:
            raw["rope_theta"] = theta
    if rope or draw(st.booleans()):
        raw[spelling] = rope or draw(st.sampled_from([None, {}]))
    return raw, suspects


@st.composite
def files(draw: st.DrawFn) -> tuple[dict[str, Any], set[str]]:
    """A config.json, and the fields that we may refuse."""
    rope, suspects = draw(ropes())
    v3 = draw(st.booleans())
    heads = draw(st.sampled_from([1, 2, 4]))
    groups, per_group = draw(st.sampled_from([(1, 4), (1, 7), (2, 2), (2, 4), (4, 2)]))
    topk_group = draw(st.integers(1, groups))
    layers = draw(st.integers(1, 2))
    raw: dict[str, Any] = {
        "model_type": "deepseek_v3" if v3 else "deepseek_v2",
        "vocab_size": 16,
        "hidden_size": draw(st.sampled_from([8, 16])),
        "num_hidden_layers": layers,
        "intermediate_size": draw(st.sampled_from([4, 12])),
        "moe_intermediate_size": draw(st.sampled_from([4, 8])),
        "first_k_dense_replace": draw(st.integers(0, layers)),
        "n_shared_experts": draw(st.integers(0, 2)),
        "n_routed_experts": groups * per_group,
        "num_experts_per_tok": draw(st.integers(1, topk_group * per_group)),
        "norm_topk_prob": draw(st.booleans()) if v3 else draw(mostly(False, True, None)),
        "routed_scaling_factor": draw(st.sampled_from([1.0, 2.5, 0.3])),
        "n_group": groups,
        "topk_group": topk_group,
        "num_attention_heads": heads,
        "num_key_value_heads": draw(st.sampled_from([heads, None])),
        "q_lora_rank": draw(st.sampled_from([None, 6])),
        "kv_lora_rank": draw(st.sampled_from([4, 10])),
        "qk_nope_head_dim": draw(st.sampled_from([2, 6])),
        "qk_rope_head_dim": draw(st.sampled_from([2, 4, 8])) if "long" not in str(rope) else 2,
        "v_head_dim": draw(st.sampled_from([2, 8, 12])),
        "max_position_embeddings": draw(st.sampled_from([12, 100])),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        "hidden_act": draw(mostly("silu", "swish", "gelu", "relu")),
        "attention_bias": draw(mostly(False, True)),
        "attention_dropout": draw(mostly(0.0, 0.1)),
        "tie_word_embeddings": draw(mostly(False, True)),
        **rope,
    }
    if v3:
        raw["rope_interleave"] = draw(mostly(True, False))
        raw["num_nextn_predict_layers"] = draw(st.integers(0, 2))
    else:
        raw["mlp_bias"] = draw(mostly(False, True))
        raw["topk_method"] = draw(st.sampled_from(["greedy", "group_limited_greedy"]))
        if raw["topk_method"] == "greedy" and draw(mostly(True, False)):
            raw["n_group"] = raw["topk_group"] = draw(st.sampled_from([1, None]))
    suspects |= {
        name
        for name, computed in {
            "hidden_act": ("silu", "swish"),
            "attention_bias": (False,),
            "mlp_bias": (False,),
            "attention_dropout": (0.0,),
            "tie_word_embeddings": (False,),
            "rope_interleave": (True,),
        }.items()
        if name in raw and raw[name] not in computed
    }
    if not v3 and raw["norm_topk_prob"] is not False:
        suspects.add("norm_topk_prob")
    if not v3 and raw["topk_method"] == "greedy" and raw["n_group"] not in (1, None):
        suspects.add("n_group")
    return raw, suspects


# What only a file can say: transformers knows nothing of these fields, or refuses such values.
FILE_ONLY = [
    ({"moe_layer_freq": 1, "aux_loss_alpha": 0.001, "seq_aux": True, "ep_size": 1}, None),
    ({"auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}}, None),
    ({"moe_layer_freq": 2}, "moe_layer_freq"),
    ({"index_topk": 2048}, "index_topk"),
    ({"scoring_func": "tanh"}, "scoring_func"),
    ({"topk_method": "expert_choice"}, "topk_method"),
    ({"vocab_size": "16"}, "vocab_size"),
    ({"rms_norm_eps": "1e-6"}, "rms_norm_eps"),
    ({"n_routed_experts": 4.0}, "n_routed_experts"),
    ({"norm_topk_prob": "false"}, "norm_topk_prob"),
    ({"routed_scaling_factor": float("nan")}, "routed_scaling_factor"),
    ({"rope_theta": "10000"}, "rope_theta"),
    ({"rope_theta": float("inf")}, "rope_theta"),
    ({"head_dim": 6}, "head_dim"),
    ({"num_key_value_heads": 3}, "num_key_value_heads"),
    ({"architectures": ["DeepseekV32ForCausalLM"]}, "architectures"),
]


def peer_of(raw: dict[str, Any]) -> Any:
    """The model transformers makes of a config.json, with weights that let differences show."""
    from transformers import AutoConfig, AutoModelForCausalLM

    peer = AutoModelForCausalLM.from_config(AutoConfig.for_model(**json.loads(json.dumps(raw))))
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in peer.state_dict().values():
            tensor.normal_(std=0.5)
    return peer.eval()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # no shared expert
@SLOW
@given(drawn=files(), as_drawn=st.booleans(), extra=mostly(({}, None), *FILE_ONLY))
@torch.no_grad()
def test_read_as_the_same_function_or_refused_by_name(
    drawn: tuple[dict[str, Any], set[str]],
    as_drawn: bool,
    extra: tuple[dict[str, Any], str | None],
) -> None:
    """Logits to 1e-4. Where nothing is drawn that we do not compute, there is no refusal."""
    raw, suspects = drawn
    try:
        peer = peer_of(raw)
        wanted = peer(TOKENS).logits
    except Exception as error:
        event(f"transformers cannot run it: {type(error).__name__} {str(error)[:200]}")
        assume(False)
    assume(wanted.isfinite().all())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer.save_pretrained(folder)
        file = folder / "config.json"
        written = json.loads(file.read_text("utf8"))
        if as_drawn:  # in the spelling that was drawn, where transformers writes its own
            del written["rope_parameters"]
            written |= raw
        changes, culprit = extra
        file.write_text(json.dumps(written | changes), "utf8")
        suspects = suspects | ({culprit} if culprit else set())
        try:
            model = load(folder)
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = None
        if refusal is not None:
            assert any(suspect in refusal for suspect in suspects), (suspects, refusal)
            event("refused")
            return
        assert culprit is None
    event("read")
    got = model(TOKENS)
    assert (got - wanted).abs().max() <= 1e-4 * max(1, wanted.abs().max())
    assert Config.from_json(model.config.to_json()) == model.config


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any configuration of ours, of V2, V3 or between."""
    groups, per_group = draw(st.sampled_from([(1, 4), (2, 2), (4, 2)]))
    scoring, gate, normed = draw(st.sampled_from([
        *[("sigmoid", "noaux_tc", normed) for normed in (True, False)] * 2,
        *[("softmax", gate, False) for gate in ("greedy", "group_limited_greedy")] * 2,
        ("softmax", "greedy", True), ("softmax", "noaux_tc", False), ("sigmoid", "greedy", True),
    ]))  # fmt: skip
    topk_group = draw(st.integers(1, groups))
    if gate == "greedy":
        groups, per_group, topk_group = 1, groups * per_group, 1
    scaling = None
    if draw(st.booleans()):
        slow = draw(st.sampled_from([0.01, 1, 5.0]))
        mscale = draw(st.sampled_from([0, 0.0, 0.707, 1]))
        scaling = RopeScaling(
            factor=draw(st.sampled_from([1, 4.0, 40])),
            original_max_position_embeddings=draw(st.sampled_from([4, 64, 4096])),
            beta_fast=slow * draw(st.sampled_from([1, 2, 32])),
            beta_slow=slow,
            mscale=mscale,
            mscale_all_dim=mscale,
        )
    return Config(
        vocab_size=16,
        hidden_size=draw(st.sampled_from([8, 12])),
        num_hidden_layers=2,
        intermediate_size=6,
        first_k_dense_replace=draw(st.integers(0, 2)),
        moe_intermediate_size=4,
        n_shared_experts=draw(st.integers(0, 2)),
        n_routed_experts=groups * per_group,
        num_experts_per_tok=draw(st.integers(1, topk_group * per_group)),
        scoring_func=scoring,
        topk_method=gate,
        norm_topk_prob=normed,
        routed_scaling_factor=draw(st.sampled_from([1, 2.5, 16])),
        n_group=groups,
        topk_group=topk_group,
        num_attention_heads=2,
        q_lora_rank=draw(st.sampled_from([None, 6])),
        kv_lora_rank=6,
        qk_nope_head_dim=4,
        qk_rope_head_dim=draw(st.sampled_from([2, 8])),
        v_head_dim=draw(st.sampled_from([4, 14])),
        rope_theta=draw(st.sampled_from([10000, 50000.0])),
        rope_scaling=scaling,
        max_position_embeddings=draw(st.sampled_from([12, 4096])),
        num_nextn_predict_layers=draw(st.integers(0, 1)),
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-3, 1])),
        initializer_range=0.5,
    )


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@SLOW
@given(config=configs())
@torch.no_grad()
def test_written_so_that_transformers_reads_the_same_function(config: Config) -> None:
    """Or does not know the file at all, where none of its classes computes it."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = DeepSeek(config)
    for name, tensor in model.state_dict().items():
        if name.endswith("e_score_correction_bias"):
            tensor.normal_(std=0.2)
    v3 = (config.scoring_func, config.topk_method) == ("sigmoid", "noaux_tc")
    v2 = config.scoring_func == "softmax" and config.topk_method != "noaux_tc"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(model, folder)
        assert load(folder).config == config
        if not (v3 or (v2 and not config.norm_topk_prob)):
            event("no class of transformers")
            with pytest.raises(ValueError, match="dsnotes"):
                AutoModelForCausalLM.from_pretrained(folder)
            return
        event("V3" if v3 else "V2")
        peer = AutoModelForCausalLM.from_pretrained(folder)
        wanted = model(TOKENS)
        assert (peer(TOKENS).logits - wanted).abs().max() <= 1e-4 * max(1, wanted.abs().max())
        peer.save_pretrained(folder / "again")
        assert torch.equal(load(folder / "again")(TOKENS), wanted)


RELATIVES = [
    "deepseek_v32", "glm_moe_dsa", "glm4_moe_lite", "glm5_next", "glm5_next_text", "kimi_linear",
    "kimi_k25", "longcat_flash", "axk1", "axk2", "mistral4", "youtu", "minicpm3", "bailing_hybrid",
    "deepseek_v4", "dots3_note_text", "hy_v4", "mistral_large4_text",
]  # fmt: skip


@pytest.mark.parametrize("model_type", RELATIVES)
def test_relatives_are_refused(model_type: str) -> None:
    """By name; and by their fields where a file calls them V3."""
    from transformers import CONFIG_MAPPING

    written = CONFIG_MAPPING[model_type]().to_dict()
    raw: dict[str, Any] = json.loads(json.dumps(written, default=str))
    with pytest.raises(ValueError, match=f"model_type must be one of .*, got '{model_type}'"):
        Config.from_json(raw)
    with pytest.raises(ValueError, match=r"must be|holds|lacks"):
        Config.from_json(raw | {"model_type": "deepseek_v3", "architectures": None})


def test_kimi_k2_is_what_transformers_takes_it_for() -> None:
    """transformers reads the language model of Kimi-K2 as a deepseek_v3."""
    from transformers import AutoConfig

    peer = AutoConfig.for_model("kimi_k25", text_config={"model_type": "kimi_k2", "n_group": 1})
    assert peer.text_config.model_type == "deepseek_v3"
