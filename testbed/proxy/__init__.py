"""kube-proxy's modes, one module each: from Services and their endpoints to rules. Pure.

A module offers what :class:`testbed.plan.ProxyPlanner` says; its file's name is the word after
``--proxy``.
"""
