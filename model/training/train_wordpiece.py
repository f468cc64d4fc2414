"""Training of a text vocabulary in the layout of the published one (arXiv 2312.06647).

Ids start with control tokens, sentinels, the numbers `v0=0` to `v3=999` and class names; characters and
pieces of words follow, learned from captions (WordPiece, arXiv 1609.08144, by HuggingFace's `tokenizers`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ...errors import ConfigError
from ..tokenizers.text import TextTokenizer
from ..tokenizers.words import HEADS, MAX_NUMBER
from .vocabulary import CONTROL

_WORDS = "human pose global camera shape none point polygon"
"""What people and instances are spelt with, besides numbers."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PUNCTUATION = ".,:;!?'\"()-"
_PREFIX = "##"
_MAX_CHARS_PER_WORD = 100


def train_wordpiece(
    captions: Sequence[str],
    *,
    class_names: Sequence[str] = (),
    vocab_size: int = 30_000,
    min_frequency: int = 2,
    num_sentinels: int = 200,
) -> bytes:
    """Learn a vocabulary.

    Args:
        captions: texts to learn the pieces of words from.
        class_names: become single tokens, sorted, in boxes and in captions alike.
        vocab_size: number of ids at most; fewer where the captions have no more pieces.
        min_frequency: how often a piece must occur.
        num_sentinels: `[S_0]`, `[S_1]`, ...

    Returns:
        The bytes of a HuggingFace `tokenizers` file, as `TextTokenizer` opens it.

    Raises:
        ConfigError: there is no room for words.
    """
    exact = [
        *CONTROL,
        *(f"[S_{i}]" for i in range(num_sentinels)),
        *(f"{head}={n}" for head in HEADS for n in range(MAX_NUMBER + 1)),
    ]
    names = sorted(set(class_names))
    room = vocab_size - len(exact) - len(names)
    if room < 4 * len(_LETTERS):
        raise ConfigError(
            f"vocab_size {vocab_size} leaves {max(room, 0)} ids for words beside {len(exact)} for sentinels "
            f"and numbers and {len(names)} for classes; take {vocab_size - room + 1000} or more."
        )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=_MAX_CHARS_PER_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    # Any word can be spelt: each letter is seen once inside a word too.
    texts = [*captions, *[_WORDS] * max(min_frequency, 100), f"a{_LETTERS}"]
    inner = _inner_letters(texts)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[
            *(AddedToken(token, single_word=True, normalized=False) for token in exact),
            *(AddedToken(name, single_word=True, normalized=True) for name in names),
            # The library numbers these as its hash tables fall, and ties between pieces fall with them.
            *inner,
        ],
        initial_alphabet=[*_LETTERS, *_PUNCTUATION],
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    content = json.loads(tokenizer.to_str())
    plain = set(inner)
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in plain]
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _inner_letters(texts: Iterable[str]) -> list[str]:
    """What letters are called that follow others in a word."""
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = {
        word for text in set(texts) for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    return sorted({_PREFIX + letter for word in words for letter in word[1:]})


def judge_wordpiece(content: bytes, captions: Sequence[str]) -> dict[str, float]:
    """Measure a vocabulary on captions that it was not learned from.

    Returns:
        `vocab_size`; `tokens_per_word`; `unknown`, the share of tokens that are `[UNK]`; `same`, the share of
        captions that decoding gives back up to case and space.
    """
    text = TextTokenizer(content)
    normalizer = normalizers.BertNormalizer()
    num_tokens = num_words = num_unknown = num_same = 0
    for caption in captions:
        ids = text.encode(caption)
        num_tokens += len(ids)
        num_words += len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(caption))
        num_unknown += int((ids == text.unk_id).sum())
        wanted = "".join(normalizer.normalize_str(caption).split())
        num_same += "".join(text.decode(ids).split()) == wanted
    return {
        "vocab_size": text.vocab_size,
        "tokens_per_word": num_tokens / max(num_words, 1),
        "unknown": num_unknown / max(num_tokens, 1),
        "same": num_same / max(len(captions), 1),
    }
