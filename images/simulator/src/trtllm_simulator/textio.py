"""Text to tokens and back, from the files beside a Hugging Face checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class Decoder:
    """Tokens to text, piece by piece. A piece is empty while a character is not complete."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=skip_special_tokens)

    def step(self, token: int) -> str:
        """Text that the token adds. A token that has none, such as a padded entry of the vocabulary, adds nothing."""
        if self._tokenizer.id_to_token(token) is None:
            return ""
        return self._stream.step(self._tokenizer, token) or ""


class TextIO:
    """Tokenizer and what its configuration says.

    Raises:
        OSError: the directory holds no tokenizer (text of transformers).
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise OSError(
                f"Can't load tokenizer for '{directory}'. If you were trying to load it from 'https://huggingface.co/models', make sure you don't have "
                f"a local directory with the same name. Otherwise, make sure '{directory}' is the correct path to a directory containing all relevant files."
            )
        self.directory = directory
        self.tokenizer = Tokenizer.from_file(str(path))
        self.config = _json(directory / "tokenizer_config.json")
        self.end_ids = self._end_ids()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Tokens of a text."""
        return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def decoder(self, *, skip_special_tokens: bool = True) -> Decoder:
        """A decoder for one sequence."""
        return Decoder(self.tokenizer, skip_special_tokens=skip_special_tokens)

    @property
    def chat_template(self) -> str | None:
        """The Jinja template, from a file of its own or from tokenizer_config.json."""
        path = self.directory / "chat_template.jinja"
        if path.is_file():
            return path.read_text()
        template = self.config.get("chat_template")
        if isinstance(template, list):
            template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
        return template

    def special(self, name: str) -> str | None:
        """Text of a special token such as `bos_token`."""
        value = self.config.get(name)
        return value["content"] if isinstance(value, dict) else value

    def _end_ids(self) -> frozenset[int]:
        """Tokens that end a text: those of generation_config.json, and the tokenizer's eos_token."""
        listed = _json(self.directory / "generation_config.json").get("eos_token_id", [])
        found = set(listed if isinstance(listed, list) else [listed])
        if (eos := self.special("eos_token")) and (token := self.tokenizer.token_to_id(eos)) is not None:
            found.add(token)
        return frozenset(token for token in found if token is not None)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    return content if isinstance(content, dict) else {}
