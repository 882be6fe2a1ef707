"""Silences torch's exporters and onnxscript's optimizer: their warnings, their log, and what they print."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest import mock

import torch

_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")
_NEVER = logging.CRITICAL + 1


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps all that they would tell the user of an export to themselves: errors are raised anyway."""
    loggers = [
        logging.getLogger(name)
        for name in list(logging.root.manager.loggerDict)
        if name.partition(".")[0] == "torch"
    ]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    muted: list[logging.Handler | logging.Logger] = [*handlers, *map(logging.getLogger, _LOGGERS)]
    levels = [(item, item.level) for item in muted]
    for item in muted:
        item.setLevel(_NEVER)
    try:
        # The older exporter logs to the process's own output, and cannot be told not to (torch 2.13).
        log = mock.patch.object(torch._C, "_jit_onnx_log")
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), log:
            warnings.simplefilter("ignore")
            yield
    finally:
        for item, level in levels:
            item.setLevel(level)
