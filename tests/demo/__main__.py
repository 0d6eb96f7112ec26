"""Runs the demo; see `make help`."""

from __future__ import annotations

import argparse
import sys
import time

import openai

from tests.cluster.process import ClusterError
from tests.cluster.progress import say
from tests.demo import install, view
from tests.support import images
from tests.support.kubectl import Kubectl

_QUESTION = "What is TensorRT-LLM?"


def talk(kubectl: Kubectl) -> None:
    """Ask the endpoint through its Service, with the official client, and print the answer as it comes."""
    service = kubectl.within(install.NAMESPACE).get("llmservice", "tiny-llama")
    model = service["status"]["model"]
    with (
        kubectl.within(install.NAMESPACE).forward("service/tiny-llama", 8000) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        print(f"\n> {_QUESTION}\n", flush=True)
        with client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": _QUESTION}], max_tokens=80, temperature=0, stream=True
        ) as answer:
            for chunk in answer:
                if chunk.choices and (text := chunk.choices[0].delta.content):
                    print(text, end="", flush=True)
    print("\n", flush=True)


def show(kubectl: Kubectl, cluster: str) -> None:
    """What a user sees, and what to try next."""
    within = kubectl.within(install.NAMESPACE)
    print(within("get", "llmengine,llmenginebuild,llmservice"), flush=True)
    shell = f"export KUBECONFIG={kubectl.kubeconfig}\n  " if kubectl.kubeconfig else ""
    what = "what was made on this machine" if cluster == "current" else f"the cluster {cluster}"
    print(
        "The engine and the answer above are real work, done by a SIMULATOR of TensorRT-LLM on a CPU: no GPU was used.\n"
        "\nTo try next:\n"
        f"  {shell}kubectl -n demo describe llmengine tiny-llama       # stages, plan, conditions\n"
        "  kubectl -n demo scale llmservice tiny-llama --replicas 2\n"
        '  kubectl -n demo patch llmengine tiny-llama --type merge -p \'{"spec":{"build":{"maxBatchSize":16}}}\'   # new build, old one serves until done\n'
        "  kubectl -n demo port-forward service/tiny-llama 8000      # then any OpenAI client on http://127.0.0.1:8000/v1\n"
        f"  make down                                                 # removes {what}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description="trtllm-operator demo: starts a cluster, installs the operator, builds and serves a small model"
    )
    parser.add_argument(
        "--cluster", default="trtllm", help="name of the cluster; `current` uses the present kubeconfig (default: %(default)s)"
    )
    parser.add_argument("--registry", help="with --cluster current: registry that the cluster pulls from; images are pushed there")
    parser.add_argument("--images-only", action="store_true", help="build the images and stop")
    args = parser.parse_args()
    started = time.monotonic()
    try:
        if args.images_only:
            print("\n".join(images.build_all()))
            return 0
        target = install.cluster(args.cluster, args.registry)
        install.operator(target)
        install.samples(target)
        view.watch(lambda: install.state(target.kubectl), 600)
        talk(target.kubectl)
        show(target.kubectl, args.cluster)
    except ClusterError as error:
        say(f"demo: {error}")
        return 1
    except KeyboardInterrupt:
        say("demo: interrupted; run it again to go on, or `make down` to remove what it made")
        return 130
    say(f"demo: done in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
