"""Label maps: which class each pixel shows, as ids or painted in colours."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError, LimitError
from ..images import ImageLimits, nearest_square
from ..modalities import Modality
from .content import Content, decode_text, parse_json, read_bytes
from .pictures import one_channel, read_stored, stored_legend

NOTHING = frozenset({"", "none", "nothing", "unlabeled", "void"})
"""Names in a legend that stand for no class."""

NO_LABEL = 255
"""Id in files of pixels without a class."""

_MAX_LEGEND_BYTES = 2**16
_MAX_NAMED = 1024
_LISTED = 20
_COLOR_SLACK = 15  # per channel: what JPEG does to a colour; half of what lies between two class colours
_SOFT_EDGE = 2.5  # pixels: a brush mixes colours no farther from its own
_KEY = re.compile(r"#[0-9a-f]{6}|[0-9]{1,3}")


def read_semseg(
    content: Content, *, name: str, row: Modality, limits: ImageLimits, classes: tuple[str, ...]
) -> np.ndarray:
    """Read a semantic segmentation.

    Args:
        content: picture, array (H, W) or NumPy file of ids, 0 the first class and 255 none; or a picture
            whose colours or ids a legend names. The legend, `{"#rrggbb" or "id": "name"}`, stands in the text
            chunk `anyseek:classes` of a PNG, beside a path in `<stem>.classes.json` or `classes.json`, or in
            `{"map": ..., "classes": {...}}`.
        name: what messages call it.
        row: the modality, for its size.
        limits: of files and pixels.
        classes: names of the model's classes.

    Returns:
        uint8 (S, S), 0 nothing, k the class `classes[k - 1]`. Never interpolated.

    Raises:
        LimitError: larger than `limits`.
        InputError: a class, id or colour that is not known, lossy ids, or no picture at all.
    """
    assert row.image_size is not None
    legend = None
    if isinstance(content, Mapping):
        if set(content) != {"map", "classes"}:
            raise InputError(f'{name}: expected {{"map": a picture or array, "classes": {{...}}}}.')
        legend, content = content["classes"], content["map"]
    stored = read_stored(content, name=name, limits=limits)
    where, legend = f"{name}: classes", legend or stored_legend(stored, name)
    if not legend and isinstance(content, Path):
        where, legend = _beside(content)
    if legend:
        names = _parse_legend(legend, where, classes)
        labels = _named_labels(stored, names, row.image_size, name)
    else:
        labels = shift_labels(_ids(stored, name, len(classes)))
    return nearest_square(labels, row.image_size)


def shift_labels(ids: np.ndarray) -> np.ndarray:
    """Ids of files (0 the first class, 255 none) to labels (0 none, 1 the first class), both uint8."""
    return ids + np.uint8(1)


def find_class(word: str, classes: tuple[str, ...]) -> int:
    """The label of a class by name: 1 the first of `classes`, 0 for one of NOTHING.

    Letter case, spaces and COCO's endings do not matter: `Sky` is `sky-other-merged`.

    Raises:
        ValueError: unknown; the message lists close names.
    """
    plain = _plain(word)
    if plain in NOTHING:
        return 0
    known = [_plain(one) for one in classes]
    short = [_short(one) for one in known]
    for names in (known, short):
        if plain in names:
            return names.index(plain) + 1
    close = difflib.get_close_matches(plain, dict.fromkeys([*known, *short]), n=4, cutoff=0.5)
    hint = f"close are {', '.join(close)}; " if close else ""
    listed = f"known are {', '.join(classes)}" if len(classes) <= _LISTED else "docs/formats.md lists all"
    raise ValueError(f"unknown class {word[:60]!r}; {hint}{listed}")


def _plain(word: str) -> str:
    return re.sub(r"[\s_-]+", "-", word.strip().lower())


def _short(word: str) -> str:
    return re.sub(r"(-other)?(-merged|-stuff)?$", "", word)


def _beside(path: Path) -> tuple[str, str]:
    """Path and text of the legend beside a map: of its own name, of its item's, or of the whole folder."""
    item = path.stem.removesuffix(".semseg")
    for stem in dict.fromkeys((f"{path.stem}.", f"{item}.", "")):
        legend = path.with_name(f"{stem}classes.json")
        if legend.is_file():
            name = str(legend)
            return name, decode_text(read_bytes(legend, _MAX_LEGEND_BYTES, name), name)
    return "", ""


def _parse_legend(legend: object, where: str, classes: tuple[str, ...]) -> dict[str, int]:
    """Labels by colour (lower case) or id, as texts."""
    if isinstance(legend, str):
        legend = parse_json(legend, where)
    expected = 'expected {"#rrggbb" or "id": "name of a class"}'
    if not isinstance(legend, Mapping) or not legend:
        raise InputError(f"{where}: {expected}.")
    if len(legend) > _MAX_NAMED:
        raise LimitError(f"{where}: {len(legend):,} entries, the limit is {_MAX_NAMED:,}.")
    labels: dict[str, int] = {}
    for key, word in legend.items():
        key = str(key).strip().lower()
        if not _KEY.fullmatch(key) or not (word is None or isinstance(word, str)):
            raise InputError(f"{where}: {expected}, got {key[:40]!r}: {str(word)[:40]!r}.")
        try:
            labels[key] = find_class(word or "", classes)
        except ValueError as error:
            raise InputError(f"{where}: {error}.") from error
    kinds = {key.startswith("#") for key in labels}
    if len(kinds) > 1:
        raise InputError(f"{where}: colours and ids are mixed; name all by colour or all by id.")
    return labels


