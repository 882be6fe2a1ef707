"""Data without labels: a network is judged by how close its outputs stay to the uncompressed network's."""

from collections.abc import Mapping
from typing import Any

from search.requests.choices import Choices
from search.requests.network import Network
from search.requests.sizes import split_sizes
from spaces.errors import InputError

_OF_CLASSES = ("class", "label", "logit", "prob", "score", "softmax")
"""Parts of names that outputs of classifiers have."""


def unlabelled(
    network: Network,
    loader: str,
    values: Mapping[str, Any],
    n: int,
    where: str,
    *,
    are_images: bool = False,
) -> Choices:
    """Returns the choices for examples without labels.

    A network that takes images and yields a row of outputs is taken for a classifier, as one that names them so.

    Args:
        network: The network.
        loader: The file of the group `task/data`.
        values: What the loader is told, by key.
        n: Number of examples.
        where: What holds them, for messages.
        are_images: Whether they are images.

    Raises:
        InputError: The network would have to be trained on them.
    """
    if network.folder is None:
        raise InputError(f"{where} has no labels, which this network needs: it is trained on the data")
    name, output = next(iter(network.outputs.items()), ("", None))
    is_row = output is not None and len(output.shape) == 1 and output.shape[0] != 1
    classes = is_row and (are_images or any(part in name.lower() for part in _OF_CLASSES))
    compared = {"task.compared": "classes"} if classes else {}
    note = "there are no labels: networks are judged by how close their outputs stay to the uncompressed network's (fidelity)"
    return Choices(
        {"task": "unlabelled", "task/data": loader}, {**values, **compared, **split_sizes(n)}, notes=(note,)
    )
