"""COCO's JSON of one picture (https://cocodataset.org/#format-data): what boxes and instances share.

SA-1B's files are read too: they say `image` in place of `images` and have no categories.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from ...errors import InputError, LimitError
from .content import parse_number

MAX_LISTED = 1000
"""Entries of one file; SA-1B has about 100 a picture, 500 at most."""

MAX_CATEGORIES = 100_000

SLACK = 1.0
"""Pixels by which coordinates may leave the picture: rounding of whoever wrote the file."""


@dataclass(frozen=True)
class CocoPicture:
    """What a file says of its picture.

    Attributes:
        size: width and height in pixels; None where the file does not say.
        annotations: its entries, crowds left out.
        names: of categories by id.
    """

    size: tuple[float, float] | None
    annotations: Sequence[Mapping[str, Any]]
    names: Mapping[int, str]


def is_coco(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a parsed JSON file has COCO's layout."""
    return isinstance(value, Mapping) and "annotations" in value


def parse_coco(value: Mapping[str, Any], name: str) -> CocoPicture:
    """Check the frame of a COCO file; what is in its annotations is checked by who uses it.

    Raises:
        InputError: another layout, several pictures, annotations of another picture.
        LimitError: more than MAX_LISTED annotations.
    """
    image = _one_image(value, name)
    annotations = check_listed(value["annotations"], f"{name}: annotations")
    for i, one in enumerate(annotations):
        owner = one.get("image_id")
        if image is not None and "id" in image and owner not in (None, image["id"]):
            raise InputError(
                f"{name}: annotation {i} belongs to picture {str(owner)[:40]}, the file describes picture "
                f"{str(image['id'])[:40]}; give the annotations of one picture."
            )
    shapes = [one for one in annotations if not one.get("iscrowd")]
    return CocoPicture(parse_size(image or value, name), shapes, _names(value, name))


def check_listed(value: object, name: str, limit: int = MAX_LISTED) -> Sequence[Mapping[str, Any]]:
    """A list of objects, `limit` at most. Raises InputError, LimitError."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{name}: expected a list, got {type(value).__name__}.")
    if len(value) > limit:
        raise LimitError(f"{name}: {len(value):,} entries, the limit is {limit:,}.")
    for i, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise InputError(f"{name}: entry {i} must be an object, got {str(item)[:40]!r}.")
    return value


def parse_size(value: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Width and height of a picture in pixels; None where neither is given. Raises InputError."""
    if "width" not in value and "height" not in value:
        return None
    width, height = (parse_number(value.get(key), f"{name}: {key}") for key in ("width", "height"))
    if not (1 <= width <= 1e6 and 1 <= height <= 1e6):
        raise InputError(f"{name}: a picture of {width:g} x {height:g} pixels has no size to work with.")
    return width, height


def _one_image(value: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    images = value.get("images", [value["image"]] if "image" in value else [])
    images = check_listed(images, f"{name}: images")
    if len(images) > 1:
        raise InputError(f"{name}: describes {len(images)} pictures; give the entries of one.")
    return images[0] if images else None


def _names(value: Mapping[str, Any], name: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for i, one in enumerate(check_listed(value.get("categories", []), f"{name}: categories", MAX_CATEGORIES)):
        key, label = one.get("id"), one.get("name")
        if not isinstance(key, int) or not isinstance(label, str):
            raise InputError(f'{name}: category {i} must be {{"id": number, "name": text}}.')
        names[key] = label
    return names
