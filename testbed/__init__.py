"""Real multi-node Kubernetes pod networking in Docker, without Kubernetes.

::

    compose/flannel.yaml ─load─▶ Cluster ─plan─▶ NodeSpec per node ─▶ Docker node containers
    (+ Kubernetes manifests)     pure data       pure functions        │ boot, sync from the spec
                                                                       ▼
          Report ◀─verify─ expected (oracle, pure), observed (probes, pcaps) ◀─ in-node agent
"""
