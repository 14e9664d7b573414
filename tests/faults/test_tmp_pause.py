"""Each node paused in turn for 8 s, again and again; a pytest file run from tests/faults."""
import time
import pytest
from .site import Site
@pytest.mark.timeout(1500)
def test_pause_loop(run):
    with Site(run).start() as site:
        site.load(producers=6, consumers=5, rate=5)
        for n in range(9):
            node = site.cluster.nodes[n % 3]
            def pause(node=node):
                node.pause(); time.sleep(9)
            site.fault(f"{node.name} stopped {n}", pause, node.resume)
        site.finish(confirmed=1000)
