"""What the CPU computes a GPU computes too: text, training, checkpoints, reinforcement learning.

Pipelines, experts, latent attention and FP8 have tests of this kind beside their own. Each test
takes one model to both devices. In float32 the two sum in another order and nothing else: numbers
agree to `CLOSE`, and greedy text is equal.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.config import TINY
from dsnotes.model.attention import use_attention
from dsnotes.model.balance import BiasBalancer
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import record_routing
from dsnotes.model.mtp import add_modules, mtp_loss, predict
from dsnotes.model.speculative import speculate, teacher_forced_acceptance
from dsnotes.rl import presets, r1_zero
from dsnotes.rl.objective import Objective
from dsnotes.rl.poet import compose, verse_step
from dsnotes.rl.rollout import Rollout, completion_log_probs, policy_step, sample
from dsnotes.training import growth, loop, poems, texts
from dsnotes.training.loop import language_step, moe_layers, train
from dsnotes.training.pipelined import cut
from dsnotes.training.state import TrainState
from dsnotes.weights import checkpoint
from dsnotes.weights.hf import from_transformers, to_transformers

pytestmark = [
    pytest.mark.gpu,
    # of torch itself: under autocast a norm has float32 weights
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),
]

GPU = "cuda"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32; 2e-6 was measured on an H100
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11]]


def mla() -> DeepSeek:
    return add_modules(DeepSeek(TINY))


def gqa() -> DeepSeek:
    return use_attention(DeepSeek(TINY), num_key_value_heads=2)


def twins(build: Callable[[], DeepSeek] = mla) -> tuple[DeepSeek, DeepSeek]:
    """One model on both devices; weights so large that no two tokens are nearly as likely."""
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    return model, copy.deepcopy(model).to(GPU)


def tokens(*shape: int) -> Tensor:
    return torch.randint(TINY.vocab_size, shape)


def close(found: Any, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(found, expected, check_device=False, **(tolerance or CLOSE))


# --- text ---


@pytest.mark.parametrize("build", [mla, gqa])
def test_logits_and_gradients(build: Callable[[], DeepSeek]) -> None:
    models, text = twins(build), tokens(3, 17)
    losses = [loop.next_token_loss(m(text.to(m.device)), text.to(m.device)) for m in models]
    close(losses[1], losses[0])
    for loss in losses:
        loss.backward()
    ours, expected = (dict(m.named_parameters()) for m in models[::-1])
    for name, parameter in expected.items():
        if parameter.grad is not None:
            close(ours[name].grad, parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("build", [mla, gqa])
def test_greedy_text_is_that_of_the_cpu(build: Callable[[], DeepSeek]) -> None:
    host, model = twins(build)
    found = model.generate(PROMPTS, max_new_tokens=20)
    assert found.device == model.device
    assert found.tolist() == host.generate(PROMPTS, max_new_tokens=20).tolist()
    given = [torch.tensor(prompt) for prompt in PROMPTS]  # on the CPU: generate takes them along
    assert torch.equal(model.generate(given, max_new_tokens=20), found)


def test_sampled_text_is_that_of_its_seed() -> None:
    _, model = twins()

    def drawn(seed: int) -> list[list[int]]:
        generator = torch.Generator(GPU).manual_seed(seed)
        options = {"temperature": 1.0, "top_p": 0.9, "generator": generator}
        return model.generate(PROMPTS, max_new_tokens=20, **options).tolist()

    assert drawn(0) == drawn(0) != drawn(1)


def test_bfloat16_generates() -> None:
    _, model = twins()
    assert model.bfloat16().generate(PROMPTS, max_new_tokens=8).shape == (3, 8)
    with torch.autocast("cuda", torch.bfloat16):
        assert model.float().generate(PROMPTS, max_new_tokens=8).shape == (3, 8)


def test_speculation_is_greedy_text() -> None:
    host, model = twins()
    prompts = tokens(3, 5)
    found = speculate(model, prompts.to(GPU), max_new_tokens=20)
    close(found, speculate(host, prompts, max_new_tokens=20))
    assert torch.equal(found.tokens, model.generate(prompts, max_new_tokens=20))
    close(*(teacher_forced_acceptance(m, prompts.to(m.device)) for m in (model, host)))


def test_speculation_is_that_of_its_seed() -> None:
    _, model = twins()

    def drawn() -> Tensor:
        generator = torch.Generator(GPU).manual_seed(0)
        options = {"temperature": 1.0, "generator": generator}
        return speculate(model, prompts, max_new_tokens=20, **options).tokens

    prompts = tokens(3, 5).to(GPU)
    assert torch.equal(drawn(), drawn())


@pytest.mark.parametrize("call", ["forward", "hidden", "speculate"])
def test_tokens_on_another_device_are_refused(call: str) -> None:
    _, model = twins()
    calls = {"forward": model, "hidden": model.hidden,
             "speculate": partial(speculate, model, max_new_tokens=1)}  # fmt: skip
    with pytest.raises(ValueError, match=r"must be on cuda:0 like the weights, got cpu"):
        calls[call](tokens(1, 3))


def test_a_generator_of_another_device_is_refused() -> None:
    _, model = twins()
    options = {"max_new_tokens": 2, "temperature": 1.0, "generator": torch.Generator()}
    said = "generator must be on cuda:0 like the weights, got cpu"
    for call in (partial(model.generate, [[1]]), partial(speculate, model, tokens(1, 3).to(GPU))):
        with pytest.raises(ValueError, match=said):
            call(**options)


def test_compiled_logits() -> None:
    host, model = twins(lambda: DeepSeek(replace(TINY, num_hidden_layers=2)))
    text = tokens(2, 16)
    with torch.no_grad():
        close(torch.compile(model)(text.to(GPU)), host(text))


# --- the parts that keep state beside the weights ---


def test_routing_is_recorded_where_it_happens() -> None:
    found = []
    text = tokens(2, 9)
    for model in twins():
        with record_routing(model) as routings:
            model(text.to(model.device))
        found.append(routings)
    assert {r.indices.device.type for r in found[1]} == {GPU}
    close(found[1], found[0])


def test_biases_follow_the_load() -> None:
    models, text = twins(), tokens(4, 16)
    biases, loads = [], []
    for model in models:
        balancer = BiasBalancer([moe.gate for moe in moe_layers(model)[:2]], gamma=0.01)
        with record_routing(model) as routings:
            model(text.to(model.device))
        balancer.observe([routing.indices for routing in routings])
        loads.append(balancer.step())
        biases.append(balancer.biases)
    close(loads[1], loads[0])
    close(biases[1], biases[0])


def test_a_balancer_follows_its_gates_to_another_device() -> None:
    model, _ = twins()
    balancer = BiasBalancer([moe.gate for moe in moe_layers(model)[:2]], gamma=0.01)
    with record_routing(model.to(GPU)) as routings:
        model(tokens(4, 16).to(GPU))
    balancer.observe([routing.indices for routing in routings])
    balancer.step()
    assert {bias.device.type for bias in balancer.biases} == {GPU}
    assert all(bias.any() for bias in balancer.biases)


def test_prediction_modules_are_added_where_the_model_is() -> None:
    model = add_modules(DeepSeek(TINY).to(GPU, torch.bfloat16))
    assert {p.device.type for p in model.parameters()} == {GPU}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert gqa().to(GPU).generate([[1]], max_new_tokens=2).device.type == GPU
    moved = use_attention(DeepSeek(TINY).to(GPU), num_key_value_heads=2)
    assert {p.device.type for p in moved.parameters()} == {GPU}


def test_prediction_loss() -> None:
    models, text = twins(), tokens(2, 16)
    losses = []
    for model in models:
        here = text.to(model.device)
        losses.append(mtp_loss(predict(model, model.hidden(here), here), here, weight=0.3))
    close(losses[1], losses[0])


def test_stages_of_a_pipeline() -> None:
    _, model = twins(lambda: DeepSeek(TINY))
    text = tokens(2, 9).to(GPU)
    close(torch.nn.Sequential(*cut(model, 3))(text), model(text))


# --- training ---


def losses(model: DeepSeek, *, steps: int, **options: float) -> list[float]:
    state = TrainState.create(model, steps=steps, learning_rate=1e-3)
    data = texts.batches(steps=steps, batch_size=4, seq_len=32, seed=0)
    step = partial(language_step, **options)
    return [report["loss"] for report in train(state, step, data, progress=False)]


BALANCED = {"gamma": 0.01, "expert_alpha": 0.01, "sequence_alpha": 0.01, "mtp_weight": 0.3}


@pytest.mark.parametrize("options", [{}, BALANCED], ids=["plain", "balanced"])
def test_losses_are_those_of_the_cpu(options: dict[str, float]) -> None:
    host, model = (losses(m, steps=4, **options) for m in twins())
    assert model == pytest.approx(host, rel=1e-4)


@pytest.mark.parametrize("stage", growth.STAGES)
def test_stages_of_the_growing_model(stage: growth.Stage) -> None:
    """FP8 layers round: a sum that is off by the last bit may become another code."""
    found = {}
    for device in ("cpu", GPU):
        state = growth.start(stage, steps=3, seed=0, device=device)
        assert state.model.device.type == device
        run = growth.training(state, stage, seed=0, progress=False)
        found[device] = [report["loss"] for report in run]
        found[device].append(poems.character_loss(state.model, poems.held_out().tokens[:64]))
    assert found[GPU] == pytest.approx(found["cpu"], rel=1e-2 if stage == "fp8" else 1e-4)


def test_autocast_trains() -> None:
    host, model = twins()
    with torch.autocast("cuda", torch.bfloat16):
        found = losses(model, steps=4, **BALANCED)
    assert found == pytest.approx(losses(host, steps=4, **BALANCED), rel=2e-2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_evaluation() -> None:
    batch = texts.held_out(seq_len=512)
    host, model = (loop.evaluate(m, batch) for m in twins())
    assert model.loss == pytest.approx(host.loss, rel=1e-4)
    assert abs(model.load.cpu() - host.load).sum() <= 1e-3 * host.load.sum()  # equal affinities


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_is_taken_up_again(tmp_path: Path, dtype: torch.dtype) -> None:
    data = partial(texts.batches, steps=6, batch_size=4, seq_len=32, seed=0)
    step = partial(language_step, gamma=0.01)
    model = twins()[1].to(dtype)
    start = copy.deepcopy(model)

    def state(model: DeepSeek) -> TrainState:
        return TrainState.create(model, steps=6, learning_rate=1e-3)

    whole = [report["loss"] for report in train(state(model), step, data(), progress=False)]
    options = {"checkpoint": tmp_path / "run.pt", "save_every": 3, "progress": False}
    first = train(state(copy.deepcopy(start)), step, data(), **options)
    found = [next(first)["loss"] for _ in range(3)]
    first.close()  # interrupted
    resumed = state(start)
    found += [report["loss"] for report in train(resumed, step, data(), **options)]
    assert found == pytest.approx(whole, rel=1e-5 if dtype == torch.float32 else 1e-3)
    with pytest.raises(ValueError, match="sampler"):  # the state of a GPU's is of another kind
        list(train(state(twins()[0].to(dtype)), step, data(), **options))


# --- files ---


@pytest.mark.parametrize("fp8", [False, True], ids=["float32", "fp8"])
def test_a_checkpoint_goes_between_the_devices(tmp_path: Path, fp8: bool) -> None:
    host, model = twins()
    checkpoint.save(host, tmp_path / "host", fp8=fp8)
    checkpoint.save(model, tmp_path / "gpu", fp8=fp8)
    (file,) = (tmp_path / "gpu").glob("*.safetensors")
    assert file.read_bytes() == (tmp_path / "host" / file.name).read_bytes()
    loaded = checkpoint.load(tmp_path / "gpu")
    assert loaded.device.type == "cpu"
    again = add_modules(DeepSeek(TINY)).to(GPU)
    checkpoint.load_weights(again, loaded.state_dict())  # from the CPU to the GPU
    assert again.device.type == GPU
    close(again.state_dict(), loaded.state_dict(), rtol=0, atol=0)
    checkpoint.load_weights(host, again.state_dict())  # and back
    close(host.state_dict(), loaded.state_dict(), rtol=0, atol=0)
    if not fp8:
        close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_bfloat16_checkpoint_is_that_of_the_weights(tmp_path: Path) -> None:
    """Also once a pass has moved the experts into stacks, of which each weight is a view."""
    _, model = twins()
    before = copy.deepcopy(model.bfloat16().state_dict())
    model(tokens(2, 16).to(GPU)).sum().backward()
    checkpoint.save(model, tmp_path)
    found = checkpoint.load(tmp_path, dtype=torch.bfloat16)
    close(found.state_dict(), before, rtol=0, atol=0)
    checkpoint.load_weights(model, twins()[0].state_dict())
    text = tokens(2, 16)
    close(model(text.to(GPU)), copy.deepcopy(model)(text.to(GPU)), rtol=1e-2, atol=1e-2)


def test_there_and_back_through_transformers() -> None:
    _, model = twins(lambda: DeepSeek(TINY))
    peer = to_transformers(model)
    assert {p.device.type for p in peer.parameters()} == {GPU}
    text = tokens(2, 16).to(GPU)
    close(peer(text).logits, model(text), rtol=1e-3, atol=1e-4)
    again = from_transformers(peer)
    assert again.device.type == GPU
    close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


# --- reinforcement learning ---


def test_a_policy_step_is_that_of_the_cpu() -> None:
    host, model = twins()
    prompts = tokens(2, 5)
    generator = torch.Generator(GPU).manual_seed(0)
    options = {"group_size": 4, "max_new_tokens": 6, "stop_token": 1, "generator": generator}
    rollout = sample(model, prompts, **options)  # prompts of the CPU
    assert {t.device.type for t in rollout} == {GPU}
    same = Rollout(rollout.tokens.cpu(), rollout.mask.cpu())
    close(completion_log_probs(model, rollout), completion_log_probs(host, same))
    rewards = torch.rand(2, 4)
    for m, r in ((host, same), (model, rollout)):
        state = TrainState.create(m, steps=1, learning_rate=1e-3)
        objective = Objective(beta=0.01)
        policy_step(state, r, rewards, max_new_tokens=6, objective=objective)
    close(model.state_dict(), host.state_dict(), rtol=1e-3, atol=2e-4)  # Adam: sign of a gradient


def test_r1_zero() -> None:
    preset = presets.LAPTOP
    model = presets.new_model(preset, seed=0).to(GPU)
    state = TrainState.create(model, steps=3, learning_rate=1e-3)
    before = r1_zero.base_step(state, preset)["loss"]
    host = TrainState.create(presets.new_model(preset, seed=0), steps=3, learning_rate=1e-3)
    assert before == pytest.approx(r1_zero.base_step(host, preset)["loss"], rel=1e-4)
    assert r1_zero.grpo_step(state, preset)["length"] > 0
    assert 0 <= r1_zero.evaluate(model, preset, problems=8, samples=2).pass_at_1 <= 1
    options = {"problems": 2, "samples": 2, "keep": lambda texts, **_: [1.0] * len(texts)}
    kept = r1_zero.rejection_sample(model, preset, **options)
    r1_zero.supervised_step(state, *kept)
    assert state.step == 3


def test_a_poet_is_rewarded() -> None:
    state = growth.start("mla", steps=1, seed=0, device=GPU)
    _, written = compose(state.model, [("五", "尤"), ("七", "東")], samples=2)
    assert len(written) == 4
    assert list(verse_step(state, prompts=2, group_size=4)) == ["reward", "rules", "characters"]
