"""What torch and onnxscript tell while a network is exported does not reach the user."""

import logging
import sys
import warnings

import torch

from spaces.models.exporters.quiet import quiet


def tell():
    for name in ("torch.onnx._internal", "onnxscript.optimizer._constant_folding", "onnx_ir.passes"):
        logging.getLogger(name).warning("told by %s", name)
    print("told")
    print("told", file=sys.stderr)
    warnings.warn("told", DeprecationWarning, stacklevel=1)
    torch._C._jit_onnx_log("told")


def test_nothing_is_told_and_all_is_as_before_afterwards(capfd, caplog):
    before = [logging.getLogger(name).level for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    with quiet():
        tell()
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert [logging.getLogger(n).level for n in ("torch", "torch.onnx", "onnxscript", "onnx_ir")] == before
    logging.getLogger("onnxscript.optimizer").warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]
