"""The model that writes in the page is that of dsnotes: the same numbers and drafts, one file."""

import base64
import itertools
import math
import random
import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from dsnotes.config import TINY, Config
from dsnotes.model import speculative
from dsnotes.model.deepseek import DeepSeek, next_token_probs
from dsnotes.model.moe import record_routing
from dsnotes.model.mtp import add_modules, predict
from dsnotes.training import poems
from dsnotes.training.loop import language_step, train
from dsnotes.training.state import TrainState
from dsnotes.weights.script import load_script, save_script

PROMPTS, CLOSE = 100, 1e-4
WEIGHTS = sorted((Path(__file__).parents[3] / "assets/labs/poet").glob("weights-*.js"))
CALLS = Path(__file__).with_name("poet_calls.js")
CONFIGS = {
    "as in V3": TINY,
    "queries as they are": replace(TINY, q_lora_rank=None, n_group=1, topk_group=1),
    "odd sizes": replace(TINY, hidden_size=66, kv_lora_rank=30, moe_intermediate_size=35),
    "experts alone": replace(TINY, first_k_dense_replace=0, n_shared_experts=0),
    "no module": replace(TINY, num_nextn_predict_layers=0),
    "gates as they are": replace(TINY, norm_topk_prob=False, topk_group=1),
}


@pytest.fixture
def poet(lab):
    code = lab("poet")
    if code.eval("typeof run") == "undefined":
        code.engine.eval(CALLS.read_text("utf8"))
    return code


def made(config: Config) -> DeepSeek:
    """An untrained model whose gates and biases tell the experts apart."""
    torch.manual_seed(0)
    model = DeepSeek(replace(config, initializer_range=0.05))
    if config.num_nextn_predict_layers:
        add_modules(model)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.uniform_(-0.1, 0.1)
    return model


@cache
def trained() -> DeepSeek:
    """A few steps on poems: not good, but its numbers are those of a model that has learnt."""
    torch.manual_seed(0)
    model = add_modules(DeepSeek(replace(TINY, vocab_size=len(poems.vocabulary()))))
    state = TrainState.create(model, steps=25, learning_rate=1e-2)
    step = partial(language_step, gamma=0.01, mtp_weight=0.3)
    for _ in train(state, step, poems.batches(steps=25, batch_size=16, seed=0), progress=False):
        pass
    return state.model


def handed(poet, folder: Path, model: DeepSeek, **options) -> tuple[DeepSeek, str]:
    """The model as it is read back from its script, and its name in the page."""
    name, symbols = re.sub(r"\W", "-", folder.name), ["x"] * model.config.vocab_size
    save_script(model, folder / "w.js", name=name, symbols=symbols, about={}, **options)
    poet.engine.eval((folder / "w.js").read_text("utf8"))
    return load_script(folder / "w.js")[0], name


def some_prompts(model: DeepSeek, count: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.config.vocab_size, (count, length), generator=generator)


def floats(rows: list[str]) -> torch.Tensor:
    """Rows of float32 as the page has them in memory."""
    read = (torch.frombuffer(bytearray.fromhex(row), dtype=torch.float32) for row in rows)
    return torch.stack(list(read))


@torch.no_grad()
def compare(poet, model: DeepSeek, name: str, tokens: torch.Tensor) -> None:
    """Logits, drafts and choices of experts everywhere: one pass here, token by token there."""
    with record_routing(model) as routings:
        hidden = model.hidden(tokens)
    logits, (count, seq) = model.lm_head(hidden), tokens.shape
    modules = model.config.num_nextn_predict_layers
    drafts = predict(model, hidden, tokens)[0] if modules else None
    found = [poet.call("run", name, tokens[i : i + 10].tolist()) for i in range(0, count, 10)]
    for j, one in enumerate(itertools.chain(*found)):
        assert (floats(one["logits"]) - logits[j]).abs().max() < CLOSE
        if drafts is not None:
            assert (floats(one["drafts"]) - drafts[j]).abs().max() < CLOSE
        for (layer, routing), t in itertools.product(enumerate(routings), range(seq)):
            at = routing.indices[j * seq + t].tolist(), routing.weights[j * seq + t].tolist()
            chosen = dict(one["routing"][t][layer])
            assert chosen == pytest.approx(dict(zip(*at, strict=True)), abs=CLOSE)


