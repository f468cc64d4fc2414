"""The encoder of a 4M model as a backbone: images of any size in, one feature per token out.

Decoder and output layers stay away (arXiv 2406.09406, section 4). Position tables are interpolated to the
grid at hand, as MultiMAE and 4M do it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ModelError
from ..blocks import EncoderBlock
from ..embeddings import ImageTokenEncoderEmbedding, PixelEncoderEmbedding, patchify
from ..fourm import FourM


def resize_positions(table: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """A table (1, rows * columns, D) of one grid for another: bicubic between its rows and columns."""
    if grid == wanted:
        return table
    planes = table.view(1, *grid, -1).permute(0, 3, 1, 2)
    planes = functional.interpolate(planes, size=wanted, mode="bicubic", align_corners=False)
    return planes.permute(0, 2, 3, 1).flatten(1, 2)


class GridInput(nn.Module):
    """One image-like input on a square grid: patches of pixels, or token ids.

    Args:
        content: maps flattened patches, or ids, to the model's width.
        mod_emb: the modality's vector (1, 1, D).
        positions: table (1, side * side, D).
        patch_size: pixels of a token along each side.
    """

    positions: Tensor

    def __init__(
        self, content: nn.Linear | nn.Embedding, mod_emb: Tensor, positions: Tensor, patch_size: int
    ) -> None:
        super().__init__()
        self.content = content
        self.mod_emb = nn.Parameter(mod_emb.detach().clone())
        self.register_buffer("positions", positions.detach().clone())
        self.patch_size = patch_size

    @property
    def takes_ids(self) -> bool:
        """Whether it is given token ids (B, side, side) instead of pixels (B, C, S, S)."""
        return isinstance(self.content, nn.Embedding)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (B, C, S, S) or ids (B, side, side) to tokens (B, side * side, D)."""
        flat = x.flatten(1) if self.takes_ids else patchify(x, self.patch_size)
        return self.content(flat) + self.positions + self.mod_emb


def grid_input(fourm: FourM, name: str, image_size: int) -> GridInput:
    """The input layer of a modality of a model, for squares of another size.

    Args:
        fourm: has been opened with that input.
        name: checkpoint name of a modality of pixels or of a grid of tokens.
        image_size: pixels along each side.

    Raises:
        ModelError: no such layer, or patches that do not fill the square.
    """
    layer = fourm.encoder_embeddings[name]
    if not isinstance(layer, PixelEncoderEmbedding | ImageTokenEncoderEmbedding):
        raise ModelError(f"{name!r} is no image: this encoder is for images and grids of tokens.")
    row = layer.modality
    assert row.grid is not None
    assert row.patch_size is not None
    side, left = divmod(image_size, row.patch_size)
    if left:
        raise ModelError(f"{name!r} has tokens of {row.patch_size} px, which do not fill {image_size} px.")
    content = layer.proj if isinstance(layer, PixelEncoderEmbedding) else layer.token_emb
    positions = resize_positions(layer.pos_emb, row.grid, (side, side))
    return GridInput(content, layer.mod_emb, positions, row.patch_size)


def one_channel_input(colors: GridInput) -> GridInput:
    """An input layer for maps of one channel, which starts by seeing them as grey pictures.

    For a modality that the model was not trained on; the layer of pixels `colors` stays as it is.
    """
    weight = colors.content.weight.detach()
    proj = nn.Linear(weight.shape[1] // 3, weight.shape[0], bias=False)
    with torch.no_grad():
        proj.weight.copy_(weight.view(weight.shape[0], -1, 3).sum(-1))  # channels lie closest in a patch
    return GridInput(proj, colors.mod_emb, colors.positions, colors.patch_size)


class TransferEncoder(nn.Module):
    """Input layers, encoder blocks and last norm of a 4M model.

    Args:
        fourm: whose blocks it takes over; nothing else of it is kept.
        inputs: layers by the user's name of the modality.
        drop_path: chance in training that a sample skips a branch of the last block, rising linearly to it.
    """

    def __init__(self, fourm: FourM, inputs: Mapping[str, GridInput], drop_path: float = 0.0) -> None:
        super().__init__()
        self.dim = fourm.config.dim
        self.inputs = nn.ModuleDict(inputs)
        self.blocks = fourm.encoder
        self.norm = fourm.encoder_norm
        # Learned tokens before all others, where a model has them.
        self.registers = fourm.register_tokens if fourm.config.num_register_tokens else None
        depth = len(self.blocks)
        self._drop = [drop_path * i / max(depth - 1, 1) for i in range(depth)]

    def layer(self, name: str) -> GridInput:
        """The input layer of a modality, by the user's name."""
        found = self.inputs[name]
        assert isinstance(found, GridInput)
        return found

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By input, pixels (B, C, S, S) or ids, to features (B, n, D) of its tokens; all see all."""
        parts = [self.layer(name)(x) for name, x in batch.items()]
        x = torch.cat(parts, dim=1)
        if self.registers is not None:
            x = torch.cat([self.registers.expand(len(x), -1, -1), x], dim=1)
        for block, drop in zip(self.blocks, self._drop, strict=True):
            assert isinstance(block, EncoderBlock)
            x = x + self._skipped(block.attn(block.norm1(x)), drop)
            x = x + self._skipped(block.mlp(block.norm2(x)), drop)
        x = self.norm(x)[:, x.shape[1] - sum(part.shape[1] for part in parts) :]
        return dict(zip(batch, x.split([part.shape[1] for part in parts], dim=1), strict=True))

    def _skipped(self, branch: Tensor, drop: float) -> Tensor:
        """Stochastic depth (arXiv 1603.09382), drawn with torch's generator."""
        if not self.training or not drop:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= drop
        return branch * kept.to(branch.dtype) / (1 - drop)
