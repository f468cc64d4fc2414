"""The class behind a tokenizer's configuration."""

from collections.abc import Mapping

from .divae import DiffusionTokenizerConfig, DiVAE
from .image import VQVAE, TokenizerConfig

ImageTokenizer = VQVAE | DiVAE
"""Every tokenizer of values; both satisfy `Tokenizer`."""

# Published configurations do not name their class: these keys exist in one of them only.
_DIFFUSION_KEYS = ("beta_schedule", "prediction_type", "scheduler", "num_train_timesteps", "thresholding")


def parse_tokenizer_config(
    values: Mapping[str, object], *, where: str = "config.json"
) -> TokenizerConfig | DiffusionTokenizerConfig:
    """Read configuration values strictly; CheckpointError says what is unknown, missing or wrong."""
    is_diffusion = any(key in values for key in _DIFFUSION_KEYS) or str(values.get("dec_type")).startswith(
        ("unet", "uvit")
    )
    return (DiffusionTokenizerConfig if is_diffusion else TokenizerConfig).parse(values, where=where)


def build_tokenizer(config: TokenizerConfig, *, encoder: bool = True, decoder: bool = True) -> ImageTokenizer:
    """The tokenizer of a configuration, or the part that encodes or decodes. Raises ModelError."""
    if isinstance(config, DiffusionTokenizerConfig):
        return DiVAE(config, encoder=encoder, decoder=decoder)
    return VQVAE(config, encoder=encoder, decoder=decoder)
