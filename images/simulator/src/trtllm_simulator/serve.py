"""`trtllm-serve`: the command line. The server itself is in `server`."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import click
import yaml

from trtllm_simulator import gpu, log, serve_options, versions
from trtllm_simulator.llmapi import parse_args
from trtllm_simulator.loader import Loaded, load


class _DefaultGroup(click.Group):
    """`trtllm-serve MODEL` means `trtllm-serve serve MODEL`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["serve", *args]
        return super().parse_args(ctx, args)


def _update(args: dict[str, Any], path: str | None) -> dict[str, Any]:
    """Keys of the options file override the command line; kv_cache_config is merged (update_llm_args_with_extra_dict).

    Raises:
        TypeError: the file holds no mapping.
    """
    if path is None:
        return args
    content = yaml.safe_load(Path(path).read_text()) or {}
    if not isinstance(content, dict):
        raise TypeError(f"{path} must hold a YAML mapping of LLM arguments")
    merged = {**args, **content}
    if isinstance(content.get("kv_cache_config"), dict):
        merged["kv_cache_config"] = {**args["kv_cache_config"], **content["kv_cache_config"]}
    return merged


def _llm_args(behaviour: versions.Behaviour, values: dict[str, Any]) -> dict[str, Any]:
    """Keywords of the LLM from the command line.

    Raises:
        ValueError: there is no GPU.
        NotImplementedError: an option that the simulator can't follow.
    """
    for name in serve_options.NOT_SIMULATED:
        if values.get(name):
            raise NotImplementedError(f"the simulator does not implement --{name}")
    if not gpu.visible():
        raise ValueError("No GPU devices found on the node")
    backend = behaviour.backends[values["backend"]]
    args: dict[str, Any] = {"model": values["model"], "backend": values["backend"]}
    for option in serve_options.options(behaviour):
        if option.key and (value := values[option.name]) is not None:
            args[option.key] = value
    if args.get("gpus_per_node") is None:
        args["gpus_per_node"] = len(gpu.visible())
    args["kv_cache_config"] = {"free_gpu_memory_fraction": values["free_gpu_memory_fraction"]}
    if values.get("kv_cache_dtype", "auto") != "auto":
        args["kv_cache_config"]["dtype"] = values["kv_cache_dtype"]
    if backend == "tensorrt":
        args["build_config"] = {
            key: args[key] for key in ("max_batch_size", "max_num_tokens", "max_beam_width", "max_seq_len") if key in args
        }
    return args


def _serve(behaviour: versions.Behaviour, values: dict[str, Any]) -> None:
    log.set_level(values["log_level"])
    log.banner(versions.notice(behaviour))
    args = _update(_llm_args(behaviour, values), values["extra_llm_api_options"])
    host, port = values["host"], values["port"]
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise RuntimeError(f"Failed to bind socket to {host}:{port}: {error}") from error
        # Bound, not listening: until the model is loaded a client's connection is refused.
        loaded = load(parse_args(args, "pytorch", behaviour), behaviour, serving=True)
        _run(behaviour, loaded, values, listener)


def _run(behaviour: versions.Behaviour, loaded: Loaded, values: dict[str, Any], listener: socket.socket) -> None:
    from trtllm_simulator.server.run import serve  # noqa: PLC0415  other sub-commands, and refusals, need no web server

    if loaded.text is None:
        loaded.executor.shutdown()
        log.error("trtllm-serve needs a tokenizer: with an engine as model give the Hugging Face directory as --tokenizer")
        raise AttributeError("'NoneType' object has no attribute 'tokenizer'")
    asyncio.run(serve(behaviour, loaded, model=values["model"], served_name=values.get("served_model_name"), listener=listener))
    if loaded.executor.fatal is not None:
        # uvicorn sends itself the signal again when it has ended; whether Python still sees it as an interrupt is a matter of microseconds.
        raise SystemExit(1)


def _not_simulated(name: str) -> click.Command:
    def refuse(**_: Any) -> None:
        raise click.ClickException(f"the simulator does not implement `trtllm-serve {name}`")

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, callback=refuse, context_settings=settings, help="Not part of the simulator.")


def command(behaviour: versions.Behaviour) -> click.Group:
    """The command for a version."""

    def callback(**values: Any) -> None:
        _serve(behaviour, values)

    text = f"TensorRT-LLM {behaviour.version} SIMULATOR: runs an OpenAI API compatible server that computes on the CPU."
    group = _DefaultGroup("trtllm-serve", help=text)
    details = f"{text}\n\nMODEL: model name | HF checkpoint path | TensorRT engine path"
    group.add_command(click.Command("serve", params=serve_options.parameters(behaviour), callback=callback, help=details))
    for name in ("disaggregated", "disaggregated_mpi_worker", "mm_embedding_serve"):
        group.add_command(_not_simulated(name))
    return group


def main() -> None:
    """Entry point. Option errors end with status 2 (click), other errors with a traceback and status 1, as in the real tool."""
    command(versions.installed())(prog_name="trtllm-serve")


if __name__ == "__main__":
    main()