# --- the model ---


@pytest.mark.parametrize("name", CONFIGS)
def test_every_part_of_a_model_is_that_of_the_library(poet, tmp_path, name) -> None:
    embedding = "fp8" if name == "odd sizes" else "bf16"
    model, called = handed(poet, tmp_path, made(CONFIGS[name]), embedding=embedding)
    compare(poet, model, called, some_prompts(model, 10, 16))


def test_a_hundred_prompts_of_a_trained_model(poet, tmp_path) -> None:
    model, name = handed(poet, tmp_path, trained())
    compare(poet, model, name, poems.held_out().tokens[:PROMPTS])


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_a_hundred_prompts_of_a_model_on_the_site(poet, path) -> None:
    poet.engine.eval(path.read_text("utf8"))
    model, _ = load_script(path)
    name = poet.eval("Object.keys(DeepSeek.received).at(-1)")
    compare(poet, model, name, some_prompts(model, PROMPTS, 24))


def test_tied_embeddings(poet, tmp_path) -> None:
    model = made(TINY)
    model.lm_head.weight = model.model.embed_tokens.weight
    model, name = handed(poet, tmp_path, model)
    compare(poet, model, name, some_prompts(model, 4, 9))


def test_every_byte_of_base64_and_every_code_of_fp8(poet) -> None:
    rng = random.Random(0)
    for length in [*range(10), 1000]:
        data = rng.randbytes(length)
        assert poet.call("((x) => [...DeepSeek.bytes(x)])", as_base64(data)) == list(data)
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).view(16, 16)
    file = as_base64(save({"w": codes, "w_scale_inv": torch.full((1, 1), 0.5)}))
    found = poet.call("((x) => [...DeepSeek.tensors(DeepSeek.bytes(x)).w.data])", file)
    assert found == pytest.approx((codes.float() / 2).flatten().tolist(), nan_ok=True)


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_what_it_cannot_run_is_named(poet) -> None:
    config = TINY.to_json()
    for field, value in [("scoring_func", "softmax"), ("num_nextn_predict_layers", 2)]:
        assert field in poet.call("refused", {**config, field: value})
    assert poet.call("refused", config) == "the file lacks model.embed_tokens.weight"


# --- decoding ---


def test_the_distribution_of_the_next_token(poet) -> None:
    generator = torch.Generator().manual_seed(0)
    for i in range(100):
        logits = 4 * torch.randn(40, dtype=torch.float64, generator=generator)
        temperature, top_p = (0.0, 0.3, 1.0, 1.7)[i % 4], (1.0, 0.9, 0.4)[i % 3]
        given = logits.tolist(), temperature, top_p
        found = poet.call("((...all) => [...Decode.probabilities(...all)])", *given)
        p = next_token_probs(logits, temperature=temperature, top_p=top_p)
        assert found == pytest.approx(p.tolist(), abs=1e-12)


def test_greedy_text_is_the_same_with_and_without_drafts(poet, tmp_path) -> None:
    model, name = handed(poet, tmp_path, trained())
    starts = poems.held_out().tokens[:20, :5]
    plain = model.generate(starts, max_new_tokens=20)
    assert torch.equal(speculative.speculate(model, starts, max_new_tokens=20).tokens, plain)
    for row, prompt in zip(plain.tolist(), starts.tolist(), strict=True):
        options = {"temperature": 0, "limit": 20, "stop": -1}
        assert poet.call("write", name, prompt, {**options, "drafts": False}, 1)["tokens"] == row
        found = poet.call("write", name, prompt, options, 1)
        assert found["tokens"] == row
        assert found["steps"] == found["offered"]
        assert 20 <= found["steps"] + found["accepted"] <= 21  # a last bonus token has no room


