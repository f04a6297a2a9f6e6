"""The Transformer with dynamic short convolutions (arXiv 2606.03825) in plain PyTorch, written from
the paper's formulas and docs/numerics.md, with autograd for the backward pass.

Letters: B sequences, T positions, D channels, Q query heads, K head width, V classes, R filter rank,
W taps, G groups of channels that share a head-wise filter. Weights are a dictionary with the names
of `convoy checkpoint export`. Activations have the dtype of `compute`; norms, softmax, filters and
the loss are f32 inside (f64 where `compute` is).
"""
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

SITES = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}


@dataclass
class Shape:
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    qk_norm: bool = False
    norm_eps: float = 1e-5
    rope_theta: float = 1e4
    rope_pairs: str = "half-split"  # (j, j + K/2); "interleaved" (2j, 2j + 1) is another model
    taps_cross_documents: bool = False  # true is another model

    @property
    def head_width(self):
        return self.d_model // self.n_heads


@dataclass
class Batch:
    tokens: torch.Tensor          # [B, T]
    targets: torch.Tensor         # [B, T], -1: not counted
    document_start: torch.Tensor  # [B, T], position where this position's document starts
    positions: torch.Tensor = field(init=False)

    def __post_init__(self):
        self.positions = torch.arange(self.tokens.shape[1], device=self.tokens.device)


def wide(x):
    """Statistics are never narrower than f32."""
    return x if x.dtype == torch.float64 else x.float()


def rms_norm(x, weight, eps):
    full = wide(x)
    scale = torch.rsqrt(full.square().mean(-1, keepdim=True) + eps)
    return (full * scale * wide(weight)).to(x.dtype)


def rotate(x, shape):
    """x [B, T, heads, K]: pair j of position p turns by p * theta^(-2j/K)."""
    width = x.shape[-1]
    j = torch.arange(width // 2, device=x.device, dtype=torch.float64)
    position = torch.arange(x.shape[1], device=x.device, dtype=torch.float64)
    angle = position[:, None, None] * shape.rope_theta ** (-2 * j / width)
    full = wide(x)
    cosine, sine = angle.cos().to(full.dtype), angle.sin().to(full.dtype)
    if shape.rope_pairs == "interleaved":
        left, right = full[..., 0::2], full[..., 1::2]
        turned = torch.stack([left * cosine - right * sine, right * cosine + left * sine], -1)
        return turned.flatten(-2).to(x.dtype)
    left, right = full.chunk(2, dim=-1)
    return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1).to(x.dtype)


def filters(h, conv):
    """[B, T, W, D], or [W, D] where they are static: K = s, s + z U with z = h A, or s + h G with
    one filter for a group of channels."""
    s = wide(conv["s"])
    if "U" in conv:
        z = F.linear(h, conv["A"])
        return s + torch.einsum("btr,rwd->btwd", wide(z), wide(conv["U"]))
    if "G" in conv:
        groups, width, _ = conv["G"].shape
        generated = F.linear(h, conv["G"].flatten(0, 1)).unflatten(-1, (groups, width))
        per_channel = generated.transpose(-1, -2).repeat_interleave(s.shape[1] // groups, dim=-1)
        return s + wide(per_channel)
    return s


def convolve(x, h, conv, shape, batch):
    """x + sum over taps w of K[t, w] x[t - w], within the document of t."""
    taps = filters(h, conv)
    full = wide(x)
    y = full
    for w in range(taps.shape[-2]):
        behind = F.pad(full, (0, 0, w, 0))[:, : full.shape[1]]
        first = torch.zeros_like(batch.document_start) if shape.taps_cross_documents \
            else batch.document_start
        inside = (batch.positions - w >= first).unsqueeze(-1)
        y = y + taps[..., w, :] * torch.where(inside, behind, 0)
    return y.to(x.dtype)


class Transformer:
    """A function of weights and a batch; `compute` is the dtype of activations."""

    def __init__(self, shape, compute):
        self.shape, self.compute = shape, compute

    def linear(self, h, weights, prefix, site, batch):
        name = f"{prefix}{SITES[site]}."
        y = F.linear(h, weights[name + "weight"])
        conv = {key: weights[name + "conv." + key] for key in ("s", "A", "U", "G")
                if name + "conv." + key in weights}
        return convolve(y, h, conv, self.shape, batch) if conv else y

    def attention(self, x, weights, prefix, batch):
        shape = self.shape
        q, k, v = (self.linear(x, weights, prefix, site, batch).unflatten(-1, (-1, shape.head_width))
                   for site in "qkv")
        if shape.qk_norm:
            q = rms_norm(q, weights[prefix + "self_attn.q_norm.weight"], shape.norm_eps)
            k = rms_norm(k, weights[prefix + "self_attn.k_norm.weight"], shape.norm_eps)
        q, k = rotate(q, shape), rotate(k, shape)
        shared = shape.n_heads // shape.n_kv_heads
        k, v = (t.repeat_interleave(shared, dim=2) for t in (k, v))
        query, key = batch.positions[:, None], batch.positions[None, :]
        visible = (key <= query) & (key >= batch.document_start[:, :, None])
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=visible[:, None])
        return self.linear(out.transpose(1, 2).flatten(-2), weights, prefix, "o", batch)

    def mlp(self, x, weights, prefix, batch):
        gate = self.linear(x, weights, prefix, "gate", batch)
        up = self.linear(x, weights, prefix, "up", batch)
        activation = (F.silu(wide(gate)) * wide(up)).to(x.dtype)
        return self.linear(activation, weights, prefix, "down", batch)

    def logits(self, weights, batch):
        """[B, T, V]"""
        used = {name: value.to(self.compute) for name, value in weights.items()}
        table = used["model.embed_tokens.weight"]
        x = F.embedding(batch.tokens, table)
        for layer in range(self.shape.n_layers):
            prefix = f"model.layers.{layer}."
            norm = lambda name, rows: rms_norm(rows, used[prefix + name], self.shape.norm_eps)
            x = x + self.attention(norm("input_layernorm.weight", x), used, prefix, batch)
            x = x + self.mlp(norm("post_attention_layernorm.weight", x), used, prefix, batch)
        hidden = rms_norm(x, used["model.norm.weight"], self.shape.norm_eps)
        return F.linear(hidden, used.get("lm_head.weight", table))

    def loss(self, logits, batch):
        """Nats per counted target."""
        targets = batch.targets.flatten().long()
        total = F.cross_entropy(wide(logits).flatten(0, 1), targets, ignore_index=-1,
                                reduction="sum")
        return total / (targets >= 0).sum()
