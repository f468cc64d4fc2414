"""anyseek: search visual collections with any mix of modalities.

    import anyseek
    from anyseek import RGB, Caption, F

    with anyseek.open("holidays.anyseek") as library:
        library.index("photos/", to="photos")
        query = Caption("a harbour at dusk") + 0.6 * RGB("boat.jpg") - 0.5 * Caption("people")
        hits = library["photos"].search(query, where=F.year >= 2024)

Public names load on first use, so that `import anyseek` stays light.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .config import Settings
    from .errors import AnyseekError
    from .indexer import FolderSource, Indexer, IndexProgress, IndexReport
    from .model import (
        Generator,
        ModalityPredictor,
        Model,
        Predicted,
        TargetPlan,
        Teacher,
        TeacherEmbedder,
        draw_overview,
        draw_value,
        load_model,
        load_teacher,
        load_tokenizer,
        open_checkpoint,
        write_value,
    )
    from .search import (
        RGB,
        Boxes,
        Caption,
        CheckReport,
        CheckSettings,
        Composition,
        Depth,
        Edges,
        F,
        Features,
        Filter,
        Hit,
        Hits,
        IndexEvaluation,
        IndexSettings,
        Instances,
        Like,
        Metadata,
        Normal,
        Palette,
        Poses,
        Query,
        QueryPart,
        RetrievalReport,
        RetrievalSettings,
        SamEdges,
        SearchEngine,
        Semseg,
        create_app,
    )
    from .storage import Collection, Store

__version__ = "0.1.0"

_HOMES = {
    "errors": ("AnyseekError",),
    "indexer": ("FolderSource", "IndexProgress", "IndexReport", "Indexer"),
    "model": (
        *("Generator", "ModalityPredictor", "Model", "Predicted", "TargetPlan", "Teacher", "draw_overview"),
        *("draw_value", "load_model", "load_teacher", "load_tokenizer", "open_checkpoint", "write_value"),
    ),
    "search": (
        *("RGB", "Boxes", "Caption", "Depth", "Edges", "F", "Features", "Filter", "Hit", "Hits", "Instances"),
        *("Like", "Metadata", "Normal", "Palette", "Poses", "Query", "QueryPart", "SamEdges", "SearchEngine"),
        *("Semseg", "create_app"),
    ),
    "storage": ("Collection", "Store"),
}
_HOME_OF = {name: room for room, names in _HOMES.items() for name in names}

__all__ = [
    "RGB",
    "AnyseekError",
    "Boxes",
    "Caption",
    "Collection",
    "Depth",
    "Edges",
    "F",
    "Features",
    "Filter",
    "FolderSource",
    "Generator",
    "Hit",
    "Hits",
    "IndexProgress",
    "IndexReport",
    "Indexer",
    "Instances",
    "Library",
    "Like",
    "Metadata",
    "ModalityPredictor",
    "Model",
    "Normal",
    "Palette",
    "Poses",
    "Predicted",
    "Query",
    "QueryPart",
    "SamEdges",
    "SearchEngine",
    "Searchable",
    "Semseg",
    "Store",
    "TargetPlan",
    "Teacher",
    "create_app",
    "draw_overview",
    "draw_value",
    "load_model",
    "load_teacher",
    "load_tokenizer",
    "open",
    "open_checkpoint",
    "write_value",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'anyseek' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


class Library:
    """A folder of collections, with the models that embed for them; a context manager.

    Args:
        store: the opened library; this object closes it.
        settings: where models run and which one new collections use.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._models: dict[str, Model] = {}
        self._engine: SearchEngine | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the catalog and the open indexes."""
        self._store.close()

    @property
    def store(self) -> Store:
        """The storage below, for what this facade does not offer."""
        return self._store

    def __iter__(self) -> Iterator[str]:
        return iter([collection.name for collection in self._store.collections()])

    def __len__(self) -> int:
        return len(self._store.collections())

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __getitem__(self, name: str) -> Searchable:
        """Return a collection; raises `NotFoundError` listing the known names."""
        return Searchable(self, self._store.collection(name))

    def model(self, source: str | None = None) -> Model:
        """Return the model of this name or bundle folder, by default the settings', loaded once.

        `library.model().predict({"rgb": Path("photo.jpg")}, ["depth", "caption"])` predicts with it.
        """
        from .model import load_model

        source = source or self._settings.model
        with self._lock:
            if source not in self._models:
                settings = self._settings
                self._models[source] = load_model(source, device=settings.device, dtype=settings.dtype)
            return self._models[source]

    def engine(self) -> SearchEngine:
        """Return a search engine over the collections, each with the model that embedded it."""
        from .search import SearchEngine

        with self._lock:
            if self._engine is None:
                self._engine = SearchEngine(self._store, self.model)
            return self._engine

    def index(
        self,
        folder: Path | str,
        *,
        to: str,
        model: str | None = None,
        views: Sequence[str] | None = None,
        teachers: Mapping[str, Path | str | None] | None = None,
        predict: Sequence[str] = (),
        prefix: str = "",
        prune: bool = False,
        progress: Callable[[IndexProgress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> IndexReport:
        """Index a folder into a collection and publish it; run again to resume or to take up changes.

        Args:
            folder: pictures with side files, or one folder per modality (docs/indexing.md).
            to: the collection; made when new.
            model: model of a new collection; by default the settings'. An existing collection keeps its own.
            views: what the vectors of a new collection are predicted from: `joint` (all that an item has), or
                modalities by name; `joint` by default.
            teachers: instead of vectors predicted by the model, true ones of its teachers wherever an item
                has RGB: by name (`dinov2`, `imagebind`) where their weights are (file, folder, hub id; None:
                the published ones). Empty: only items' own vectors (`dinov2_global`) are true. All items of
                a collection are indexed with the same.
            predict: modalities that become attributes by prediction (`metadata`, `palette`, `caption`), as
                `predicted.brightness`, `predicted.caption`, ...
            prefix: put in front of each item's id.
            prune: remove items of this folder whose files are gone.
            progress: called as items are handled.
            should_stop: asked after every commit; True ends the call there, to be taken up later.

        Raises:
            InputError, ModelError, StorageError: the job as a whole cannot go on. Bad files do not raise: the
                report lists them.
        """
        from .indexer import FolderSource

        return self.indexer(to, model=model, views=views, teachers=teachers).index(
            to,
            FolderSource(Path(folder), prefix=prefix),
            prune=prune,
            predict=predict,
            progress=progress,
            should_stop=should_stop,
        )

    def indexer(
        self,
        collection: str,
        *,
        model: str | None = None,
        views: Sequence[str] | None = None,
        teachers: Mapping[str, Path | str | None] | None = None,
    ) -> Indexer:
        """Return what fills a collection, with its own model or, where new, the given or default one.

        Views and teachers are as for `index`.
        """
        from .errors import NotFoundError
        from .indexer import Indexer

        if model is None:
            try:
                model = self._store.collection(collection).model
            except NotFoundError:
                model = self._settings.model
        opened = self.model(model)
        gallery = None if teachers is None else _open_gallery(opened, teachers)
        return Indexer(self._store, opened, views=views, gallery=gallery)

    def app(self) -> FastAPI:
        """Return the HTTP API over this library, to serve or to mount in another application.

        The search page is at `/`, searches, predictions, uploads and jobs are under `/v1`.
        """
        from .indexer import create_router
        from .search import create_app

        router = create_router(self._store, self.indexer, roots=self._settings.index_roots)
        return create_app(self.engine(), routers=[router], model=self.model, api_key=self._settings.api_key)


def _open_gallery(opened: Model, teachers: Mapping[str, Path | str | None]) -> TeacherEmbedder:
    from .model import open_gallery

    return open_gallery(opened, teachers)


def _query_files(folders: Mapping[str, Path | str]) -> dict[str, dict[str, Path]]:
    """By item and modality the files of folders that hold one modality each, or (`*`) any."""
    from .indexer import FolderSource
    from .model import raw_name

    found: dict[str, dict[str, Path]] = {}
    for word, folder in folders.items():
        wanted = None if word == "*" else raw_name(word)
        for item in FolderSource(folder).scan():
            files = {raw: path for raw, path in item.files.items() if wanted in (None, raw)}
            if files:
                found.setdefault(item.id, {}).update(files)
    return found


class Searchable:
    """One collection of an open library."""

    def __init__(self, library: Library, record: Collection) -> None:
        self._library = library
        self.record = record

    def __len__(self) -> int:
        return self._library.store.collection(self.record.name).num_items

    def search(
        self,
        query: Query | QueryPart,
        *,
        where: Filter | None = None,
        limit: int = 20,
        view: str = "joint",
        composition: Composition = "auto",
        spaces: Mapping[str, float] | None = None,
        explain: bool = False,
    ) -> Hits:
        """Search the collection; see `SearchEngine.search`."""
        return self._library.engine().search(
            self.record.name,
            query,
            where=where,
            limit=limit,
            view=view,
            composition=composition,
            spaces=spaces,
            explain=explain,
        )

    def evaluate(
        self,
        settings: RetrievalSettings | None = None,
        *,
        queries: Mapping[str, Path | str] | None = None,
        teachers: Mapping[str, Path | str | None] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> RetrievalReport:
        """Measure how well each kind of query finds the items that it was made from.

        Args:
            settings: what to ask.
            queries: folders of other files to ask with, named as the items' own: by modality, such as the
                same scene's other photo for `rgb`; under `*` all that a folder holds.
            teachers: for the ceiling, as for `Library.index`.
            progress: told the stage, what is done and of how much.

        Raises:
            QueryError, InputError, ModelError: as `search.evaluate_collection`; a folder that is none.
        """
        from .search import evaluate_collection

        return evaluate_collection(
            self._library.engine(),
            self.record.name,
            settings,
            queries=_query_files(queries or {}),
            truth=_open_gallery(self._library.model(self.record.model), teachers or {}),
            progress=progress,
        )

    def evaluate_index(
        self,
        settings: IndexSettings | None = None,
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> IndexEvaluation:
        """Measure what is published: recall, latency, bytes; see `search.evaluate_index`."""
        from .search import evaluate_index

        return evaluate_index(self._library.store, self.record.name, settings, progress=progress)

    def check(
        self,
        settings: CheckSettings | None = None,
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> CheckReport:
        """Find items whose modalities do not belong together; see `search.check_collection`."""
        from .search import check_collection

        return check_collection(self._library.engine(), self.record.name, settings, progress=progress)


def open(path: Path | str | None = None, *, create: bool = True, settings: Settings | None = None) -> Library:
    """Open a library folder, by default the settings'; a context manager.

    Args:
        path: the library's folder.
        create: make it when missing.
        settings: instead of those of the environment.

    Raises:
        NotFoundError: no library there and `create` is False.
        ConfigError: the environment holds a setting that cannot be understood.
    """
    from .config import load_settings
    from .storage import Store

    settings = settings or load_settings()
    where = Path(path) if path is not None else settings.library
    return Library(Store.open(where, database_url=settings.database_url, create=create), settings)
