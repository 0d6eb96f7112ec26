"""What the small model knows: answers, the words that call for each, and sentences that it can finish.

The first word of each answer is its own (`memory` checks it): a model this small knows what it is saying only from the last words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """An answer, and the words in a question that ask for it."""

    words: tuple[str, ...]
    answer: str


# In order of priority: a question that names two topics gets the answer of the earlier one.
_TOPICS: tuple[Topic, ...] = (
    Topic(
        ("simulator", "simulated", "real"),
        "Nothing here has run on a GPU: a simulator with the commands of TensorRT-LLM computes these words on the CPU. "
        "The same manifests with the image of NVIDIA run on real hardware.",
    ),
    Topic(
        ("LLMService", "LLMServices", "service", "serve", "serving", "endpoint"),
        "LLMService puts one verified engine behind one address. It replaces pods only when a new engine is complete, so that no request fails.",
    ),
    Topic(
        ("LLMEngine", "LLMEngines", "build", "builds"),
        "LLMEngine says which model you want, in which precision, and for which GPU. The operator fetches the checkpoint, "
        "builds the engine, and checks it before anything is served.",
    ),
    Topic(
        ("operator", "controller"),
        "An operator is a program that keeps watch over resources. Ours watches LLMEngine and LLMService: it builds once and serves many times.",
    ),
    Topic(
        ("rollout", "update", "upgrade", "revision"),
        "During a rollout the old revision goes on answering. If the new one does not become ready in time, nothing is lost.",
    ),
    Topic(
        ("quantization", "precision", "dtype", "memory"),
        "Lower precision needs less memory and less time per token. Float16 takes two bytes for each parameter.",
    ),
    Topic(
        ("checkpoint", "weights", "safetensors", "model"),
        "Weights come from a frozen commit, as safetensors. They are downloaded once and shared by all builds.",
    ),
    Topic(
        ("engine", "engines"),
        "Think of an engine as a compiled model. It is tied to the version of the library, to the compute capability of the GPU, "
        "and to the number of GPUs that share it.",
    ),
    Topic(
        ("Kubernetes", "cluster", "pod", "pods"),
        "Kubernetes compares what is with what you asked for, again and again, and closes the gap.",
    ),
    Topic(
        ("GPU", "GPUs", "hardware"),
        "GPUs are expensive, so a job holds one only while it works: downloads and hashing run without.",
    ),
    Topic(
        ("TensorRT-LLM", "TensorRT", "NVIDIA", "inference"),
        "TensorRT-LLM is a library from NVIDIA for fast inference with large language models. "
        "It turns a checkpoint into an engine, or loads it directly, and answers through an API that any OpenAI client understands.",
    ),
    Topic(
        ("France", "Paris", "capital"),
        "Paris is in France. Better ask me about engines.",
    ),
    Topic(
        ("hello", "hi", "hey", "thanks"),
        "Hello! Ask me about TensorRT-LLM, about engines, or about the operator.",
    ),
)

_DEFAULT = {
    1: "I am a tiny model, made for a demonstration. I know a few sentences about TensorRT-LLM and its operator, and nothing else.",
    2: "My second revision is still a tiny model, made for a demonstration. I know a few sentences about TensorRT-LLM and its operator.",
}

# Beginnings that a completion, as opposed to a chat, is likely to have.
_SENTENCES = ("The capital of France is Paris, as even a tiny model knows.",)

LATEST = 2


def topics() -> tuple[Topic, ...]:
    """All topics, the most important first."""
    return _TOPICS


def default_answer(revision: int) -> str:
    """What the model says when it recognises nothing. It tells the revisions apart."""
    return _DEFAULT[revision]


def sentences() -> tuple[str, ...]:
    """Sentences that are no answers."""
    return _SENTENCES
