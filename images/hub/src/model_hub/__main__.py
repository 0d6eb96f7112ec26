"""`python -m model_hub`: serves the demo's models. `HUB_TOKEN` opens the gated one."""

from __future__ import annotations

import argparse
import os

import uvicorn

from model_hub.catalog import repositories
from model_hub.server import Hub, Tokens


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="model_hub", description="A small server with the protocol of the Hugging Face Hub, for tests and the demo"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    env = os.environ
    tokens = Tokens(env.get("HUB_TOKEN") or "hf_demo_token", env.get("HUB_UNGRANTED_TOKEN") or "hf_demo_ungranted_token")
    uvicorn.run(Hub(repositories(), tokens).app(), host=arguments.host, port=arguments.port, log_level="info")


if __name__ == "__main__":
    main()
