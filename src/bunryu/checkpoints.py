"""The classifier's weights in a Lightning checkpoint, read without running anything in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from bunryu.errors import ModelError

PREFIX = "model."  # the attribute under which our task, and the tutorial's, keep the classifier


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The classifier's state_dict: the checkpoint's entries below ``model.``, without that prefix.

    Raises:
        ModelError: if the file is missing, damaged, holds pickled objects, or has no such entries.
    """
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise ModelError(f"the checkpoint cannot be read: {error.strerror}", where=str(path)) from None
    except pickle.UnpicklingError as error:
        reason = str(error).strip()
        if "Unsupported" in reason or "GLOBAL" in reason:
            raise ModelError(
                "the checkpoint holds more than tensors and plain values, which could run code when loaded",
                where=str(path),
                fix="save only its state_dict: torch.save({'state_dict': task.state_dict()}, FILE)",
            ) from None
        raise ModelError(f"no checkpoint: {reason.splitlines()[0]}", where=str(path)) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the checkpoint is damaged or none: {str(error).splitlines()[0]}", where=str(path)
        ) from None
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ModelError("the checkpoint has no state_dict", where=str(path), fix="a Lightning checkpoint")
    weights = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(PREFIX) and isinstance(tensor, torch.Tensor)
    }
    if not weights:
        raise ModelError(
            f"no entry of its state_dict starts with '{PREFIX}'",
            where=str(path),
            fix="a checkpoint of bunryu or of the tutorial's library",
        )
    return weights
