import numpy as np
import onnx

from spaces.models.layers import Layer, layers

GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[n, 4, 8, 8] x, float[m, m2] other) => (float[n, 5] y)
<float[6, 2, 3, 3] c_weight, float[6] c_bias, float[6, 3, 2, 2] t_weight, float[6, 7] m_weight,
 float[5, 7] g_weight, float[7, 5] h_weight, int64[2] shape>
{
    [conv] a = Conv <group = 2, pads = [1, 1, 1, 1]> (x, c_weight, c_bias)
    [up] b = ConvTranspose <group = 2> (a, t_weight)
    [flat] c = Reshape (b, shape)
    [mm] d = MatMul (c, m_weight)
    [gemm] e = Gemm <transB = 1> (d, g_weight)
    [dynamic] f = MatMul (e, other)
    [gemm2] y = Gemm (f, h_weight)
}
"""


def test_layers_of_every_operator_are_listed_in_order():
    proto = onnx.parser.parse_model(GRAPH)
    for name, shape in {
        "c_weight": (6, 2, 3, 3),
        "c_bias": (6,),
        "t_weight": (6, 3, 2, 2),
        "m_weight": (6, 7),
        "g_weight": (5, 7),
        "h_weight": (7, 5),
    }.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name))
    assert layers(proto) == [
        Layer("c_weight", "conv", "Conv", "x", "a", (6, 2, 3, 3), 0, "c_bias"),
        Layer("t_weight", "up", "ConvTranspose", "a", "b", (6, 3, 2, 2), 1),
        Layer("m_weight", "mm", "MatMul", "c", "d", (6, 7), 1),
        Layer("g_weight", "gemm", "Gemm", "d", "e", (5, 7), 0),
        Layer("h_weight", "gemm2", "Gemm", "f", "y", (7, 5), 1),
    ]
