import os
import subprocess
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyseek.errors import InputError
from anyseek.indexer.naming import natural_key
from anyseek.indexer.scan import Scan
from anyseek.indexer.sources import FolderSource, SourceItem
from anyseek.model import SIDE_FILES, modalities
from hypothesis import given, settings
from hypothesis import strategies as st


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def scan(root: Path, **options: object) -> dict[str, SourceItem]:
    items = list(FolderSource(root, **options).scan())  # type: ignore[arg-type]
    assert len({item.id for item in items}) == len(items)
    return {item.id: item for item in items}


def files(item: SourceItem) -> dict[str, str]:
    return {modality: path.name for modality, path in item.files.items()}


def codes(item: SourceItem) -> list[str]:
    return [problem.code for problem in item.problems]


def test_side_files_join_the_item_of_their_name(tmp_path: Path) -> None:
    make(
        tmp_path,
        "2024/harbour.jpg",
        "2024/harbour.depth.png",
        "2024/harbour.caption.txt",
        "2024/harbour.json",
    )
    (item,) = scan(tmp_path).values()
    assert item.id == "2024/harbour"
    assert files(item) == {
        "rgb": "harbour.jpg",
        "depth": "harbour.depth.png",
        "caption": "harbour.caption.txt",
    }
    assert item.attributes_path == tmp_path / "2024/harbour.json"


def test_an_item_needs_no_rgb(tmp_path: Path) -> None:
    items = scan(make(tmp_path, "a.caption.txt", "b.depth.png", "c.det.json"))
    assert {id_: set(item.files) for id_, item in items.items()} == {
        "a": {"caption"},
        "b": {"depth"},
        "c": {"det"},
    }


@pytest.mark.parametrize(
    "names",
    [
        ("rgb/0001.jpg", "depth/0001.png", "caption/0001.txt", "attributes/0001.json"),
        ("RGB/0001.JPG", "Depth/0001.PNG", "caption/0001.txt", "attributes/0001.json"),
        (
            "rgb/0001.jpg",
            "depth/0001.png",
            "caption/0001.txt",
            "attributes/0001.json",
            "README.md",
            "other/x.jpg",
        ),
    ],
)
def test_folders_named_as_modalities_are_one_item_each_stem(tmp_path: Path, names: tuple[str, ...]) -> None:
    (item,) = scan(make(tmp_path, *names)).values()
    assert item.id == "0001"
    assert set(item.files) == {"rgb", "depth", "caption"}
    assert item.attributes_path is not None


def test_folder_layout_nests(tmp_path: Path) -> None:
    items = scan(make(tmp_path, "rgb/train/1.jpg", "depth/train/1.png", "depth/val/2.png"))
    assert {id_: set(item.files) for id_, item in items.items()} == {
        "train/1": {"rgb", "depth"},
        "val/2": {"depth"},
    }


def test_a_depth_folder_alone_is_the_folder_layout(tmp_path: Path) -> None:
    assert list(scan(make(tmp_path, "depth/1.png"))) == ["1"]


def test_a_photo_folder_that_happens_to_be_called_clip_stays_a_folder(tmp_path: Path) -> None:
    assert list(scan(make(tmp_path, "clip/a.jpg", "2024/b.jpg"))) == ["2024/b", "clip/a"]
    assert list(scan(make(tmp_path / "2", "clip/a.jpg", "depth/a.jpg", "top.jpg"))) == [
        "clip/a",
        "depth/a",
        "top",
    ]


def test_files_outside_the_modality_folders_are_counted(tmp_path: Path) -> None:
    ignored: Counter[str] = Counter()
    root = make(tmp_path, "rgb/1.jpg", "depth/1.png", "other/2.jpg")
    list(FolderSource(root).scan(ignored))
    assert ignored == {"outside the modality folders": 1}
    assert list(scan(root, layout="side_files")) == ["depth/1", "other/2", "rgb/1"]


def test_suffixes_ignore_case(tmp_path: Path) -> None:
    (item,) = scan(make(tmp_path, "a.JPG", "a.Depth.PNG", "a.CAPTION.TXT")).values()
    assert set(item.files) == {"rgb", "depth", "caption"}


def test_an_unknown_or_misfitting_suffix_is_part_of_the_name(tmp_path: Path) -> None:
    items = scan(make(tmp_path, "photo.foo.png", "video.clip.jpg", "photo.jpg"))
    assert {id_: set(item.files) for id_, item in items.items()} == {
        "photo": {"rgb"},
        "photo.foo": {"rgb"},
        "video.clip": {"rgb"},
    }


def test_a_side_file_of_the_wrong_kind_is_listed(tmp_path: Path) -> None:
    (item,) = scan(make(tmp_path, "a.jpg", "a.depth.exr")).values()
    assert set(item.files) == {"rgb"}
    assert codes(item) == ["source.extension"]
    assert ".png" in item.problems[0].message
    assert item.problems[0].path.endswith("a.depth.exr")


