"""Transformer blocks of 4M: attention, MLP, norms (arXiv 2312.06647; names as in the published state dicts).

Masks arrive as an additive *bias* made once per pass by `attention_bias`, or None where nothing is masked.
Keys and values of cross-attention are computed apart from the attention itself (`DecoderBlock.context_kv`),
so that a caller can keep them for several passes over one context.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6
"""Epsilon of every layer norm in 4M."""

ACTIVATIONS = {"GELU": functional.gelu, "SiLU": functional.silu}
"""Activations by the name configurations use. GELU is the exact one."""

# Not -inf: a row with every key masked must become uniform instead of NaN, as in the published models. Not
# the float32 minimum either, which rounds to -inf in bfloat16.
_MASKED = -1e30

KeyValue = tuple[Tensor, Tensor]
"""Keys and values, each (B, heads, N, head_dim)."""


class Packing:
    """Lays rows of different lengths end to end, so that linear layers and norms see no padding.

    Args:
        mask: bool (B, N), True = padding.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        # None while nothing is padded: then the two layouts are views of each other.
        self._slots = (~mask).flatten().nonzero()[:, 0] if bool(mask.any()) else None

    def pack(self, x: Tensor) -> Tensor:
        """(B, N, D) to (T, D), padding left out."""
        return x.flatten(0, 1) if self._slots is None else x.flatten(0, 1)[self._slots]

    def pad(self, x: Tensor) -> Tensor:
        """(T, D) to (B, N, D), zero at padding."""
        shape = (*self.mask.shape, x.shape[-1])
        if self._slots is None:
            return x.view(shape)
        return x.new_zeros(self.mask.numel(), x.shape[-1]).index_copy_(0, self._slots, x).view(shape)


