"""A small WordPiece vocabulary: the words of given captions, every letter and digit, and the number tokens.

Ids are looked up by name, so the order is free: what short sequences use comes first, and each modality's
embedding table ends with the last id that it needs (`table_sizes`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

CONTROL = ("[PAD]", "[UNK]", "[SOS]", "[EOS]")
_NUM_SENTINELS = 24
# By how far the modalities' numbers go: v1=0..31 count colours and name statistics, whose values end at 511;
# colours and pixels of the 224-pixel frame end at 255, codes of tokenizers at 511.
_BLOCKS = (
    (1, 0, 32),
    (0, 0, 256),
    (0, 256, 512),
    (1, 32, 512),
    (2, 0, 256),
    (3, 0, 256),
    (0, 512, 1000),
    (1, 512, 1000),
    (2, 256, 1000),
    (3, 256, 1000),
)
# Words of structured texts (tokenizers/poses.py, instances.py).
_STRUCTURE = ("human", "pose", "global", "camera", "shape", "point", "polygon", "none")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PUNCTUATION = ".,:;!?'\"()-"


def build_vocabulary(captions: Iterable[str], class_names: Sequence[str]) -> bytes:
    """Return the bytes of a HuggingFace `tokenizers` file.

    Args:
        captions: their words become entries; other words are spelt letter by letter.
        class_names: become single tokens, in boxes and in captions alike.
    """
    normalizer = normalizers.BertNormalizer()
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {
        word
        for text in set(captions)
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    words |= set(_STRUCTURE)
    classes = list(class_names)
    letters = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_PUNCTUATION]
    pieces = [*letters, *sorted(words - set(letters) - set(classes))]
    sentinels = [f"[S_{i}]" for i in range(_NUM_SENTINELS)]
    numbers = [f"v{i}={n}" for i, start, stop in _BLOCKS for n in range(start, stop)]
    entries = [*CONTROL, *sentinels, *classes, *pieces, *numbers]
    model = models.WordPiece(
        {entry: i for i, entry in enumerate(entries)}, unk_token="[UNK]", max_input_chars_per_word=100
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.add_special_tokens(
        [AddedToken(entry, single_word=True, normalized=False) for entry in (*CONTROL, *sentinels, *numbers)]
        + [AddedToken(name, single_word=True, normalized=True) for name in classes]
    )
    return json.dumps(json.loads(tokenizer.to_str()), separators=(",", ":")).encode()


def table_sizes(content: bytes) -> dict[str, int]:
    """Give for each text modality how many rows its embedding table needs."""
    tokenizer = Tokenizer.from_str(content.decode())

    def after(token: str) -> int:
        index = tokenizer.token_to_id(token)
        assert index is not None, token
        return index + 1

    return {
        "caption": after("v1=0") - 1,
        "color_palette": after("v0=255"),
        "metadata": after("v0=511"),
        "sam_instance": after("v3=255"),
        "det": tokenizer.get_vocab_size(),
        "human_poses": tokenizer.get_vocab_size(),
    }