def test_two_pictures_of_one_name_are_two_items(tmp_path: Path) -> None:
    items = scan(make(tmp_path, "a.png", "a.jpg", "a.gif", "a.depth.png"))
    assert {id_: files(item) for id_, item in items.items()} == {
        "a": {"rgb": "a.jpg", "depth": "a.depth.png"},
        "a.gif": {"rgb": "a.gif"},
        "a.png": {"rgb": "a.png"},
    }


def test_a_second_file_for_a_place_is_listed_never_dropped(tmp_path: Path) -> None:
    (item,) = scan(make(tmp_path, "a.depth.png", "a.depth.tif", "a.depth.TIF")).values()
    assert files(item) == {"depth": "a.depth.png"}
    assert codes(item) == ["source.duplicate"] * 2


def test_a_second_picture_whose_name_is_taken_is_listed(tmp_path: Path) -> None:
    items = scan(make(tmp_path, "a.jpg", "a.png", "a.png.jpg"))
    assert sorted(items) == ["a", "a.png"]
    assert codes(items["a"]) == ["source.duplicate"]
    assert files(items["a.png"]) == {"rgb": "a.png.jpg"}


def test_hidden_files_libraries_and_thumbnails_are_passed_over(tmp_path: Path) -> None:
    root = make(
        tmp_path, ".a.jpg", ".git/b.jpg", "mine.anyseek/c.jpg", "@eaDir/d.jpg", "__MACOSX/e.jpg", "f.jpg"
    )
    assert list(scan(root)) == ["f"]


def test_files_of_other_kinds_are_counted_by_extension(tmp_path: Path) -> None:
    ignored: Counter[str] = Counter()
    root = make(tmp_path, "a.HEIC", "b.heic", "c.mov", "LICENSE", "d.jpg", "lonely.json")
    assert [item.id for item in FolderSource(root).scan(ignored)] == ["d"]
    assert ignored == {".heic": 2, ".mov": 1, "no extension": 1, "attributes without an item": 1}
    nothing: Counter[str] = Counter()
    assert [item.id for item in FolderSource(make(tmp_path / "x", "2024/a.jpg")).scan(nothing)] == ["2024/a"]
    assert dict(nothing) == {}


