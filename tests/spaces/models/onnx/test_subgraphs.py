import onnx
from onnx import TensorProto, helper

from spaces.models.onnx.subgraphs import expose_subgraph_readers, names_read


def graph(nodes, output, inputs=(), initializers=()):
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    return helper.make_graph(nodes, "g", given, [value], list(initializers))


def branch(nodes, output):
    return helper.make_node(
        "If", ["c"], ["y"], then_branch=graph(nodes, output), else_branch=graph(nodes, output)
    )


def test_a_node_reads_what_its_subgraphs_read_of_the_graphs_around_them():
    inner = branch([helper.make_node("Add", ["own", "outermost"], ["sum"])], "sum")
    node = branch([helper.make_node("Neg", ["outer"], ["own"]), inner], "y")
    assert set(names_read(node)) == {"c", "outer", "outermost"}
    assert names_read(helper.make_node("Add", ["a", "b"], ["c"])) == ("a", "b")


def test_a_name_of_a_subgraph_hides_that_of_the_graph_around_it():
    body = graph([helper.make_node("Neg", ["a"], ["b"])], "b", inputs=["a"])
    assert names_read(helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)) == ("x",)


def test_subgraphs_read_all_but_shapes_through_nodes_of_the_graph():
    integers = helper.make_tensor("shape", TensorProto.INT64, [1], [1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    inner = branch([helper.make_node("Mul", ["r", "w"], ["z"])], "z")
    outer = branch([helper.make_node("Reshape", ["r", "shape"], ["q"]), inner], "y")
    whole = graph([helper.make_node("Relu", ["x"], ["r"]), outer], "y", ["x", "c"], [integers, weight])
    expose_subgraph_readers(whole)
    identities = {node.input[0]: node.output[0] for node in whole.node if node.op_type == "Identity"}
    assert identities == {name: f"{name}_of_subgraph" for name in ("r", "c", "w")}
    assert set(names_read(whole.node[-1])) == {"c", "shape", *identities.values()}
    assert [node.op_type for node in whole.node] == ["Relu", *["Identity"] * 3, "If"]


def test_a_graph_without_subgraphs_stays_as_it_is():
    whole = graph([helper.make_node("Relu", ["x"], ["y"])], "y", ["x"])
    before = onnx.GraphProto.FromString(whole.SerializeToString())
    expose_subgraph_readers(whole)
    assert whole == before
