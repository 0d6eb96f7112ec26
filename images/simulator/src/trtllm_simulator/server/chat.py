"""Chat messages to a prompt, by the model's Jinja template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trtllm_simulator.textio import TextIO


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def prompt(text: TextIO, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool = True, template: str | None = None) -> str:
    """The prompt, as apply_chat_template of transformers renders it.

    Raises:
        ValueError: there is no template, or it refuses the messages.
    """
    source = template or text.chat_template
    if source is None:
        raise ValueError("No chat template found for the given tokenizer and tools.")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)  # autoescape would turn < into &lt;
    environment.globals["raise_exception"] = _raise
    special = {name: text.special(name) or "" for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    try:
        return environment.from_string(source).render(messages=list(messages), add_generation_prompt=add_generation_prompt, **special)
    except TemplateError as error:
        raise ValueError(f"chat template: {error}") from error


def flat(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose content is one text.

    Raises:
        ValueError: there is more than text in it.
    """
    content = message.get("content")
    if isinstance(content, list):
        parts = []
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise ValueError("the simulator takes messages of text only")
            parts.append(str(part.get("text", "")))
        content = "".join(parts)
    return {**message, "content": content or ""}
