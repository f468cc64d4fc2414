"""Input and output layers of 4M, one class per kind of modality (names as in the published state dicts).

Every layer gives content and *embedding* (position + modality) apart: the encoder adds them after it has
selected tokens, and the decoder's context adds the embedding of the encoder's tokens once more.
"""

import torch
from torch import Tensor, nn

from ..errors import InputError
from .modalities import SEQUENCE_POSITIONS, Modality

Embedded = tuple[Tensor, Tensor]
"""Content (B, n, D), and embedding (B or 1, n, D)."""


def sincos_1d(length: int, dim: int) -> Tensor:
    """Position table (1, length, dim): all sines, then all cosines, at dim / 2 frequencies."""
    return _sincos(torch.arange(length, dtype=torch.float32), dim)[None]


def sincos_2d(grid: tuple[int, int], dim: int) -> Tensor:
    """Position table (1, rows * columns, dim) for a row-major grid; `dim` is a multiple of 4.

    The first half encodes i // rows and the second i % rows of the token's index i: row and column on the
    square grids that exist.
    """
    index = torch.arange(grid[0] * grid[1])
    slow, fast = index // grid[0], index % grid[0]
    return torch.cat([_sincos(slow.float(), dim // 2), _sincos(fast.float(), dim // 2)], dim=1)[None]


def _sincos(position: Tensor, dim: int) -> Tensor:
    half = dim // 2
    frequency = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = position.double()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def patchify(pixels: Tensor, patch_size: int) -> Tensor:
    """Images (B, C, H, W) to patches (B, rows * columns, patch * patch * C), channel fastest."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    patches = pixels.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


def _table(num: int, dim: int, padding_idx: int | None = None) -> nn.Embedding:
    # Given its weight, nn.Embedding draws nothing: drawing costs seconds of imports on the meta device.
    return nn.Embedding(num, dim, padding_idx=padding_idx, _weight=torch.empty(num, dim))


class _Embedding(nn.Module):
    """What all kinds share: the modality's vector and its table of positions."""

    pos_emb: Tensor

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__()
        self.modality = modality
        self.mod_emb = nn.Parameter(torch.empty(1, 1, dim))
        if modality.positions == "learned":
            self.pos_emb = nn.Parameter(torch.empty(1, modality.max_tokens, dim))
        else:
            # 512 rows for any sequence, whatever the modality's limit: that is the shape in the files.
            length = SEQUENCE_POSITIONS if modality.grid is None else modality.max_tokens
            self.register_buffer("pos_emb", torch.empty(1, length, dim))

    def reset_parameters(self) -> None:
        """Fill the fixed table and draw the rest; projections are drawn by the model."""
        nn.init.normal_(self.mod_emb, std=0.02)
        _, length, dim = self.pos_emb.shape
        if isinstance(self.pos_emb, nn.Parameter):
            nn.init.normal_(self.pos_emb, std=0.02)
        else:
            grid = self.modality.grid
            self.pos_emb.copy_(sincos_1d(length, dim) if grid is None else sincos_2d(grid, dim))
        for table in self.children():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=0.02)
                if table.padding_idx is not None:
                    nn.init.zeros_(table.weight[table.padding_idx])

    def grid_embedding(self) -> Tensor:
        """(1, n, D), the same whatever is masked."""
        return self.pos_emb + self.mod_emb

    def ranked_embedding(self, mask: Tensor, limit: int | None = None) -> Tensor:
        """(B, n, D) for a sequence mask (B, n): a token's position is its rank among the used ones.

        Args:
            mask: True = ignore.
            limit: ranks from here on take position 0.

        Raises:
            InputError: more tokens are used than there are positions, and no limit says what to do.
        """
        rank = (~mask).cumsum(1) - 1
        if limit is not None:
            rank = rank.masked_fill(rank >= limit, 0)
        elif mask.shape[1] > SEQUENCE_POSITIONS and bool((rank >= SEQUENCE_POSITIONS).any()):
            raise InputError(f"{self.modality.name}: more than {SEQUENCE_POSITIONS} tokens; cut it.")
        # Ignored tokens get some position too, and are dropped or zeroed by whoever selects tokens.
        return self.pos_emb[0][rank.clamp(0, SEQUENCE_POSITIONS - 1)] + self.mod_emb


class PixelEncoderEmbedding(_Embedding):
    """Raw pixels, one linear map per patch."""

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__(modality, dim)
        assert modality.channels is not None
        assert modality.patch_size is not None
        self.patch_size = modality.patch_size
        self.proj = nn.Linear(modality.channels * modality.patch_size**2, dim, bias=False)

    def forward(self, tensor: Tensor, mask: Tensor) -> Embedded:
        """Normalised float images (B, C, H, W) of the modality's size to n patches."""
        del mask
        size, channels = self.modality.image_size, self.modality.channels
        if tensor.shape[1:] != (channels, size, size):
            raise InputError(
                f"{self.modality.name}: expected images (B, {channels}, {size}, {size}), "
                f"got {tuple(tensor.shape)}."
            )
        return self.proj(patchify(tensor.to(self.proj.weight.dtype), self.patch_size)), self.grid_embedding()


class ImageTokenEncoderEmbedding(_Embedding):
    """A grid of token ids."""

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__(modality, dim)
        assert modality.vocab_size is not None
        self.token_emb = _table(modality.vocab_size, dim)

    def forward(self, tensor: Tensor, mask: Tensor) -> Embedded:
        """Ids (B, n) or (B, rows, columns) to n tokens."""
        del mask
        return self.token_emb(tensor.flatten(1)), self.grid_embedding()


class SequenceEncoderEmbedding(_Embedding):
    """Text-like token ids."""

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__(modality, dim)
        assert modality.vocab_size is not None
        self.token_emb = _table(modality.vocab_size, dim, padding_idx=0)

    def forward(self, tensor: Tensor, mask: Tensor) -> Embedded:
        """Ids (B, n) and their mask (True = ignore) to n tokens; at most 512 of them used."""
        return self.token_emb(tensor), self.ranked_embedding(mask)


class VectorSequenceEncoderEmbedding(_Embedding):
    """A sequence of continuous vectors, such as T5 states."""

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__(modality, dim)
        assert modality.channels is not None
        self.emb_proj = nn.Linear(modality.channels, dim)

    def forward(self, tensor: Tensor, mask: Tensor) -> Embedded:
        """Vectors (B, n, channels) and their mask to n tokens."""
        return self.emb_proj(tensor.to(self.emb_proj.weight.dtype)), self.ranked_embedding(mask)


class ImageTokenDecoderEmbedding(_Embedding):
    """Predicts a grid of token ids; what is predicted is never shown.

    Args:
        modality: the target.
        dim: model width.
        with_tokens: hold the `token_emb` that published files carry although nothing reads it.
    """

    def __init__(self, modality: Modality, dim: int, *, with_tokens: bool = True) -> None:
        super().__init__(modality, dim)
        assert modality.vocab_size is not None
        self.token_emb = _table(modality.vocab_size, dim) if with_tokens else None
        self.to_logits = nn.Linear(dim, modality.vocab_size, bias=False)


class SequenceDecoderEmbedding(_Embedding):
    """Predicts text-like token ids, each from those before it."""

    def __init__(self, modality: Modality, dim: int) -> None:
        super().__init__(modality, dim)
        assert modality.vocab_size is not None
        self.token_emb = _table(modality.vocab_size, dim, padding_idx=0)
        self.to_logits = nn.Linear(dim, modality.vocab_size, bias=False)

    def forward(self, tensor: Tensor, mask: Tensor) -> Embedded:
        """Ids (B, n) and their target mask (True = not a target) to n tokens."""
        return self.token_emb(tensor), self.ranked_embedding(mask, self.modality.decoder_positions)


EncoderEmbedding = (
    PixelEncoderEmbedding
    | ImageTokenEncoderEmbedding
    | SequenceEncoderEmbedding
    | VectorSequenceEncoderEmbedding
)
DecoderEmbedding = ImageTokenDecoderEmbedding | SequenceDecoderEmbedding

_ENCODERS = {
    "pix": PixelEncoderEmbedding,
    "img": ImageTokenEncoderEmbedding,
    "seq": SequenceEncoderEmbedding,
    "emb": VectorSequenceEncoderEmbedding,
}


def encoder_embedding(modality: Modality, dim: int) -> EncoderEmbedding:
    """The input layer for a modality of any kind."""
    return _ENCODERS[modality.kind](modality, dim)


def decoder_embedding(modality: Modality, dim: int, *, with_tokens: bool = True) -> DecoderEmbedding:
    """The output layer for a modality that consists of token ids (`modality.is_target`)."""
    if modality.kind == "img":
        return ImageTokenDecoderEmbedding(modality, dim, with_tokens=with_tokens)
    return SequenceDecoderEmbedding(modality, dim)
