"""How many bytes a collection takes on disk, and what for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .catalog import Catalog
from .generations import index_file, tokens_file
from .reader import generation_path
from .snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes on disk of what a snapshot reads. Files of a generation are mapped, so that searching takes at
    most as much memory, which the system may take back.

    Args:
        indexes: by space and view, of the index.
        tokens: by space and view, of the token ids.
        generation: of all files of the generation, these included; 0 before the first.
        segments: of the segments, from which generations are built.
    """

    indexes: Mapping[tuple[str, str], int]
    tokens: Mapping[tuple[str, str], int]
    generation: int
    segments: int


def footprint(folder: Path, catalog: Catalog, snapshot: Snapshot) -> Footprint:
    """Measure a collection.

    Args:
        folder: where the collections' folders lie.
        catalog: of the same library.
        snapshot: of the collection.
    """
    collection = snapshot.collection
    sizes: dict[str, int] = {}
    if snapshot.generation is not None:
        path = generation_path(folder, collection.id, snapshot.generation)
        sizes = {file.name: file.stat().st_size for file in path.iterdir()} if path.is_dir() else {}
    places = [(space.name, view) for space in collection.spaces for view in collection.views]
    return Footprint(
        indexes={place: sizes.get(index_file(*place), 0) for place in places},
        tokens={place: sizes.get(tokens_file(*place), 0) for place in places},
        generation=sum(sizes.values()),
        segments=sum(segment.num_bytes for segment in catalog.segments(collection.name)),
    )
