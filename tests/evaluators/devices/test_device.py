import pickle

import pytest

from evaluators.devices.device import DTYPES, Device, FigureSource


def test_half_precision_falls_back_to_float32():
    assert Device("d", macs_per_s={"float32": {"default": 7.0}}).throughput("float16") == 7.0
    both = {"float32": {"default": 7.0}, "float16": {"default": 14.0}}
    assert Device("d", macs_per_s=both).throughput("float16") == 14.0


def test_four_bit_weights_fall_back_to_int8():
    assert Device("d", macs_per_s={"int8": {"default": 7.0}}).throughput("int4") == 7.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_device_without_throughput_runs_nothing(dtype):
    assert Device("d").throughput(dtype) is None


def test_throughput_is_that_of_the_kernel_class_else_the_default_else_none():
    device = Device("d", macs_per_s={"int8": {"conv": 9.0, "default": 3.0}, "float32": {"conv": 2.0}})
    assert device.throughput("int8", "conv") == 9.0
    assert device.throughput("int8", "depthwise") == device.throughput("int8") == 3.0
    assert device.throughput("float32", "conv") == 2.0
    assert device.throughput("float32", "depthwise") is None


def test_efficiency_scales_every_throughput():
    device = Device("d", macs_per_s={"int8": {"conv": 8.0, "default": 4.0}}, efficiency=0.25)
    assert (device.throughput("int8", "conv"), device.throughput("int8")) == (2.0, 1.0)


def test_overhead_is_that_of_the_kernel_class_else_the_default_else_nothing():
    device = Device("d", kernel_overhead_us={"conv": 5.0, "default": 2.0})
    assert (device.overhead_us("conv"), device.overhead_us("pool")) == (5.0, 2.0)
    assert Device("d", kernel_overhead_us={"conv": 5.0}).overhead_us("pool") == 0.0


def test_a_device_can_be_pickled():
    device = Device(
        "d",
        macs_per_s={"int8": {"default": 1.0}},
        sources={"macs_per_s": FigureSource("measured", "somebody")},
    )
    assert pickle.loads(pickle.dumps(device)) == device
