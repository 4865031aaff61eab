"""Services on a running testbed: from manifests and pods' addresses to rules on every node.

``state`` is what a cluster's API server would hold of them, ``documents`` (pure) turns a change of
it into what each node is told, ``conntrack`` (pure) finds the connections that must not go on, and
``converge`` delivers.
"""