def _named_labels(
    stored: Image.Image | np.ndarray, names: Mapping[str, int], size: int, name: str
) -> np.ndarray:
    if next(iter(names)).startswith("#"):
        return _painted_labels(stored, names, size, name)
    table = np.full(256, -1)
    table[NO_LABEL] = 0
    for key, label in names.items():
        if int(key) > NO_LABEL:
            raise InputError(f"{name}: classes: id {key} is beyond 0..{NO_LABEL}.")
        table[int(key)] = label
    ids = _bytes(stored, name)
    found = np.unique(ids)
    unknown = found[table[found] < 0]
    if len(unknown):
        raise InputError(
            f"{name}: {int((ids == unknown[0]).sum()):,} pixels have id {unknown[0]}, which its classes do "
            f"not name; they name {', '.join(list(names)[:20])}."
        )
    return table[ids].astype(np.uint8)


def _painted_labels(
    stored: Image.Image | np.ndarray, names: Mapping[str, int], size: int, name: str
) -> np.ndarray:
    """Labels of colours. A colour of no class passes only where it is the soft edge of a known one."""
    pixels = _colors(stored, name, size)
    known = np.array([list(bytes.fromhex(key[1:])) for key in names], np.int16)
    codes = (pixels[..., :3].astype(np.int32) << (16, 8, 0)).sum(-1)
    colors, where = np.unique(codes, return_inverse=True)
    unpacked = (colors[:, None] >> np.array([16, 8, 0]) & 255).astype(np.int16)
    nearest = np.empty(len(colors), np.intp)
    gaps = np.empty(len(colors), np.intp)
    for i in range(0, len(colors), 4096):  # keeps the table of distances small
        apart = np.abs(unpacked[i : i + 4096, None] - known).max(-1)
        nearest[i : i + 4096] = apart.argmin(1)
        gaps[i : i + 4096] = apart.min(1)
    labels = np.array(list(names.values()), np.uint8)[nearest][where].reshape(codes.shape)
    is_known = (gaps <= _COLOR_SLACK)[where].reshape(codes.shape)
    if pixels.shape[2] == 4:
        is_clear = pixels[..., 3] < 128
        labels[is_clear] = 0
        is_known |= is_clear
    return labels if is_known.all() else _filled(labels, is_known, codes, name)


def _filled(labels: np.ndarray, is_known: np.ndarray, codes: np.ndarray, name: str) -> np.ndarray:
    """Give soft edges the label of the nearest pixel that has one. Raises InputError where none is near."""
    import cv2

    strange = codes[~is_known]
    if is_known.any():
        far, owner = cv2.distanceTransformWithLabels(
            (~is_known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        if far.max() <= _SOFT_EDGE:
            owner = owner.astype(np.intp)
            table = np.zeros(int(owner.max()) + 1, np.uint8)
            table[owner[is_known]] = labels[is_known]
            return table[owner]
        strange = codes[far > _SOFT_EDGE]
    colors, counts = np.unique(strange, return_counts=True)
    most = int(counts.argmax())
    total = int((codes == colors[most]).sum())
    raise InputError(
        f"{name}: {total:,} of {codes.size:,} pixels are #{colors[most]:06x}, which its classes do not name; "
        f'add the colour to them, with "nothing" where it is no class.'
    )


def _colors(stored: Image.Image | np.ndarray, name: str, size: int) -> np.ndarray:
    """Colours uint8 (H, W, 3 or 4) of the central square, at most at the model's size: it sees no more."""
    if isinstance(stored, Image.Image):
        mode = "RGBA" if stored.has_transparency_data else "RGB"
        stored = np.asarray(stored.convert(mode))
    if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[2] not in (3, 4):
        raise InputError(
            f"{name}: an array {stored.dtype} {stored.shape}; its classes name colours, which takes uint8 "
            "(H, W, 3)."
        )
    return nearest_square(stored, min(size, *stored.shape[:2]))


def _ids(stored: Image.Image | np.ndarray, name: str, num_classes: int) -> np.ndarray:
    """Ids uint8 (H, W), each of a class or NO_LABEL."""
    ids = _bytes(stored, name)
    counts = np.bincount(ids.ravel(), minlength=256)
    unknown = np.flatnonzero(counts[num_classes:NO_LABEL])
    if len(unknown):
        worst = num_classes + int(unknown[0])
        raise InputError(
            f"{name}: {counts[worst]:,} pixels have id {worst}; the model's classes are "
            f"0..{num_classes - 1}, {NO_LABEL} is none. Other ids need names, in a classes.json beside it."
        )
    return ids


def _bytes(stored: Image.Image | np.ndarray, name: str) -> np.ndarray:
    """Whole numbers 0..255 (H, W); of a palette picture its indices."""
    if isinstance(stored, Image.Image) and stored.mode == "P":
        return np.asarray(stored)
    what = "without classes that name its colours, a label map"
    if isinstance(stored, Image.Image) and stored.format == "JPEG":
        raise InputError(f"{name}: JPEG changes ids; save the map as PNG.")
    ids = one_channel(stored, name, what)
    if ids.dtype.kind not in "bui" or ids.min() < 0 or ids.max() > NO_LABEL:
        raise InputError(
            f"{name}: {ids.dtype} in {ids.min():g}..{ids.max():g}; ids are whole numbers in 0..{NO_LABEL}."
        )
    return ids.astype(np.uint8)
