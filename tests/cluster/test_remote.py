import os
import subprocess
import sys

from cluster.remote import lean_memory


def test_a_process_of_large_tensors_gets_an_allocator_that_gives_memory_back():
    code = "print('jemalloc' in open('/proc/self/maps').read())"
    out = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **lean_memory()}, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "True" and not out.stderr
