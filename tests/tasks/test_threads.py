"""Work in threads ends with its block."""

import threading

import pytest

from labelmill.tasks.threads import open_threads


def test_open_threads_error_in_the_block_drops_what_is_not_begun():
    begun, futures, going = [], [], threading.Event()

    def work(number):
        begun.append(number)
        going.wait(60)

    def fail():
        with open_threads(2, name="test") as threads:
            futures.extend(threads.submit(work, number) for number in range(10))
            threading.Timer(0.05, going.set).start()
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        fail()
    assert len(begun) == 10 - sum(future.cancelled() for future in futures) <= 2
    assert all(future.done() for future in futures)  # nothing works on behind the block