def test_links_inside_are_followed_and_links_outside_are_listed(tmp_path: Path) -> None:
    make(tmp_path / "outside", "secret.jpg")
    root = make(tmp_path / "root", "real/a.jpg")
    (root / "link.jpg").symlink_to(root / "real/a.jpg")
    (root / "escape.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (root / "escape").symlink_to(tmp_path / "outside")
    (root / "broken.jpg").symlink_to(root / "nowhere.jpg")
    (root / "again").symlink_to(root / "real")
    (root / "real/loop").symlink_to(root)
    (root / "self.jpg").symlink_to(root / "self.jpg")
    items = scan(root)
    assert {id_ for id_, item in items.items() if item.files} == {"link", "real/a"}
    assert {id_: codes(item)[0] for id_, item in items.items() if item.problems} == {
        "broken": "source.unreadable",
        "escape": "source.link_outside",
        "self": "source.unreadable",
    }
    assert len(items["escape"].problems) == 2
    assert all(path.is_relative_to(root) for item in items.values() for path in item.files.values())


def test_a_modality_folder_that_is_a_link_out_is_listed(tmp_path: Path) -> None:
    make(tmp_path / "outside", "1.png")
    root = make(tmp_path / "root", "rgb/1.jpg", "caption/1.txt", "kept/1.png")
    (root / "depth").symlink_to(tmp_path / "outside")
    (root / "normal").symlink_to(root / "kept")
    items = scan(root)
    assert set(items["1"].files) == {"rgb", "caption", "normal"}
    assert codes(items["depth"]) == ["source.link_outside"]
    assert all(path.is_relative_to(root) for path in items["1"].files.values())


def test_a_linked_root_is_its_target(tmp_path: Path) -> None:
    make(tmp_path / "real", "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert FolderSource(tmp_path / "link").name == FolderSource(tmp_path / "real").name
    assert list(scan(tmp_path / "link")) == ["a"]


def test_pipes_and_folders_with_picture_names_do_not_hang(tmp_path: Path) -> None:
    root = make(tmp_path, "x.jpg/inner.png")
    os.mkfifo(root / "pipe.jpg")
    items = scan(root)
    assert codes(items["pipe"]) == ["source.not_a_file"]
    assert files(items["x.jpg/inner"]) == {"rgb": "inner.png"}


def test_odd_names_are_safe(tmp_path: Path) -> None:
    names = [
        "a b.jpg",
        "ü.jpg",
        "日本/語.png",
        "new\nline.jpg",
        "caf\udce9.jpg",
        "-rf.jpg",
        "a'\"b.jpg",
        "%41.jpg",
    ]
    items = scan(make(tmp_path, *names))
    assert set(items) == {"a b", "ü", "日本/語", "new\\x0aline", "caf\\xe9", "-rf", "a'\"b", "%41"}
    assert all(path.is_file() for item in items.values() for path in item.files.values())
    for item in items.values():
        item.id.encode()


def test_composed_and_decomposed_names_are_the_same_item(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "été")
    items = scan(make(tmp_path, "été/é.jpg", f"{decomposed}/{unicodedata.normalize('NFD', 'é')}.depth.png"))
    assert {id_: set(item.files) for id_, item in items.items()} == {"été/é": {"rgb", "depth"}}


def test_order_is_natural_and_the_same_every_time(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{folder}/{i}.jpg" for folder in ("10", "9", "a") for i in (10, 2, 1)))
    ids = [item.id for item in FolderSource(root).scan()]
    assert ids == [f"{folder}/{i}" for folder in ("9", "10", "a") for i in (1, 2, 10)]
    assert ids == [item.id for item in FolderSource(root).scan()]


@settings(max_examples=50, deadline=None)
@given(st.permutations(["a", "A", "a1", "a01", "a10", "a2", "1", "01", "", "é", "a٣", "1a1"]))
def test_natural_order_is_total(names: list[str]) -> None:
    expected = ["", "01", "1", "1a1", "A", "a", "a01", "a1", "a2", "a10", "a٣", "é"]
    assert sorted(names, key=natural_key) == expected


def test_prefix_goes_before_every_id(tmp_path: Path) -> None:
    make(tmp_path, "a/b.jpg")
    assert list(scan(tmp_path, prefix="trips/")) == ["trips/a/b"]
    assert FolderSource(tmp_path, prefix="x").name != FolderSource(tmp_path).name


def test_signature_changes_with_any_file_of_the_item_and_only_then(tmp_path: Path) -> None:
    root = make(tmp_path, "a.jpg", "a.caption.txt", "b.jpg")
    first = scan(root)
    assert {id_: item.signature for id_, item in scan(root).items()} == {
        id_: item.signature for id_, item in first.items()
    }
    (root / "a.caption.txt").write_text("another one")
    assert scan(root)["a"].signature != first["a"].signature
    assert scan(root)["b"].signature == first["b"].signature
    (root / "b.json").write_text("{}")
    assert scan(root)["b"].signature != first["b"].signature
    os.utime(root / "b.json", ns=(1, 1))
    touched = scan(root)["b"].signature
    os.utime(root / "b.json", ns=(1, 2))
    assert scan(root)["b"].signature != touched


def test_moving_the_root_keeps_signatures(tmp_path: Path) -> None:
    before = scan(make(tmp_path / "one", "a.jpg"))["a"].signature
    (tmp_path / "one").rename(tmp_path / "two")
    assert scan(tmp_path / "two")["a"].signature == before


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder in a folder, 1050 times; removed by a program that does not recurse, as pytest's own does."""
    home = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(1050):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        os.fchdir(home)
        yield tmp_path
    finally:
        os.close(home)
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_folders_deeper_than_the_stack_are_scanned(deep: Path) -> None:
    make(deep, "a.jpg", *("d/" * depth + "b.jpg" for depth in (1, 1040)))
    items = scan(deep)
    assert {id_ for id_, item in items.items() if item.files} == {"a", "d/b", "d/" * 1040 + "b"}


def test_an_unreadable_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, "a.jpg", "locked/b.jpg")
    real = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    items = scan(root)
    assert codes(items["locked"]) == ["source.unreadable_folder"]
    assert files(items["a"]) == {"rgb": "a.jpg"}


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        FolderSource(tmp_path / "none")
    with pytest.raises(InputError, match="side_files"):
        FolderSource(tmp_path, layout="flat")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="id"):
        FolderSource(tmp_path, prefix="a\nb")


def test_every_side_file_is_a_modality_of_the_table() -> None:
    raw_names = {modality.raw for modality in modalities.MODALITIES.values()}
    assert set(SIDE_FILES) <= raw_names
    assert not {name for name in raw_names if name not in SIDE_FILES}


def test_legends_of_label_maps_are_no_items(tmp_path: Path) -> None:
    root = make(tmp_path, "park.semseg.png", "park.classes.json", "Classes.json", "park.semseg.classes.json")
    (item,) = FolderSource(root).scan()
    assert (item.id, set(item.files)) == ("park", {"semseg"})


def test_a_scan_keeps_what_the_source_gave(tmp_path: Path) -> None:
    root = make(tmp_path, "caf\udce9.jpg", "a.jpg", "a.json", "a.depth.exr", "b.caption.txt")
    source = FolderSource(root)
    with Scan(source) as kept, Scan(source) as again:
        assert list(kept.items_from(0)) == list(source.scan())
        assert list(kept.items_from(2)) == list(source.scan())[2:]
        assert (len(kept), kept.digest) == (3, again.digest)
        (root / "c.jpg").write_bytes(b"")
        with Scan(source) as other:
            assert other.digest != kept.digest
