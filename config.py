"""Settings of the command line and of the `Library` facade, from the environment (`ANYSEEK_...`).

Only the composing modules (`cli.py`, `__init__.py`) read them; the rooms take plain arguments.
"""

from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import ConfigError


class Settings(BaseSettings):
    """What can be set without an argument; each field is `ANYSEEK_` plus its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="ANYSEEK_", frozen=True)

    library: Path = Field(
        default_factory=lambda: user_data_path("anyseek") / "library.anyseek",
        description="Folder of the library that commands work on.",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the catalog; none: SQLite inside the library."
    )
    model: str = Field("scenes", description="Model of new collections: a name or a bundle folder.")
    device: str = Field("auto", description="Torch device of the model: auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Number type of the model.")
    api_key: str | None = Field(None, description="Bearer token that the server asks for; none: open.")
    index_roots: tuple[Path, ...] = Field(
        (), description="JSON list of folders that HTTP clients may have indexed; none: uploads only."
    )


def load_settings() -> Settings:
    """Read the settings; raises `ConfigError` naming each variable that cannot be understood."""
    try:
        return Settings()  # pyright: ignore[reportCallIssue]  (pydantic fills every field)
    except ValidationError as error:
        faults = "; ".join(
            f"ANYSEEK_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ConfigError(f"The environment holds settings that cannot be used: {faults}.") from error
