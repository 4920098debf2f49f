"""Tasks that do not depend on one another: in this process, in several, or on a Ray cluster.

A worker imports TensorFlow once, which takes seconds, and then serves one task after the other. It
has a fixed number of threads, so that workers side by side do not fight for processors, and a task
gives the same numbers wherever it runs.
"""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from typing import NamedTuple

import tensorflow as tf

from keras_disrnn import native
from keras_disrnn.utils.checks import check_integer

ENGINES = ("inline", "local", "ray")

INTERVAL = 5.0
"""Seconds between two calls of `waiting` while no task ends."""


TASKS_A_WORKER = 50
"""After so many a local worker makes room for a new one: TensorFlow keeps a little of each fit."""


class WorkerDied(RuntimeError):
    """The process that a task ran in ended before the task did, each time that it was tried."""


class Outcome(NamedTuple):
    """How a task ended.

    Attributes:
        task: The task.
        value: What the function returned.
        error: What it raised, or `None`.
        traceback: Where it raised it, as text.
    """

    task: tuple
    value: object = None
    error: Exception | None = None
    traceback: str = ""


def run_tasks(
    function,
    tasks,
    *,
    engine="local",
    workers=None,
    threads=1,
    retries=2,
    started=None,
    waiting=None,
):
    """Calls a function on each task; yields the outcomes as they come.

    A task whose worker process dies is begun again in a new one, so that a function which keeps its
    state in a file goes on from there. Workers end with the process that began them, however it
    ends.

    Args:
        function: A function of a module, so that another process can import it.
        tasks: Tuples of its arguments, which can be pickled.
        engine: `"inline"`, one after the other in this process, with the threads it has; `"local"`,
            in processes of this machine; `"ray"`, on the cluster of the environment variable
            `RAY_ADDRESS`, or without one on a Ray of this machine. What tasks share on a cluster
            (files, the package) must be there on each of its machines.
        workers: How many tasks at a time; `None` for as many as there are processors to give each
            `threads`.
        threads: Threads, and on a cluster processors, of each worker.
        retries: How often a task is begun again after its worker died.
        started: Called with a task as it is handed to a worker.
        waiting: Called without arguments every few seconds while no task ends.

    Yields:
        An `Outcome` for each task; one that raises does not stop the others.

    Raises:
        ValueError: If the engine is unknown or not installed, or a number is out of range.
    """
    check_engine(engine, workers, threads, retries)
    started, waiting = started or (lambda task: None), waiting or (lambda: None)
    tasks = list(tasks)
    if engine == "inline":
        for task in tasks:
            started(task)
            yield Outcome(task, *_attempt(function, task))
    else:
        run = _run_local if engine == "local" else _run_ray
        yield from run(function, tasks, workers, threads, retries, started, waiting)


def check_engine(engine, workers=None, threads=1, retries=2):
    """Raises ValueError where `run_tasks` could not begin with these."""
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if workers is not None:
        check_integer("workers", workers, 1)
    check_integer("threads", threads, 1)
    check_integer("retries", retries, 0)
    if engine == "ray":
        _import_ray()


# === Processes of this machine ===


def _run_local(function, tasks, workers, threads, retries, started, waiting):
    if workers is None:
        workers = max(1, native.processor_count() // threads)
    left = collections.deque((task, 0) for task in tasks)
    free = [_Process(function, threads) for _ in range(min(workers, len(tasks)))]
    busy = {}
    try:
        while left or busy:
            while left and free:
                process = free.pop()
                task, deaths = left.popleft()
                started(task)
                process.begin(task)
                busy[process.connection] = process, task, deaths
            ready = multiprocessing.connection.wait(busy, INTERVAL)
            if not ready:
                waiting()
            for connection in ready:
                process, task, deaths = busy.pop(connection)
                result = process.result()
                if result is not None:
                    if process.begun >= TASKS_A_WORKER and left:
                        process.end()
                        process = _Process(function, threads)
                    free.append(process)
                    yield Outcome(task, *result)
                    continue
                code = process.end()
                free.append(_Process(function, threads))
                if deaths < retries:
                    left.appendleft((task, deaths + 1))
                else:
                    yield Outcome(task, error=_died(deaths + 1, f"exit code {code}", code))
    finally:
        for process in [*free, *(process for process, _, _ in busy.values())]:
            process.end()


class _Process:
    """A worker process, and our end of the pipe to it."""

    def __init__(self, function, threads):
        # Spawned, because TensorFlow's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, function, threads), daemon=True
        )
        self._process.start()
        # With this the other end has one owner, and its death ends the pipe.
        theirs.close()
        self.begun = 0

    def begin(self, task):
        self.begun += 1
        with contextlib.suppress(OSError):  # It is dead, as `result` will find.
            self.connection.send(task)

    def result(self):
        """What `_attempt` returned, or `None` if the process died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def end(self):
        """Ends the process; returns its exit code."""
        self._process.kill()
        self._process.join()
        self.connection.close()
        return self._process.exitcode


def _serve(connection, function, threads):
    # Ctrl-C reaches every process of the terminal; whoever began the workers ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(threads)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(function, task))


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def use_threads(threads):
    """Gives this process's TensorFlow and native passes that many threads, before it computes."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    native.yield_processors()


def _attempt(function, task):
    """The last three fields of an `Outcome`, which can be sent to another process."""
    try:
        return function(*task), None, ""
    except Exception as error:
        return None, _portable(error), traceback.format_exc()


def _portable(error):
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _died(times, why, code=None):
    count = "once" if times == 1 else f"{times} times"
    hint = "most often the machine ran out of memory: try fewer workers"
    if code == 1:
        hint = (
            "it printed why; a script that begins workers does so below "
            '`if __name__ == "__main__":`, as each worker imports it'
        )
    return WorkerDied(
        f"the worker process died {count} in this task (the last time: {why}); {hint}"
    )


# === Ray ===


def _import_ray():
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "engine: 'ray' needs the package ray; install it with pip install 'keras-disrnn[ray]', "
            "or take the engine 'local'"
        ) from error
    return ray


def _run_ray(function, tasks, workers, threads, retries, started, waiting):
    ray = _import_ray()
    own = not ray.is_initialized()
    if own:
        machine = {}
        if not os.environ.get("RAY_ADDRESS"):
            # "local": what is left of a cluster that was killed is not to be looked for.
            machine = {
                "address": "local",
                "num_cpus": workers and workers * threads,
                "include_dashboard": False,
            }
        ray.init(log_to_driver=False, **machine)
    try:
        if workers is None:
            workers = max(1, int(ray.cluster_resources().get("CPU", 1) // threads))
        remote = ray.remote(num_cpus=threads, max_retries=retries, max_calls=TASKS_A_WORKER)(
            _attempt_in_ray
        )
        left, busy = collections.deque(tasks), {}
        while left or busy:
            while left and len(busy) < workers:
                task = left.popleft()
                started(task)
                busy[remote.remote(function, task, threads)] = task
            ready, _ = ray.wait(list(busy), timeout=INTERVAL)
            if not ready:
                waiting()
            for reference in ready:
                task = busy.pop(reference)
                try:
                    yield Outcome(task, *ray.get(reference))
                except ray.exceptions.RayError as error:
                    why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                    yield Outcome(task, error=_died(retries + 1, why))
    finally:
        if own:
            ray.shutdown()


def _attempt_in_ray(function, task, threads):
    use_threads(threads)
    return _attempt(function, task)