class KeyValueCache:
    """Keys and values of the tokens that a causal decoder block has seen, with room for more.

    Args:
        length: most tokens.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._used = 0
        self._kept: tuple[Tensor, ...] = ()

    def append(self, k: Tensor, v: Tensor) -> KeyValue:
        """Add those of new tokens (B, heads, M, head_dim); gives all so far."""
        if not self._kept:
            self._kept = tuple(x.new_empty(*x.shape[:2], self._length, x.shape[3]) for x in (k, v))
        start, self._used = self._used, self._used + k.shape[2]
        for kept, new in zip(self._kept, (k, v), strict=True):
            kept[:, :, start : self._used] = new
        return self._kept[0][:, :, : self._used], self._kept[1][:, :, : self._used]

    def keep_rows(self, index: Tensor) -> None:
        """Go on with only some rows of the batch, int64 (B',)."""
        self._kept = tuple(kept[index] for kept in self._kept)


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What to add to attention logits so that masked keys are ignored.

    Args:
        mask: bool, True = ignore this key: (B, N) for all queries alike, or (B or 1, M, N).
        dtype: that of the queries.

    Returns:
        (B, 1, 1 or M, N) of `dtype`, or None when the mask hides nothing.
    """
    if not bool(mask.any()):
        return None
    mask = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
    value = max(_MASKED, torch.finfo(dtype).min)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, value)


class LayerNorm(nn.Module):
    """Layer norm. Without norm biases in a model, `bias` is a buffer of zeros: its files hold it anyway."""

    bias: Tensor

    def __init__(self, dim: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        if bias:
            self.bias = nn.Parameter(torch.zeros(dim))
        else:
            self.register_buffer("bias", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, EPS)


@dataclass(frozen=True)
class BlockConfig:
    """Sizes and variants that all blocks of one model share.

    Attributes:
        dim: width of the residual stream.
        num_heads: attention heads; divides `dim`.
        mlp_hidden: hidden width of the MLP before a gate takes its third.
        activation: a key of ACTIVATIONS.
        gated: whether the MLP is gated (SwiGLU with SiLU).
        qkv_bias, proj_bias, mlp_bias, norm_bias: whether these layers add a bias.
        qk_norm: whether queries and keys are normalised per head.
    """

    dim: int
    num_heads: int
    mlp_hidden: int
    activation: str
    gated: bool
    qkv_bias: bool
    proj_bias: bool
    mlp_bias: bool
    norm_bias: bool
    qk_norm: bool


def _heads(x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """(B, N, parts * D) to `parts` tensors (B, heads, N, head_dim)."""
    batch, length, width = x.shape
    x = x.view(batch, length, parts, num_heads, width // (parts * num_heads))
    return x.permute(2, 0, 3, 1, 4).unbind(0)


def _merge(x: Tensor) -> Tensor:
    """(B, heads, N, head_dim) to (B, N, D)."""
    return x.transpose(1, 2).flatten(2)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    # Under autocast q has another type than the residual stream for which the bias was made.
    if q.requires_grad and q.device.type == "cpu":
        # Written out: the backward pass of the fused kernel is ten times slower here for bfloat16.
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return (logits if bias is None else logits + bias.to(q.dtype)).softmax(-1) @ v
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=None if bias is None else bias.to(q.dtype)
    )


def _head_norm(config: BlockConfig) -> nn.Module:
    return (
        LayerNorm(config.dim // config.num_heads, bias=config.norm_bias) if config.qk_norm else nn.Identity()
    )


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        dim, self.num_heads = config.dim, config.num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=config.proj_bias)
        self.q_norm, self.k_norm = _head_norm(config), _head_norm(config)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        packing: Packing | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """(B, N, D) to (B, N, D), or (T, D) to (T, D) with a packing; `bias` from `attention_bias`.

        With a cache, `x` holds only new tokens: they are added to it and see all that it holds.
        """
        qkv = self.qkv(x)
        q, k, v = _heads(qkv if packing is None else packing.pad(qkv), 3, self.num_heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if cache is not None:
            k, v = cache.append(k, v)
        y = _merge(_attend(q, k, v, bias))
        return self.proj(y if packing is None else packing.pack(y))


class CrossAttention(nn.Module):
    """Multi-head attention from queries to a context whose keys and values were made by `keys_values`."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        dim, self.num_heads = config.dim, config.num_heads
        self.q = nn.Linear(dim, dim, bias=config.qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=config.qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=config.proj_bias)
        self.q_norm, self.k_norm = _head_norm(config), _head_norm(config)

    def keys_values(self, context: Tensor, packing: Packing | None = None) -> KeyValue:
        """Normalised context (B, N, D), or (T, D) with a packing, to keys and values."""
        kv = self.kv(context)
        k, v = _heads(kv if packing is None else packing.pad(kv), 2, self.num_heads)
        return self.k_norm(k), v

    def forward(self, x: Tensor, kv: KeyValue, bias: Tensor | None = None) -> Tensor:
        """Queries (B, M, D) to (B, M, D)."""
        (q,) = _heads(self.q(x), 1, self.num_heads)
        return self.proj(_merge(_attend(self.q_norm(q), *kv, bias)))


class Mlp(nn.Module):
    """fc2(act(fc1(x))), or with a gate fc2(act(fc1(x)) * fc3(x)) at two thirds of the hidden width."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        dim, bias = config.dim, config.mlp_bias
        hidden = 2 * config.mlp_hidden // 3 if config.gated else config.mlp_hidden
        self.activation = ACTIVATIONS[config.activation]
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, dim, bias=bias)
        self.fc3 = nn.Linear(dim, hidden, bias=bias) if config.gated else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same shape."""
        hidden = self.activation(self.fc1(x))
        return self.fc2(hidden if self.fc3 is None else hidden * self.fc3(x))


class EncoderBlock(nn.Module):
    """Pre-norm block: self-attention, MLP."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        dim, bias = config.dim, config.norm_bias
        self.norm1 = LayerNorm(dim, bias=bias)
        self.attn = SelfAttention(config)
        self.norm2 = LayerNorm(dim, bias=bias)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, bias: Tensor | None = None, packing: Packing | None = None) -> Tensor:
        """(B, N, D) to (B, N, D), or (T, D) to (T, D) with a packing."""
        x = x + self.attn(self.norm1(x), bias, packing)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Pre-norm block: self-attention, cross-attention to the encoder's context, MLP."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        dim, bias = config.dim, config.norm_bias
        self.norm1 = LayerNorm(dim, bias=bias)
        self.self_attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config)
        self.query_norm = LayerNorm(dim, bias=bias)
        self.context_norm = LayerNorm(dim, bias=bias)
        self.norm2 = LayerNorm(dim, bias=bias)
        self.mlp = Mlp(config)

    def context_kv(self, context: Tensor, packing: Packing | None = None) -> KeyValue:
        """Keys and values of this block for a context (B, N, D), or (T, D) with a packing.

        They do not depend on the targets.
        """
        return self.cross_attn.keys_values(self.context_norm(context), packing)

    def forward(
        self,
        x: Tensor,
        kv: KeyValue,
        self_bias: Tensor | None = None,
        context_bias: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Targets (B, M, D) to (B, M, D), attending to themselves and to the context behind `kv`.

        With a cache, `x` holds only new targets, which also see those before them.
        """
        x = x + self.self_attn(self.norm1(x), self_bias, cache=cache)
        x = x + self.cross_attn(self.query_norm(x), kv, context_bias)
        return x + self.mlp(self.norm2(x))