def test_what_a_refusal_and_an_acceptance_leave_behind(poet, tmp_path) -> None:
    model, name = handed(poet, tmp_path, trained())
    prompt = poems.held_out().tokens[0, :4].tolist()
    by = set()
    for seed in range(10):
        options = {"temperature": 1, "limit": 20, "stop": -1}
        found = poet.call("write", name, prompt, options, seed)
        trace = found["trace"][len(prompt) :]
        refused = [one for one in trace if one["refused"] is not None]
        assert [one["by"] for one in trace].count("draft") == found["accepted"]
        assert len(refused) + found["accepted"] == found["offered"]
        assert {one["by"] for one in refused} <= {"model"}
        # routing is that of the token that stands there: as in one pass over the whole text
        with torch.no_grad(), record_routing(model) as routings:
            model(torch.tensor([prompt + found["tokens"]]))
        for i, one in enumerate(found["trace"]):
            for chosen, routing in zip(one["routing"] or (), routings, strict=False):
                assert {e for e, _ in chosen} == set(routing.indices[i].tolist())
        by |= {one["by"] for one in trace}
    assert by == {"draft", "model"}


def test_a_stop_token_ends_the_text(poet, tmp_path) -> None:
    model, name = handed(poet, tmp_path, trained())
    prompt = poems.held_out().tokens[0, :4].tolist()
    plain = model.generate([prompt], max_new_tokens=20)[0].tolist()
    options = {"temperature": 0, "limit": 20, "stop": plain[6]}
    found = poet.call("write", name, prompt, options, 1)
    assert found["tokens"] == plain[: plain.index(plain[6]) + 1]


def test_a_draft_is_checked_as_in_the_library(poet, monkeypatch) -> None:
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for _ in range(100):
        both = torch.rand(2, 6, generator=generator, dtype=torch.float64) ** 4
        p, q = both / both.sum(dim=1, keepdim=True)
        draft, u, drawn = rng.randrange(6), rng.random(), []

        def multinomial(weights, count, drawn=drawn, **options):
            drawn.append(weights[0] / weights[0].sum())
            return torch.zeros(len(weights), count, dtype=torch.long)

        def rand(shape, u=u, **options):
            return torch.full(shape, u, dtype=options["dtype"])

        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", rand)
            patch.setattr(torch, "multinomial", multinomial)
            places = torch.stack([p, p])[None]
            kept, _ = speculative.verify(torch.tensor([[draft]]), q[None, None], places)
        residual = drawn[0].tolist()
        for v, share in enumerate(residual):
            if share < 1e-6:
                continue
            middle = sum(residual[:v]) + share / 2  # of the numbers that draw this token
            given = f"{draft}, {q.tolist()}, {p.tolist()}, given_numbers([{u}, {middle}])"
            found = poet.eval(f"Decode.verify({given})")
            assert found["kept"] == bool(kept)
            assert found["kept"] or found["token"] == v


def test_sampled_text_is_distributed_as_the_model_says(poet, tmp_path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "vocab_size": 6}
    model = made(replace(TINY, **small))
    model.lm_head.weight.data.mul_(10)  # the module and the model disagree
    model, name = handed(poet, tmp_path, model)
    prompt, times = [1, 2, 3], 10_000

    @torch.no_grad()
    def next_token(*written: int) -> list[float]:
        logits = model(torch.tensor([[*prompt, *written]]))[0, -1]
        return next_token_probs(logits, temperature=1.0).tolist()

    expected = {
        f"{a},{b},{c}": p * q * r
        for a, p in enumerate(next_token())
        for b, q in enumerate(next_token(a))
        for c, r in enumerate(next_token(a, b))
    }
    found = poet.call("count", name, prompt, 3, times)
    assert 0.3 < found["rate"] < 0.97
    off = sum(abs(found["counts"].get(text, 0) / times - p) for text, p in expected.items())
    chance = sum(math.sqrt(2 * p / (math.pi * times)) for p in expected.values())
    assert off < 1.2 * chance  # what so many draws are off by themselves
