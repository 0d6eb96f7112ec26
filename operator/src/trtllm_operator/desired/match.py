"""Is an observed object as desired? Decides whether a server-side apply is sent at all.

Two questions: was the same desired object applied before (a hash on the child), and does what it says still hold (somebody may have
edited the child since). Quantities compare by value, because the API server writes `1000m` as `1`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from trtllm_operator.desired.names import DESIRED_HASH, short

_SUFFIX = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip

# Keys by which the API server merges lists of objects (x-kubernetes-list-map-keys of the built-in types that we make).
_MERGE_KEYS = ("uid", "mountPath", "name", "containerPort", "port", "type")

MAP = (dict, Mapping)
"""For `isinstance`. What JSON is parsed to comes first: asking an abstract class takes ten times as long."""
_LIST = (list, Sequence)


def with_hash(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the hash of its desired content as annotation.

    Owners are left out of the hash: the owners of a shared object each apply it with their own entry, and must agree on the rest.
    """
    metadata = dict(obj["metadata"])
    content = {**obj, "metadata": {key: value for key, value in metadata.items() if key != "ownerReferences"}}
    metadata["annotations"] = {**metadata.get("annotations", {}), DESIRED_HASH: short(content)}
    return {**obj, "metadata": metadata}


def quantity(text: str) -> Decimal:
    """Value of a Kubernetes quantity. Raises ValueError where it is none."""
    for cut in (2, 1):
        if text[-cut:] in _SUFFIX and len(text) > cut:
            text, factor = text[:-cut], _SUFFIX[text[-cut:]]
            break
    else:
        factor = Decimal(1)
    try:
        return Decimal(text) * factor
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not a quantity") from error


def difference(desired: Any, observed: Any, path: str = "") -> str | None:
    """Path of the first desired value that does not hold in the observed one, or None. What only the observed one has is somebody else's."""
    if desired == observed:  # most of it, and without a look at each leaf
        return None
    if isinstance(desired, MAP):
        if not isinstance(observed, MAP):
            return path or "."
        for key, value in desired.items():
            if (found := difference(value, observed.get(key), f"{path}.{key}")) is not None:
                # An empty map or list and an absent one are the same to the API server.
                if value in ({}, [], None, "") and observed.get(key) is None:
                    continue
                return found
        return None
    if not isinstance(desired, str) and isinstance(desired, _LIST):
        return _list_difference(desired, observed, path)
    return None if _same_quantity(desired, observed) else path


def _list_difference(desired: Sequence[Any], observed: Any, path: str) -> str | None:
    if not isinstance(observed, _LIST) or isinstance(observed, str):
        return path
    key = next((k for k in _MERGE_KEYS if desired and all(isinstance(item, MAP) and k in item for item in desired)), None)
    if key is None or key == "type":
        if len(desired) != len(observed):
            return path
        pairs = [(f"{path}[{i}]", want, have) for i, (want, have) in enumerate(zip(desired, observed, strict=True))]
    else:
        by_key = {item.get(key): item for item in observed if isinstance(item, MAP)}
        pairs = [(f"{path}[{item[key]}]", item, by_key.get(item[key])) for item in desired]
    for where, want, have in pairs:
        if (found := difference(want, have, where)) is not None:
            return found
    return None


def _same_quantity(desired: Any, observed: Any) -> bool:
    if not (isinstance(desired, str | int) and isinstance(observed, str | int)) or isinstance(desired, bool) or isinstance(observed, bool):
        return False
    try:
        return quantity(str(desired)) == quantity(str(observed))
    except ValueError:
        return False
