"""What a set of services needs in AWS, who talks to whom, and what is wrong with it: all read
from the services themselves.

    from headrace.topology.derive import topology
    from headrace.topology.graph import graph, mermaid, svg
    from headrace.topology.check import check
"""
