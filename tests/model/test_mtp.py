"""mtp: the equations position by position, one test per trap, sharing, documents, bad input."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsnotes.config import TINY, Config
from dsnotes.model.counts import breakdown, mtp_module_parameters, released_parameters
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.mtp import MTPModule, add_modules, modules, mtp_loss, predict
from dsnotes.model.rope import rope_rotation
from dsnotes.training.texts import counting, counting_entropy

SMALL = replace(
    TINY,
    vocab_size=16,
    hidden_size=32,
    num_hidden_layers=2,
    n_routed_experts=8,
    num_experts_per_tok=2,
    initializer_range=0.2,
)


def build(depth: int = 1, config: Config = SMALL) -> DeepSeek:
    """In float64, with norms that are not trivial."""
    model = add_modules(DeepSeek(replace(config, num_nextn_predict_layers=depth))).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) / 5)
    return model


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-6).sqrt() * weight


def oracle(tokens: Tensor, shift: int, vocab_size: int = 16) -> Tensor:
    """Logits of someone sure that each token of the language is `shift` more than `tokens`."""
    return 50.0 * F.one_hot((tokens + shift) % vocab_size, vocab_size).float()


# --- equations ---


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_equations_position_by_position(depth: int) -> None:
    """(21)-(23) with vectors, indices counted from 1 as in the paper; (22) over the prefix."""
    model = build(depth)
    t = torch.randint(16, (9,))
    found = predict(model, model.hidden(t[None]), t[None])
    emb, head = model.model.embed_tokens.weight, model.lm_head.weight
    h = dict(enumerate(model.hidden(t[None])[0], 1))
    for k, module in enumerate(modules(model), start=1):
        combined = {}
        for i in range(1, 9 - k + 1):
            e = norm(emb[t[i + k - 1]], module.enorm.weight)  # t_{i+k} of the paper
            pair = torch.cat([e, norm(h[i], module.hnorm.weight)])
            combined[i] = module.eh_proj.weight @ pair
        h, expected = {}, []
        for i in combined:
            prefix = torch.stack([combined[j] for j in range(1, i + 1)])[None]
            rotation = rope_rotation(
                torch.arange(i) + k, model.model.frequencies, dtype=torch.float64
            )
            h[i] = norm(module(prefix, Pass(rotation))[0, -1], module.shared_head.norm.weight)
            expected.append(head @ h[i])
        assert found[k - 1].shape == (1, 9 - k, 16)
        assert torch.allclose(found[k - 1][0], torch.stack(expected), atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_loss_word_by_word(depth: int) -> None:
    """(24) and (25): tokens t_1 .. t_{T+1}, terms i = 2 + k .. T + 1, divided by T."""
    tokens = torch.randint(16, (2, 8))
    big_t = 7
    logits = [torch.randn(2, 8 - k, 16) for k in range(1, depth + 1)]
    total = 0.0
    for row, t in enumerate(tokens):
        for k in range(1, depth + 1):
            for i in range(2 + k, big_t + 2):
                # P^k_{i} comes from position i - k - 1, the (i - k - 1)-th row
                p = logits[k - 1][row, i - k - 2].softmax(-1)
                total -= p[t[i - 1]].log() / big_t / depth / 2
    assert mtp_loss(logits, tokens, weight=0.3).item() == pytest.approx(0.3 * total.item())


def test_a_module_sees_up_to_the_token_it_is_fed_and_no_further() -> None:
    """Row i of depth k depends on tokens[i + k] and on none behind it."""
    model, tokens = build(2), torch.randint(16, (1, 9))
    before = predict(model, model.hidden(tokens), tokens)
    changed = tokens.clone()
    changed[0, 6] = (tokens[0, 6] + 1) % 16
    after = predict(model, model.hidden(changed), changed)
    for k in (1, 2):
        same = (before[k - 1] - after[k - 1]).abs().amax(dim=(0, 2)) < 1e-12
        assert same.tolist() == [i + k < 6 for i in range(9 - k)]


# --- traps ---


def test_trap_1_targets_shifted_twice() -> None:
    """Fed t_{i+1}, a module must learn t_{i+2}, one more; a second shift teaches it two more."""
    tokens = counting(sequences=4, seq_len=12, vocab_size=16, seed=0)
    right = oracle(tokens[:, 1:], shift=1)

    def wrong(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits[:, :-2].mT, tokens[:, 3:])

    assert mtp_loss([right], tokens, weight=1.0) < 1e-6
    assert wrong(right) == pytest.approx(50.0)
    late = oracle(tokens[:, 1:], shift=2)  # what it would train
    assert wrong(late) < 1e-6
    assert mtp_loss([late], tokens, weight=1.0) == pytest.approx(50.0 * 10 / 11)


def test_trap_1_a_trained_module_counts_on_by_one() -> None:
    """Trained with our loss it says fed token + 1 everywhere, with the wrong one fed token + 2."""
    held = counting(sequences=8, seq_len=20, vocab_size=16, seed=99)

    def twice(logits: list[Tensor], tokens: Tensor) -> Tensor:
        return F.cross_entropy(logits[0][:, :-2].mT, tokens[:, 3:])

    for loss, step in ((lambda p, t: mtp_loss(p, t, weight=1.0), 1), (twice, 2)):
        model = train(loss, jump=0.0, steps=40)
        said = predict(model, model.hidden(held), held)[0].argmax(-1)
        assert torch.equal(said, (held[:, 1:] + step) % 16)


def test_trap_2_embedding_never_fed() -> None:
    """After a jump only who is fed the token knows where to count on from.

    With jumps of probability 0.3 the next token costs at least 1.36 nats, the one after it
    1.99 without the token in between. Fed it, a module falls below that bound; parallel heads
    cannot.
    """
    bound = counting_entropy(vocab_size=16, jump=0.3, ahead=2)
    assert bound == pytest.approx(1.987, abs=1e-3)
    held = counting(sequences=200, seq_len=24, vocab_size=16, jump=0.3, seed=99)

    def fed(model: DeepSeek, tokens: Tensor) -> list[Tensor]:
        return predict(model, model.hidden(tokens), tokens)

    def parallel(model: DeepSeek, tokens: Tensor) -> list[Tensor]:
        nothing = torch.cat([tokens[:, :1], torch.zeros_like(tokens[:, 1:])], dim=1)
        return predict(model, model.hidden(tokens), nothing)

    found = {}
    for predictions in (fed, parallel):
        model = train(lambda p, t: mtp_loss(p, t, weight=1.0), jump=0.3, steps=70,
                      predictions=predictions)  # fmt: skip
        with torch.no_grad():
            logits = predictions(model, held)
        found[predictions] = mtp_loss(logits, held, weight=1.0).item() * 23 / 22
    assert found[fed] < 1.55
    assert found[parallel] > bound - 0.05


def test_trap_3_logits_and_targets_of_different_lengths() -> None:
    """T + 1 tokens leave T - k terms at depth k. Rolling the targets pairs the ends with the
    beginning instead of leaving them out; uncut logits are refused."""
    tokens = counting(sequences=4, seq_len=11, vocab_size=16, seed=0)
    right = oracle(tokens[:, 1:], shift=1)
    rolled = F.cross_entropy(right.mT, tokens.roll(-2, dims=1)[:, :-1])
    assert rolled == pytest.approx(5.0)  # 1 of 10 targets is the first token again, and costs 50
    assert mtp_loss([right], tokens, weight=1.0) < 1e-6
    for wrong in (oracle(tokens, shift=2), right[:, :-1]):
        with pytest.raises(ValueError, match=r"logits of depth 1 must have 10 positions for 11"):
            mtp_loss([wrong], tokens, weight=1.0)


def test_trap_4_depths_are_averaged_not_decayed() -> None:
    """Depth 1 right, depth 2 always wrong by 50 nats: 25 on average, whichever depth is wrong."""
    tokens = counting(sequences=2, seq_len=102, vocab_size=16, seed=0)
    good = [oracle(tokens[:, k:], shift=1) for k in (1, 2)]
    bad = [oracle(tokens[:, k:], shift=2) for k in (1, 2)]
    first_bad = mtp_loss([bad[0], good[1]], tokens, weight=0.3)
    second_bad = mtp_loss([good[0], bad[1]], tokens, weight=0.3)
    assert first_bad == pytest.approx(0.3 * 50 / 2 * 100 / 101)
    assert second_bad == pytest.approx(0.3 * 50 / 2 * 99 / 101)
    decayed = 0.3 * (50 * 0.5**2) * 99 / 101  # weights 1/2 and 1/4: half of it
    assert decayed == pytest.approx(second_bad.item() / 2)


def test_trap_6_embedding_first() -> None:
    """The left half of the released eh_proj multiplies the embedding, the right half h."""
    (module,) = modules(model := build())
    hidden, tokens = torch.randn(1, 5, 32).double(), torch.randint(16, (1, 5))
    eye, zero = torch.eye(32).double(), torch.zeros(32, 32).double()
    with torch.no_grad():
        module.eh_proj.weight.copy_(torch.cat([eye, zero], dim=1))
        left = module.combine(hidden, tokens)
        module.eh_proj.weight.copy_(torch.cat([zero, eye], dim=1))
        right = module.combine(hidden, tokens)
    assert torch.equal(left, module.enorm(model.model.embed_tokens(tokens)))
    assert torch.equal(right, module.hnorm(hidden))


def test_trap_6_hidden_state_after_the_final_norm() -> None:
    """A channel that the final norm silences reaches no module. Before the norm it would."""
    model, tokens, into_norm = build(), torch.randint(16, (1, 6)), []
    model.model.norm.register_forward_pre_hook(lambda _, inputs: into_norm.append(inputs[0]))
    with torch.no_grad():
        model.model.norm.weight[3] = 0
        hidden, state = model.hidden(tokens), into_norm[0]
        other = state.clone()
        other[..., 3] *= -1  # same length, so the norm divides by the same
        before = predict(model, hidden, tokens)[0]
        after = predict(model, model.model.norm(other), tokens)[0]
        (module,) = modules(model)
        unnormed = [module.combine(x, tokens) for x in (state, other)]
    assert torch.equal(before, after)
    assert (unnormed[0] - unnormed[1]).abs().max() > 0.01


def test_trap_6_the_sum_is_divided_by_t() -> None:
    """Uniform logits cost ln V a term; there are T - k terms, divided by T = 10, not T - k."""
    tokens = torch.randint(16, (3, 11))
    for k in (1, 2, 3):
        uniform = [torch.zeros(3, 11 - j, 16) for j in range(1, k + 1)]
        expected = math.log(16) * sum(10 - j for j in range(1, k + 1)) / (10 * k)
        assert mtp_loss(uniform, tokens, weight=1.0) == pytest.approx(expected)


# --- packed documents ---


@pytest.mark.parametrize("depth", [1, 2])
def test_terms_across_documents_are_left_out(depth: int) -> None:
    """Documents of 4, 1, 5 and 2 tokens: a term counts when t_i and t_{i+k+1} are of one."""
    documents = torch.tensor([[0] * 4 + [1] + [2] * 5 + [3] * 2])
    tokens = torch.randint(16, (1, 12))
    logits = [torch.randn(1, 12 - k, 16) for k in range(1, depth + 1)]
    expected, counted = 0.0, []
    for k in range(1, depth + 1):
        log_p = logits[k - 1][0].log_softmax(-1)
        rows = [i for i in range(11 - k) if documents[0, i] == documents[0, i + k + 1]]
        expected -= sum(log_p[i, tokens[0, i + k + 1]] for i in rows) / 11 / depth
        counted.append(len(rows))
    assert counted == [5, 3][:depth]
    found = mtp_loss(logits, tokens, weight=1.0, documents=documents)
    assert found.item() == pytest.approx(expected.item())
    assert mtp_loss(logits, tokens, weight=1.0).item() > 1.5 * found.item()


def test_one_document_is_the_plain_loss() -> None:
    tokens, logits = torch.randint(16, (2, 9)), [torch.randn(2, 8, 16)]
    plain = mtp_loss(logits, tokens, weight=0.3)
    assert mtp_loss(logits, tokens, weight=0.3, documents=torch.ones_like(tokens)) == plain


# --- sharing ---


def test_embedding_and_head_are_shared_with_one_gradient() -> None:
    model, tokens = build(2), torch.randint(16, (2, 9))
    shared = [model.model.embed_tokens.weight, model.lm_head.weight]
    for module in modules(model):
        assert module.embed_tokens.weight is shared[0]
        assert module.shared_head.head.weight is shared[1]

    def gradients(loss: Callable[[], Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(loss(), shared))

    def main() -> Tensor:
        return F.cross_entropy(model(tokens)[:, :-1].mT, tokens[:, 1:])

    def ahead() -> Tensor:
        return mtp_loss(predict(model, model.hidden(tokens), tokens), tokens, weight=0.3)

    parts = zip(gradients(main), gradients(ahead), strict=True)
    for both, (a, b) in zip(gradients(lambda: main() + ahead()), parts, strict=True):
        assert b.abs().max() > 1e-4
        assert torch.allclose(both, a + b, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 3])
def test_names_and_sizes(depth: int) -> None:
    """Trained: one embedding and head. Stored: a copy for each module, as in the release."""
    config = replace(SMALL, num_nextn_predict_layers=depth, first_k_dense_replace=2)
    model = add_modules(DeepSeek(config))
    main = sum(part.total for part in breakdown(config))
    biases = depth * config.n_routed_experts  # buffers, which params counts
    trained = sum(p.numel() for p in model.parameters())
    assert trained == main + depth * mtp_module_parameters(config) - biases
    state = model.state_dict()
    assert sum(t.numel() for t in state.values()) == released_parameters(config)
    for k in range(depth):
        own = {n.removeprefix(f"model.layers.{2 + k}.") for n in state if f"layers.{2 + k}." in n}
        assert {n for n in own if not n.startswith(("self_attn.", "mlp.experts."))} == {
            "embed_tokens.weight",
            "enorm.weight",
            "hnorm.weight",
            "eh_proj.weight",
            "shared_head.norm.weight",
            "shared_head.head.weight",
            "input_layernorm.weight",
            "post_attention_layernorm.weight",
            "mlp.gate.weight",
            "mlp.gate.e_score_correction_bias",
            *(f"mlp.shared_experts.{p}_proj.weight" for p in ("gate", "up", "down")),
        }


def test_the_main_model_is_not_changed() -> None:
    """Adding the modules draws no weight anew: same logits, same generation, bit for bit."""
    model, tokens = DeepSeek(SMALL), torch.randint(16, (2, 9))
    before = model(tokens), model.generate(tokens, max_new_tokens=8)
    add_modules(model)
    assert torch.equal(model(tokens), before[0])
    assert torch.equal(model.generate(tokens, max_new_tokens=8), before[1])


def test_modules_start_like_the_main_model() -> None:
    """Matrices N(0, initializer_range), norms 1; of the type of the model."""
    (module,) = modules(add_modules(DeepSeek(replace(SMALL, initializer_range=0.006)).double()))
    for name, parameter in module.named_parameters():
        assert parameter.dtype == torch.float64
        if parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.006, rel=0.15), name
        else:
            assert set(parameter.tolist()) == {1.0}, name


def test_bfloat16() -> None:
    """Runs in bfloat16 with the logits of float32 up to its precision."""
    config = replace(SMALL, n_routed_experts=2, n_group=1, topk_group=1)  # no choice to flip
    model = add_modules(DeepSeek(config))
    tokens = torch.randint(16, (2, 9))
    wide = predict(model, model.hidden(tokens), tokens)[0]
    model.bfloat16()
    narrow = predict(model, model.hidden(tokens), tokens)[0]
    assert narrow.dtype == torch.bfloat16
    assert ((narrow.float() - wide).norm() / wide.norm()).item() < 0.05


# --- bad input ---


def test_bad_input() -> None:
    tokens = torch.randint(16, (1, 9))
    with pytest.raises(ValueError, match="num_nextn_predict_layers must be at least 1"):
        add_modules(DeepSeek(replace(SMALL, num_nextn_predict_layers=0)))
    with pytest.raises(ValueError, match="has no multi-token prediction modules: call add_modules"):
        modules(plain := DeepSeek(SMALL))
    with pytest.raises(ValueError, match="has no multi-token prediction modules"):
        predict(plain, plain.model(tokens), tokens)
    model = build(2)
    with pytest.raises(ValueError, match="has 2 multi-token prediction modules already"):
        add_modules(model)
    with pytest.raises(ValueError, match="tokens must hold at least 3 for 2 modules, got 2"):
        predict(model, model.hidden(tokens[:, :2]), tokens[:, :2])
    logits = predict(model, model.hidden(tokens[:, :3]), tokens[:, :3])
    with pytest.raises(ValueError, match="at least 4 to have a target at depth 2, got 3"):
        mtp_loss(logits, tokens[:, :3], weight=0.3)


def train(
    loss: Callable[[list[Tensor], Tensor], Tensor],
    *,
    jump: float,
    steps: int,
    predictions: Callable[[DeepSeek, Tensor], list[Tensor]] | None = None,
) -> DeepSeek:
    """A model of one layer and one module on the counting language."""
    torch.manual_seed(0)
    config = replace(SMALL, num_hidden_layers=1, n_routed_experts=4, n_group=1, topk_group=1)
    model = add_modules(DeepSeek(replace(config, initializer_range=0.05)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    data = counting(sequences=32 * steps, seq_len=24, vocab_size=16, jump=jump, seed=1)
    for tokens in data.split(32):
        hidden = model.hidden(tokens)
        main = F.cross_entropy(model.lm_head(hidden)[:, :-1].mT, tokens[:, 1:])
        logits = predictions(model, tokens) if predictions else predict(model, hidden, tokens)
        optimizer.zero_grad()
        (main + loss(logits, tokens)).backward()
        optimizer.step()
    return model.requires_grad_(False)


def test_module_is_a_decoder_layer_with_experts() -> None:
    """Also where the layers of the main model are all dense."""
    model = build(config=replace(SMALL, first_k_dense_replace=2))
    (module,) = modules(model)
    assert isinstance(module, MTPModule)
    assert len(module.mlp.experts) == 8
