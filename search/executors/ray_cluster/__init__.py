"""What the Ray executor needs of a cluster: a connection, resources, code on its nodes, and the causes of errors."""
