"""A Ray cluster of two nodes on this machine: `python ray_cluster.py FOLDER`.

It says where it is in FOLDER/address, ends the second node without warning as soon as FOLDER/kill
is there, and all when FOLDER/end is. `test_ray.py` starts it in a network of its own.
"""
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster


def main(folder: Path):
    cluster = Cluster(initialize_head=True,
                      head_node_args=dict(num_cpus=1, include_dashboard=False))
    second = cluster.add_node(num_cpus=1)
    try:
        cluster.wait_for_nodes()
        (folder / "address").write_text(cluster.address)
        while not (folder / "end").exists():
            if second and (folder / "kill").exists():
                cluster.remove_node(second, allow_graceful=False)
                second = None
                (folder / "killed").touch()
            time.sleep(0.1)
    finally: cluster.shutdown()


main(Path(sys.argv[1]))
