"""Configurations: the presets equal the released files, and contradictions are refused by name."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsnotes.config import (
    DEEPSEEK_V2,
    DEEPSEEK_V2_LITE,
    DEEPSEEK_V3,
    TINY,
    Config,
    RopeScaling,
)

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("file", "preset"),
    [
        ("config_v3.json", DEEPSEEK_V3),
        ("config_v2.json", DEEPSEEK_V2),
        ("config_v2_lite.json", DEEPSEEK_V2_LITE),
    ],
)
def test_released_files_give_the_presets(file: str, preset: Config) -> None:
    # The released V3 file carries a default of its library; the report says 0.006.
    read = Config.from_json(DATA / file)
    assert dataclasses.replace(read, initializer_range=preset.initializer_range) == preset


def test_released_initializer_range_is_read_as_it_stands() -> None:
    assert Config.from_json(DATA / "config_v3.json").initializer_range == 0.02
    assert DEEPSEEK_V3.initializer_range == 0.006


def test_parsed_content_is_read_like_the_file() -> None:
    path = DATA / "config_v3.json"
    assert Config.from_json(json.loads(path.read_text("utf8"))) == Config.from_json(str(path))


def test_a_missing_field_is_named() -> None:
    raw = json.loads((DATA / "config_v3.json").read_text("utf8"))
    del raw["kv_lora_rank"]
    with pytest.raises(ValueError, match="kv_lora_rank"):
        Config.from_json(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be a whole number of at least 1, got 0"),
        ({"hidden_size": 64.0}, "hidden_size must be a whole number of at least 1, got 64.0"),
        ({"num_experts_per_tok": True}, "num_experts_per_tok must be a whole number"),
        ({"n_shared_experts": -1}, "n_shared_experts must be a whole number of at least 0, got -1"),
        ({"q_lora_rank": 0}, "q_lora_rank must be a whole number of at least 1"),
        (
            {"routed_scaling_factor": 0.0},
            "routed_scaling_factor must be a finite number above 0, got 0.0",
        ),
        ({"scoring_func": "relu"}, "scoring_func must be one of"),
        ({"topk_method": "expert_choice"}, "topk_method must be one of"),
        ({"first_k_dense_replace": 4}, r"first_k_dense_replace \(4\) must not exceed"),
        ({"qk_rope_head_dim": 7}, "qk_rope_head_dim must be even, got 7"),
        ({"n_group": 3}, r"n_group \(3\) must divide n_routed_experts \(16\)"),
        ({"topk_group": 5}, r"topk_group \(5\) must not exceed n_group \(4\)"),
        ({"num_experts_per_tok": 9}, r"num_experts_per_tok \(9\) must not exceed the 8 experts"),
        ({"topk_method": "greedy"}, "'greedy' knows no groups, but n_group is 4"),
        ({"n_group": 16, "topk_group": 8}, "leaves one expert per group"),
        ({"norm_topk_prob": "false"}, "norm_topk_prob must be true or false, got 'false'"),
        ({"norm_topk_prob": 1}, "norm_topk_prob must be true or false, got 1"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps must be a finite number above 0, got '1e-6'"),
        ({"rms_norm_eps": math.inf}, "rms_norm_eps must be a finite number above 0, got inf"),
        ({"initializer_range": math.nan}, "initializer_range must be a finite number above 0"),
        ({"q_lora_rank": 8.0}, "q_lora_rank must be a whole number of at least 1, got 8.0"),
        ({"scoring_func": ["sigmoid"]}, "scoring_func must be one of"),
        ({"rope_scaling": {"factor": 4.0}}, "rope_scaling must be RopeScaling, got {'factor'"),
        ({"rope_theta": 1.0}, "rope_theta must exceed 1, got 1.0"),
    ],
)
def test_contradictions_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": 0.5}, "rope_scaling.factor must be at least 1"),
        ({"type": "linear"}, "rope_scaling.type must be one of"),
        ({"beta_fast": 1.0, "beta_slow": 32.0}, "beta_fast must be at least beta_slow"),
        ({"beta_slow": 0.0}, "rope_scaling.beta_slow must be a finite number above 0, got 0.0"),
        ({"factor": math.nan}, "rope_scaling.factor must be a finite number above 0, got nan"),
        ({"factor": math.inf}, "rope_scaling.factor must be a finite number above 0, got inf"),
        ({"factor": 10**400}, "rope_scaling.factor must be a finite number above 0, got 1000"),
        ({"factor": True}, "rope_scaling.factor must be a finite number above 0, got True"),
        ({"mscale": "1"}, "rope_scaling.mscale must be a finite number of at least 0, got '1'"),
        ({"mscale": 0.5}, r"mscale \(0.5\) must equal mscale_all_dim \(1.0\)"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings must be"),
    ],
)
def test_bad_rope_scaling_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RopeScaling(**{"factor": 40.0, "original_max_position_embeddings": 4096} | change)


def test_whole_numbers_in_fields_of_floats_become_floats() -> None:
    """transformers refuses a file that says 2 where it wants 2.0."""
    config = dataclasses.replace(TINY, routed_scaling_factor=2)
    assert isinstance(config.routed_scaling_factor, float)
    assert '"routed_scaling_factor": 2.0' in json.dumps(config.to_json())


# --- files of others ---

V3 = DEEPSEEK_V3.to_json()
V2 = DEEPSEEK_V2.to_json()
YARN = V3["rope_scaling"]
NO_ROPE = {name: value for name, value in V3.items() if not name.startswith("rope_")}


def test_kimi_k2_is_v3_in_other_sizes() -> None:
    """model_type kimi_k2, one group, and YaRN whose two bounds coincide."""
    yarn = {**YARN, "factor": 32.0, "beta_fast": 1.0, "beta_slow": 1.0}
    sizes = {"n_routed_experts": 384, "n_group": 1, "topk_group": 1, "num_attention_heads": 64}
    raw = V3 | sizes | {"num_key_value_heads": 64, "rope_theta": 50000.0, "rope_scaling": yarn}
    read = Config.from_json(
        raw | {"model_type": "kimi_k2", "auto_map": {}, "aux_loss_alpha": 0.001}
    )
    assert read == Config.from_json(raw)
    assert read.rope_scaling is not None
    assert (read.rope_scaling.beta_fast, read.rope_theta) == (1.0, 50000.0)


def test_moonlight_has_neither_yarn_nor_compressed_queries() -> None:
    raw = V3 | {"q_lora_rank": None, "rope_scaling": None, "rope_theta": 50000.0, "n_group": 1}
    read = Config.from_json(raw | {"topk_group": 1, "num_nextn_predict_layers": None})
    assert (read.q_lora_rank, read.rope_scaling, read.rope_theta) == (None, None, 50000.0)
    assert read.num_nextn_predict_layers == 0


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 50000, "rope_scaling": YARN},
        {"rope_scaling": {**YARN, "rope_theta": 50000.0}},
        {"rope_parameters": {**YARN, "rope_theta": 50000.0}},
        {"rope_theta": 50000.0, "rope_parameters": {**YARN, "rope_theta": 50000}},
        {"rope_theta": 50000.0, "rope_scaling": YARN, "rope_parameters": YARN},
        {"rope_theta": 50000.0, "rope_scaling": None, "rope_parameters": YARN},
        {"rope_theta": 50000.0, "rope_scaling": {**YARN, "rope_type": "yarn"}},
        {"rope_theta": 50000.0, "rope_scaling": {**YARN, "attention_factor": 1.0, "mscale": 7.0}},
        {"rope_theta": 50000.0, "rope_scaling": {**YARN, "truncate": True, "beta_fast": None}},
    ],
)
def test_theta_and_yarn_in_every_spelling(rope: dict[str, Any]) -> None:
    expected = dataclasses.replace(DEEPSEEK_V3, rope_theta=50000.0)
    assert Config.from_json(NO_ROPE | rope) == expected


@pytest.mark.parametrize(
    "rope",
    [
        {},
        {"rope_scaling": None},
        {"rope_scaling": {}},
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"rope_parameters": {"type": "default", "partial_rotary_factor": 1.0}},
    ],
)
def test_no_yarn_in_every_spelling(rope: dict[str, Any]) -> None:
    assert Config.from_json(NO_ROPE | rope) == dataclasses.replace(DEEPSEEK_V3, rope_scaling=None)


def test_the_trained_length_is_that_of_the_model_where_yarn_gives_none() -> None:
    yarn = {name: value for name, value in YARN.items() if name[:8] != "original"}
    read = Config.from_json(NO_ROPE | {"rope_scaling": yarn}).rope_scaling
    assert read is not None
    assert read.original_max_position_embeddings == DEEPSEEK_V3.max_position_embeddings


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_scaling": 4.0}, "rope_scaling must be an object or null, got 4.0"),
        ({"rope_scaling": {"factor": 4.0}}, "rope_scaling of type 'default' must hold nothing but"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling.rope_type must be"),
        ({"rope_scaling": {**YARN, "type": "linear"}}, "rope_scaling.rope_type must be"),
        ({"rope_scaling": {**YARN, "rope_type": "linear"}}, "rope_type and rope_scaling.type must"),
        ({"rope_scaling": {**YARN, "rope_type": ["yarn"]}}, "rope_type and rope_scaling.type must"),
        ({"rope_scaling": {**YARN, "factor": None}}, "lacks rope_scaling.factor"),
        ({"rope_scaling": {**YARN, "factor": "40"}}, "rope_scaling.factor must be a finite number"),
        (
            {"rope_scaling": {**YARN, "mscale": "1.0", "mscale_all_dim": "1.0"}},
            "mscale must be a f",
        ),
        (
            {"rope_scaling": {**YARN, "mscale": 0, "mscale_all_dim": 0}},
            "mscale_all_dim must be giv",
        ),
        ({"rope_scaling": {**YARN, "mscale": None}}, "mscale and rope_scaling.mscale_all_dim must"),
        (
            {"rope_scaling": {**YARN, "attention_factor": 1.3}},
            "attention_factor must be 1: cos and",
        ),
        ({"rope_scaling": {**YARN, "truncate": False}}, "rope_scaling.truncate must be 1"),
        ({"rope_scaling": {**YARN, "partial_rotary_factor": 0.5}}, "partial_rotary_factor must be"),
        ({"rope_scaling": {**YARN, "extrapolation": 2}}, r"rope_scaling holds \['extrapolation'\]"),
        ({"rope_parameters": {"full_attention": YARN}}, "must hold nothing but rope_theta, got"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, "rope_theta .* must agree"),
        (
            {"rope_scaling": YARN, "rope_parameters": {"rope_theta": 1e6}},
            "rope_parameters must agr",
        ),
        ({"rope_theta": "10000"}, "rope_theta must be a finite number above 0, got '10000'"),
    ],
)
def test_other_kinds_of_rope_are_refused_by_name(rope: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_json(NO_ROPE | rope)


@pytest.mark.parametrize(
    ("raw", "changes", "message"),
    [
        (V3, {"rope_interleave": False}, "rope_interleave must be True, got False"),
        (V3, {"rope_interleave": None}, "rope_interleave must be True, got None"),
        (V3, {"moe_layer_freq": 2}, "moe_layer_freq must be 1, got 2"),
        (V3, {"hidden_act": "gelu"}, "hidden_act must be 'silu' or 'swish', got 'gelu'"),
        (V3, {"tie_word_embeddings": True}, "tie_word_embeddings must be False, got True"),
        (V3, {"attention_bias": "false"}, "attention_bias must be False, got 'false'"),
        (V3, {"norm_topk_prob": "false"}, "norm_topk_prob must be true or false, got 'false'"),
        (V3, {"num_hidden_layers": "61"}, "num_hidden_layers must be a whole number"),
        (V3, {"num_hidden_layers": None}, "num_hidden_layers must be a whole number"),
        (V3, {"n_group": None}, "n_group must be a whole number of at least 1, got None"),
        (V3, {"scoring_func": "softmax"}, "scoring_func must be 'sigmoid' with model_type"),
        (V3, {"topk_method": "greedy"}, "topk_method must be 'noaux_tc' with model_type"),
        (V2, {"scoring_func": "sigmoid"}, "scoring_func must be 'softmax' with model_type"),
        (V2, {"norm_topk_prob": True}, "norm_topk_prob must be False with model_type"),
        (V3, {"head_dim": 128}, "head_dim must be 64, got 128"),
        (V3, {"num_key_value_heads": 8}, "num_key_value_heads must be 128, got 8"),
        (V3, {"qk_head_dim": 64}, "qk_head_dim must be 192, got 64"),
        (V3, {"num_local_experts": 8}, "num_local_experts must be 256, got 8"),
        (V3, {"index_topk": 2048}, r"holds \['index_topk'\], which V2 and V3 do not have"),
        (V3, {"mlp_layer_types": ["dense"]}, r"holds \['mlp_layer_types'\]"),
        (V3, {"architectures": ["DeepseekV32ForCausalLM"]}, "architectures must be"),
        (V3, {"model_type": 3}, "model_type must be one of"),
    ],
)  # fmt: skip
def test_what_a_file_must_not_say(
    raw: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_json(raw | changes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([0, 1, 64, 10**400, "yarn", "linear", "default", "deepseek_v3", "silu"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from([*YARN, "rope_type", "rope_theta", "x"]), inner, max_size=4),
    max_leaves=4,
)  # fmt: skip
NAMES = [*V3, "rope_parameters", "head_dim", "moe_layer_freq", "num_mtp_layers", "x", "_x"]


@given(
    changes=st.dictionaries(st.sampled_from(NAMES), json_values, max_size=2),
    yarn=st.dictionaries(st.sampled_from([*YARN, "rope_type", "x"]), json_values, max_size=2),
)
@settings(deadline=None)
def test_no_content_leads_to_another_error(changes: dict[str, Any], yarn: dict[str, Any]) -> None:
    """What is read has the types of the fields, and is written and read again as it is."""
    refusal = None
    try:
        config = Config.from_json(V3 | {"rope_scaling": YARN | yarn} | changes)
    except ValueError as error:
        refusal = str(error)
    if refusal is not None:
        assert any(name in refusal for name in (*changes, *yarn, "rope", "config.json lacks"))
        return
    assert isinstance(config.norm_topk_prob, bool)
    assert all(type(config.__dict__[name]) is float for name in ("rope_theta", "rms_norm_eps"))
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    "model_type",
    ["deepseek", "deepseek_v32", "deepseek_v4", "deepseek_vl_v2", "glm_moe_dsa", "glm4_moe_lite",
     "glm5_next", "kimi_k25", "kimi_linear", "longcat_flash", "axk1", "mistral4", "youtu", "qwen2"],
)  # fmt: skip
def test_relatives_are_refused_by_their_model_type(model_type: str) -> None:
    """Also where all their fields look like those of V3."""
    with pytest.raises(ValueError, match=f"model_type must be one of .*, got '{model_type}'"):
        Config.from_json(V3 | {"model_type": model_type})


def test_without_model_type_the_gate_must_be_given() -> None:
    raw = {name: value for name, value in V3.items() if name not in ("model_type", "scoring_func")}
    with pytest.raises(ValueError, match=r"lacks \['scoring_func'\]"):
        Config.from_json(raw)


@pytest.mark.parametrize(("raw", "preset"), [(V3, DEEPSEEK_V3), (V2, DEEPSEEK_V2)])
def test_what_the_class_always_computes_need_not_be_said(
    raw: dict[str, Any], preset: Config
) -> None:
    """transformers keeps no scoring_func, and for V3 no topk_method."""
    left_out = {"scoring_func"} | ({"topk_method"} if preset is DEEPSEEK_V3 else set())
    assert Config.from_json({n: v for n, v in raw.items() if n not in left_out}) == preset


@pytest.mark.parametrize("name", sorted(V3.keys() & {f.name for f in dataclasses.fields(Config)}))
def test_every_other_field_must_be_there(name: str) -> None:
    """No default of ours stands in for what the class of the file has another default for."""
    raw = {n: value for n, value in V3.items() if n != name}
    absent = {"rope_scaling": None, "num_nextn_predict_layers": 0}
    if name in ("scoring_func", "topk_method", "rope_theta", "initializer_range", *absent):
        changes = {n: value for n, value in absent.items() if n == name}
        assert Config.from_json(raw) == dataclasses.replace(DEEPSEEK_V3, **changes)
    else:
        with pytest.raises(ValueError, match=rf"config.json lacks \['{name}'\]"):
            Config.from_json(raw)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"<!DOCTYPE html>", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "must hold a JSON object, got list"),
        (b"null", "must hold a JSON object, got NoneType"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"config\.json {message}"):
        Config.from_json(tmp_path / "config.json")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_configuration_that_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.json"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"config\.json is not JSON: it is no file"):
        Config.from_json(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"topk_method": "greedy", "n_group": 1, "topk_group": 1},
        {"scoring_func": "softmax"},
        {"scoring_func": "softmax", "topk_method": "group_limited_greedy"},
    ],
)
def test_a_gate_that_no_released_model_has_is_written_under_our_own_name(
    changes: dict[str, Any],
) -> None:
    """Another reader would take it for V2 or V3, whose gates are others."""
    config = dataclasses.replace(TINY, **changes)
    assert config.to_json()["model_type"] == "dsnotes"
    assert Config.from_json(config.to_json()) == config
